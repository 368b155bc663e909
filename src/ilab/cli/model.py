"""``ilab model``: train a model, measure it, serve it with an OpenAI-compatible interface, talk to it, convert it."""

from __future__ import annotations

import click

from ilab.cli.app import Options
from ilab.cli.compare import compare
from ilab.cli.model_chat import chat
from ilab.cli.model_convert import convert
from ilab.cli.model_download import download
from ilab.cli.model_evaluate import evaluate
from ilab.cli.model_list import info, list_
from ilab.cli.model_remove import remove
from ilab.cli.model_test import test
from ilab.cli.model_train import train
from ilab.cli.model_upload import upload
from ilab.cli.process import detachable, go_to_background, leaving

MODEL_PATH = click.option(
    "--model-path", metavar="DIR", help="A Hugging Face directory.  [default: what the last build chose]"
)


@click.group(name="model")
def group() -> None:
    """Get, train, test, measure, serve, chat with and convert models."""


@group.command()
@MODEL_PATH
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "-p", "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
@click.option("--served-model-name", metavar="NAME", help="Name under which the model is served.")
@detachable
@click.pass_obj
def serve(options: Options, model_path: str | None, host: str, port: int, served_model_name: str | None) -> None:
    """Serve a model until Ctrl-C: chat and text completions, streamed or not."""
    from ilab.cli.threads import passive_threads
    from ilab.models.weights import check_folder
    from ilab.outcome import model_to_use

    loaded = options.load()
    passive_threads()
    folder, name = model_to_use(loaded, model_path)
    if leaving():
        check_folder(folder)
    go_to_background(options)
    from ilab.serving.server import serve as serve_model

    def ready(url: str) -> None:
        click.echo(f"serving {name} at {url}  (Ctrl-C stops)", err=True)

    serve_model(
        folder,
        host=host,
        port=port,
        name=served_model_name or name,
        on_ready=ready,
        device=loaded.config.where.device,
        threads=loaded.config.where.threads,
    )  # until a signal, which is how a server ends: exit code 0


for command in (chat, train, test, evaluate, compare, convert, download, list_, info, remove, upload):
    group.add_command(command)
