"""``ilab model``: get, train, test, measure, serve, chat with and convert models; a file for each command."""

from __future__ import annotations

import click

from ilab.cli.compare import compare
from ilab.cli.model_chat import chat
from ilab.cli.model_convert import convert
from ilab.cli.model_download import download
from ilab.cli.model_evaluate import evaluate
from ilab.cli.model_list import info, list_
from ilab.cli.model_remove import remove
from ilab.cli.model_serve import serve
from ilab.cli.model_test import test
from ilab.cli.model_train import train
from ilab.cli.model_upload import upload


@click.group(name="model")
def group() -> None:
    """Get, train, test, measure, serve, chat with and convert models."""


for command in (chat, train, test, evaluate, compare, convert, download, list_, info, remove, upload, serve):
    group.add_command(command)
