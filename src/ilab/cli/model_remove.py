"""``ilab model remove``: delete a model of the models folder."""

from __future__ import annotations

import click

from ilab.cli.app import Options
from ilab.cli.model_download import MODEL_DIR, shelf_at, size_text
from ilab.errors import InputError

__all__ = ["remove"]

PREFIX = "models/"  # with which InstructLab took a name, too


@click.command()
@click.argument("name", required=False)
@click.option("--model", "-m", "named", metavar="NAME", help="The same as the argument.")
@click.option("--yes", "-y", "--force", "-f", "yes", is_flag=True, help="Do not ask.")
@MODEL_DIR
@click.pass_obj
def remove(options: Options, name: str | None, named: str | None, yes: bool, model_dir: str | None) -> None:
    """Delete a model, by its name in `ilab model list`, or what has arrived of one.

    Nothing outside the models folder is ever deleted.

    \b
    Example:
      ilab model remove OWNER/NAME --yes
    """
    if (name is None) == (named is None):
        raise InputError("which model?", hint="type: ilab model remove NAME   (see: ilab model list)")
    shelf = shelf_at(options, model_dir)
    wanted = str(name or named)
    if shelf.find(wanted) is None and shelf.find(wanted.removeprefix(PREFIX)) is not None:
        wanted = wanted.removeprefix(PREFIX)
    if shelf.find(wanted) is None and wanted in shelf.unfinished():
        freed = shelf.drop_unfinished(wanted)
        done = f"what had arrived of {wanted} is deleted: {size_text(freed)} are free"
        options.result({"name": wanted, "bytes": freed}, done)
        return
    model = shelf.need(wanted)
    if not yes:
        click.echo(f"{model.name}: {size_text(model.size)} in {model.path}", err=True)
        if not click.confirm("Delete it?", err=True):
            click.echo("Aborted deletion.", err=True)
            return
    freed = shelf.remove(model)
    options.result({"name": model.name, "bytes": freed}, f"{model.name} is deleted: {size_text(freed)} are free")
