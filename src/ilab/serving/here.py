"""The backend ``transformers``: the model is loaded into this process."""

from __future__ import annotations

import asyncio

from ilab.errors import InputError
from ilab.models.chat_template import json_object
from ilab.models.gguf.header import read_header
from ilab.serving.backend import Job
from ilab.serving.listen import bind, run, server_tls
from ilab.serving.template import check_template, template_for


def check(job: Job) -> None:
    """Raises ``SetupError`` for a GGUF file that only llama.cpp serves, ``InputError`` for words that nobody takes and
    for a chat template that is not there."""
    no_words(job)
    server_tls(job.settings)
    check_template(job.settings.chat_template, job.settings.model_family)
    if job.model.is_file():
        from ilab.models.gguf.load import need_known

        need_known(read_header(job.model), job.model)


def no_words(job: Job) -> None:
    """Raises ``InputError`` where words behind ``--`` or vLLM's options are given to a backend that has none."""
    if job.extra:
        raise InputError(
            f"{' '.join(job.extra)}: words behind -- go to vLLM alone", hint="leave them out, or add: --backend vllm"
        )


def serve(job: Job) -> int:
    """See :class:`ilab.serving.backend.Backend`."""
    settings = job.settings
    tls = server_tls(settings)
    with bind(settings.host, settings.port) as bound:
        from ilab.models.local import LocalModel
        from ilab.serving.front import Front
        from ilab.serving.server import Server

        job.say(f"Starting server process: transformers loads {job.model.name} …")
        if job.model.is_file():
            from ilab.models.gguf.load import load_gguf

            model, kind = load_gguf(job.model, job.device, job.threads), read_header(job.model).architecture
        else:
            job.say(f"Starting server process: loading {job.model.name} …")
            model = LocalModel.load(job.model, job.device, job.threads)
            kind = str(json_object(job.model / "config.json").get("model_type", ""))
        special = model.renderer.special_tokens.values()
        source = template_for(settings.chat_template, settings.model_family, special, kind, job.say)
        if source is not None:
            model.renderer = model.renderer.with_template(source, settings.chat_template)
        if settings.max_ctx_size:
            model.context_length = min(model.context_length, settings.max_ctx_size)
        front = Front(job.names, job.key, model.context_length)
        return asyncio.run(run(Server(model, job.names[0], front).application(), bound, tls, job.ready))
