"""``ilab model serve``: one model behind an OpenAI-compatible interface, by whatever serves it best here."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.outputs import log_file
from ilab.cli.process import detachable, go_to_background
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.serving.backend import Job

LARGEST_LOG = 10 << 20  # bytes of a log that nobody asked for
ROLES = ("default", "teacher", "judge")  # entries of `models` that can be served
OPTIONS = (
    click.option(
        "--model-path", metavar="PATH|NAME",
        help="GGUF file, Hugging Face directory, or a name of `model list`.  [default: what the last build chose]",
    ),
    click.option(
        "--model-id", metavar="ROLE",
        help="Serve what `models` in the configuration has for default, teacher or judge.",
    ),
    click.option("--served-model-name", metavar="NAME", help="The one name under which it is served."),
    click.option(
        "--backend", type=click.Choice(["auto", "transformers", "llama-cpp", "vllm", "external"]),
        help="What serves it.  [default: by model and machine; config: where.serve.backend]",
    ),
    click.option(
        "-h", "--host", metavar="ADDRESS",
        help="Address to listen on.  [default: 127.0.0.1; config: where.serve.host]",
    ),
    click.option(
        "-p", "--port", type=click.IntRange(0, 65535), metavar="N",
        help="Port; 0 takes a free one.  [default: 8000; config: where.serve.port]",
    ),
    click.option(
        "--max-ctx-size", type=click.IntRange(1), metavar="TOKENS",
        help="Room for a prompt and its answer.  [config: where.serve.max_ctx_size]",
    ),
    click.option(
        "--chat-template", metavar="auto|tokenizer|FILE",
        help="A built-in one of the family, the model's own, or a file's.  [config: where.serve.chat_template]",
    ),
    click.option(
        "--model-family", metavar="NAME", help="Family whose template `auto` takes.  [config: where.serve.model_family]"
    ),
    click.option(
        "--num-threads", type=click.IntRange(1), metavar="N", help="Threads on the CPU.  [config: where.threads]"
    ),
    click.option(
        "--gpu-layers", type=click.IntRange(-1), metavar="N",
        help="llama-cpp: layers on the GPU; -1: as many as fit.  [config: where.serve.gpu_layers]",
    ),
    click.option(
        "--gpus", type=click.IntRange(0), metavar="N",
        help="vllm: GPUs that share the model.  [config: where.serve.gpus]",
    ),
    click.option(
        "--api-key", metavar="REF",
        help="env:NAME or file:PATH with the key that requests must bring.  [config: where.serve.api_key]",
    ),
    click.option(
        "--tls-cert", metavar="FILE", help="Serve https with this certificate (PEM).  [config: where.serve.tls_cert]"
    ),
    click.option("--tls-key", metavar="FILE", help="Its private key (PEM).  [config: where.serve.tls_key]"),
    click.option("--log-file", metavar="FILE", help="Append what the server says.  [config: where.serve.log_file]"),
)  # fmt: skip
ELSEWHERE = {"num_threads": "where__threads"}  # flags whose setting is not where.serve's
NO_SETTING = ("model_path", "model_id", "served_model_name")


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


# -h is the host, as in InstructLab.
@click.command(context_settings={"help_option_names": ["--help"]})
@_options
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM-OPTIONS…]")
@detachable
@click.pass_obj
def serve(options: Options, /, words: tuple[str, ...], **given: Any) -> None:
    """Serve a model until Ctrl-C: chat and text completions, streamed or not.

    GGUF files go to llama.cpp, Hugging Face directories to vLLM where it and a GPU are there, else to transformers.
    What stands behind -- goes to vLLM as it is, last.
    """
    from ilab.cli.threads import passive_threads
    from ilab.serving.backend import backend, choose

    passive_threads()
    flags = {
        ELSEWHERE.get(name, f"where__serve__{name}"): value for name, value in given.items() if name not in NO_SETTING
    }
    loaded = options.load(**flags)
    job = _job(options, loaded, given, words)
    chosen, why = choose(job.model, job.settings)
    server = backend(chosen)
    server.check(job)
    go_to_background(options)
    _notes(given, chosen, why, job)
    # While it starts, too, SIGTERM is how a server ends: exit code 0, and children are stopped in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve(job)  # until a signal


def _job(options: Options, loaded: Loaded, given: dict[str, Any], words: tuple[str, ...]) -> Job:
    from ilab.config import data_home
    from ilab.models.secret import read_secret
    from ilab.serving.backend import Job

    settings = loaded.config.where.serve
    model, names = Path(), tuple[str, ...]([""])
    if not (settings.backend == "external" or (settings.url and settings.backend == "auto")):
        model, names = _model(loaded, given)
    log = log_file(settings.log_file) if settings.log_file else None
    if log is None and not options.verbose:  # the end of it is what an error shows
        log = data_home() / "logs" / f"serve-{settings.port}.log"
        if log.is_file() and log.stat().st_size > LARGEST_LOG:
            log.unlink()
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()

    def say(line: str) -> None:
        click.echo(line, err=True)
        if settings.log_file and log is not None:
            with log.open("a", encoding="utf-8") as handle:
                handle.write(f"{line}\n")

    def ready(url: str) -> None:
        base = url.removesuffix("/v1")
        say(f"serving {given['served_model_name'] or names[0]} at {url}  (addresses: {base}/docs; Ctrl-C stops)")

    return Job(
        model, names, settings, loaded.config.where.device, loaded.config.where.threads,
        read_secret(settings.api_key, "where.serve.api_key"), words, log, say,
        say if options.verbose else lambda _: None, ready,
    )  # fmt: skip


def _model(loaded: Loaded, given: dict[str, Any]) -> tuple[Path, tuple[str, ...]]:
    """The model, and the names under which it is served: its own, that of `model list`, of its file, its path."""
    from ilab.outcome import model_to_use
    from ilab.transfer.shelf import models_home

    asked = given["model_path"]
    if given["model_id"]:
        asked = asked or _of_role(loaded, given["model_id"])
    path, name = model_to_use(loaded, asked)
    path = path.resolve()
    if given["served_model_name"]:
        return path, (given["served_model_name"],)
    home = models_home().resolve()
    listed = [path.relative_to(home).as_posix()] if path.is_relative_to(home) else []
    return path, (name, *listed, path.name, str(path))


def _of_role(loaded: Loaded, role: str) -> str:
    if role not in ROLES:
        raise InputError(f"there is no model for {role!r}", where="--model-id", hint=f"known: {', '.join(ROLES)}")
    named = str(getattr(loaded.config.models, role))
    if not named:
        raise InputError(f"models.{role} is not set", where="--model-id", hint=f"ilab config set models.{role} NAME")
    return named


def _notes(given: dict[str, Any], chosen: str, why: str, job: Job) -> None:
    """What people are told before it starts: what serves, and which options do nothing there."""
    job.say(f"served by {chosen}: {why}")
    only = {"gpu_layers": ("llama-cpp",), "gpus": ("vllm",), "num_threads": ("llama-cpp", "transformers")}
    for name, backends in only.items():
        if given[name] and chosen not in backends:
            job.say(f"note: --{name.replace('_', '-')} does nothing for {chosen}; it is for {' and '.join(backends)}")
