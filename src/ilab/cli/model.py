"""``ilab model``: train a model, measure it, serve it with an OpenAI-compatible interface, talk to it, convert it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options, show_error
from ilab.cli.compare import compare
from ilab.cli.model_convert import convert
from ilab.cli.model_download import download
from ilab.cli.model_evaluate import evaluate
from ilab.cli.model_list import info, list_
from ilab.cli.model_remove import remove
from ilab.cli.model_serve import serve
from ilab.cli.model_test import test
from ilab.cli.model_train import train
from ilab.cli.model_upload import upload
from ilab.errors import IlabError

if TYPE_CHECKING:
    from ilab.serving.session import ChatSession

MODEL_PATH = click.option(
    "--model-path", metavar="DIR", help="A Hugging Face directory.  [default: what the last build chose]"
)


@click.group(name="model")
def group() -> None:
    """Get, train, test, measure, serve, chat with and convert models."""


@group.command()
@click.argument("question", nargs=-1)
@MODEL_PATH
@click.option("--endpoint-url", metavar="URL", help="Talk to this server instead of loading a model.")
@click.option("-m", "--model", metavar="NAME", help="Name of the model at the endpoint.")
@click.option("--api-key", metavar="REF", default="", help="env:NAME or file:PATH that holds the endpoint's key.")
@click.option("-qq", "--quick-question", is_flag=True, help="Answer QUESTION and leave.")
@click.option("-t", "--temperature", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option(
    "-s", "--session", "session_file", type=click.Path(dir_okay=False), help="Go on with a saved conversation."
)
@click.option("--system", default="", help="A system message to begin with.")
@click.pass_obj
def chat(options: Options, /, question: tuple[str, ...], **settings: Any) -> None:
    """Talk to a model: the last build's, one given by path, or a server's."""
    session = _session(options, settings)
    if settings["session_file"]:
        session.load(Path(settings["session_file"]))
    if question:
        _ask(session, " ".join(question))
    if settings["quick_question"]:
        return
    interactive = sys.stdin.isatty()
    if interactive:
        click.echo("Type a question; /h shows the commands, /q leaves.", err=True)
    while True:
        line = _read_line(interactive)
        if line is None:
            return
        try:
            done = session.command(line)
            if done is None:
                _ask(session, line)
            elif done.kind == "quit":
                return
            else:
                click.echo(done.text, err=True)
        except IlabError as error:  # a mistake in one line must not end the conversation
            if not interactive:
                raise
            show_error(error)


def _session(options: Options, settings: dict[str, Any]) -> ChatSession:
    from ilab.serving.session import ChatSession, EndpointTalker, LocalTalker

    if settings["endpoint_url"]:
        from ilab.models.secret import read_secret

        more = {"temperature": settings["temperature"], "max_tokens": settings["max_tokens"]}
        key = read_secret(settings["api_key"]) or ""
        return ChatSession(EndpointTalker(settings["endpoint_url"], settings["model"], key, more), settings["system"])
    from ilab.cli.threads import passive_threads
    from ilab.outcome import model_to_use

    loaded = options.load()
    passive_threads()
    folder, _ = model_to_use(loaded, settings["model_path"])
    from ilab.models.local import LocalModel, Sampling

    model = LocalModel.load(folder, loaded.config.where.device, loaded.config.where.threads)
    # Documents are asked about one question at a time; a tiny context holds no long history.
    memory = None if model.context_length > 2048 else 0
    sampling = Sampling(max_tokens=settings["max_tokens"], temperature=settings["temperature"])
    return ChatSession(LocalTalker(model, sampling), settings["system"], memory)


def _ask(session: ChatSession, text: str) -> None:
    for piece in session.ask(text):
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo()


def _read_line(interactive: bool) -> str | None:
    """The next non-empty line, or None at the end of the input."""
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return None
        if line.strip():
            return line


for command in (train, test, evaluate, compare, convert, download, list_, info, remove, upload, serve):
    group.add_command(command)
