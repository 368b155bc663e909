"""The backend ``vllm``: vLLM's own OpenAI server, as a child process that clients talk to themselves.

    python -m vllm.entrypoints.openai.api_server --host H --port P --model M --chat-template FILE --served-model-name N…
        --distributed-executor-backend mp  (vllm_args)  --tensor-parallel-size G  (what is behind --)

An option that is given in ``where.serve.vllm_args`` or behind ``--`` is not written a second time, and what is behind
``--`` comes last, so it wins. A key goes by the environment (VLLM_API_KEY): everybody can read a command line.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO, Any

from ilab.core.keeper import Child
from ilab.errors import ServiceError, SetupError
from ilab.hardware import detect
from ilab.models.chat_template import json_object
from ilab.models.gguf.header import read_header
from ilab.serving.backend import Job
from ilab.serving.context_size import Fitted, fit
from ilab.serving.listen import base_url, bind, server_tls
from ilab.serving.readiness import Log, Start, until_ready
from ilab.serving.template import check_template, template_for

MODULE = "vllm.entrypoints.openai.api_server"
BITS = ("--quantization", "bitsandbytes", "--load-format", "bitsandbytes", "--enforce-eager")
LIVES = 0.2  # seconds between two looks whether the child lives


def check(job: Job) -> None:
    """Raises ``SetupError`` where vLLM is not installed, ``InputError`` for a chat template that is not there."""
    server_tls(job.settings)
    check_template(job.settings.chat_template, job.settings.model_family)
    if find_spec("vllm") is None:
        raise SetupError(
            "vLLM is not installed beside ilab",
            where=sys.executable,
            hint="pip install vllm (Linux, with a GPU); or leave --backend and --gpus out",
        )


def serve(job: Job) -> int:
    """See :class:`ilab.serving.backend.Backend`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fitted = _fitted(job)
        command = command_line(job, _template_file(job, folder), fitted)
        host, port = _value(command, "--host"), int(_value(command, "--port"))
        bind(host, port).close()  # vLLM would tell of a port that is taken only after the model is loaded
        job.say(f"Starting server process: vLLM loads {job.model.name} …")
        if fitted.note:
            job.say(fitted.note)
        job.detail(" ".join(command))
        stop = _Stop(stack)
        sink: IO[bytes] | None = stack.enter_context(job.log.open("ab")) if job.log else None
        log = Log(job.log, job.log.stat().st_size) if job.log else None
        environment = {"PYTHONSAFEPATH": "1"}  # a folder vllm/ where the command is typed is not vLLM
        if job.key:
            environment["VLLM_API_KEY"] = job.key
        child = stack.enter_context(Child(command, sink, environment=environment))
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        secure = "--ssl-certfile" in _options(command)
        url = base_url(here, port, secure)
        until_ready(child, Start("vLLM", url, log, job.key, job.tell, stop.set))
        if not stop.set():
            job.ready(base_url(host, port, secure))
        while not stop.wait(LIVES):
            if child.code is not None:
                said = f":\n{log.last_words()}" if log else ""
                raise ServiceError(f"vLLM ended with {child.code}{said}", where=str(job.log or job.model))
        return stop.number


class _Stop:
    """Notes SIGINT and SIGTERM while ``stack`` is open."""

    def __init__(self, stack: ExitStack) -> None:
        self.number = 0
        self._event = threading.Event()
        for each in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, each, signal.signal(each, self._note))

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self._event.set()

    def set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


def command_line(job: Job, template: Path | None, fitted: Fitted) -> list[str]:
    """The command that serves ``job``; ``template`` is a file that replaces the model's own chat template, ``fitted``
    what the GPUs have room for."""
    settings = job.settings
    given = _options([*settings.vllm_args, *job.extra])
    words = [sys.executable, "-m", MODULE]

    def add(option: str, *values: str) -> None:
        if option not in given:
            words.extend((option, *values))

    add("--host", settings.host)
    add("--port", str(settings.port))
    add("--model", str(job.model))
    if template is not None:
        add("--chat-template", str(template))
    add("--served-model-name", *job.names)
    context = settings.max_ctx_size or fitted.context
    if context:
        add("--max-model-len", str(context))
    if fitted.utilisation is not None:
        add("--gpu-memory-utilization", f"{fitted.utilisation:.2f}")
    if settings.tls_cert:
        add("--ssl-certfile", settings.tls_cert)
        if settings.tls_key:
            add("--ssl-keyfile", settings.tls_key)
    if _in_bits(job.model) and "--quantization" not in given:
        words.extend(BITS)
    add("--distributed-executor-backend", "mp")
    words.extend(settings.vllm_args)
    if settings.gpus and "--tensor-parallel-size" not in _options(job.extra):
        words.extend(("--tensor-parallel-size", str(settings.gpus)))
    return [*words, *job.extra]


def _options(words: Sequence[str]) -> set[str]:
    """The options among ``words``: ``--port=1`` is ``--port``, and ``-tp`` has a long name too."""
    found = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("-")}
    return found | ({"--tensor-parallel-size"} if "-tp" in found else set())


def _value(words: Sequence[str], option: str) -> str:
    """The last value of ``option``."""
    found = ""
    for at, word in enumerate(words):
        name, given, value = word.partition("=")
        if name.replace("_", "-") == option:
            found = value if given else words[at + 1] if at + 1 < len(words) else ""
    return found


def _fitted(job: Job) -> Fitted:
    """What the GPUs that share the model have room for; what the user says of it is kept to."""
    if not job.model.is_dir():
        return Fitted()
    words = [*job.settings.vllm_args, *job.extra]
    given = {option: _value(words, option) for option in _options(words)}
    if job.settings.max_ctx_size:
        given["--max-model-len"] = str(job.settings.max_ctx_size)
    wanted = _value(words, "-tp") or _value(job.extra, "--tensor-parallel-size") or str(job.settings.gpus or "")
    wanted = wanted or _value(words, "--tensor-parallel-size") or "1"
    gpus = detect().gpus
    if not wanted.isdecimal() or not 0 < int(wanted) <= len(gpus):
        return Fitted()  # it is vLLM that says so
    return fit(job.model, gpus[: int(wanted)], given)


def _in_bits(model: Path) -> bool:
    """Whether the weights are those of bitsandbytes, which vLLM does not find out by itself."""
    config: Any = json_object(model / "config.json") if model.is_dir() else {}
    said = config.get("quantization_config")
    return isinstance(said, dict) and said.get("quant_method") == "bitsandbytes"


def _template_file(job: Job, folder: Path) -> Path | None:
    """A file with the template that replaces the model's own; one that is given goes as it is."""
    choice = job.settings.chat_template
    if choice == "tokenizer":
        return None
    if choice not in ("", "auto"):
        template_for(choice, "", (), "", job.say)
        return Path(choice).expanduser()
    special, kind, own = _known(job.model)
    source = template_for(choice, job.settings.model_family, special, kind, job.say) or own
    if source is None:
        return None
    path = folder / "template.jinja"
    path.write_text(source, encoding="utf-8")
    return path


def _known(model: Path) -> tuple[frozenset[str], str, str | None]:
    """The model's special tokens, its family, and the template that it is trained with here."""
    if model.is_file():
        header = read_header(model)
        return header.special_tokens, header.architecture, header.template
    if not (model / "tokenizer.json").is_file():
        return frozenset(), "", None
    from ilab.models.renderer import Renderer

    renderer = Renderer.load(model)
    kind = str(json_object(model / "config.json").get("model_type", ""))
    return frozenset(renderer.special_tokens.values()), kind, renderer.template_source
