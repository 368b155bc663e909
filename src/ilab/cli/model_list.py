"""``ilab model list`` and ``ilab model info``: which models are here, and what one of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.model_download import MODEL_DIR, shelf_at, size_text
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.transfer.shelf import Model


@click.command(name="list")
@click.option("--model-dirs", multiple=True, metavar="DIR", help="Folders to look in, instead of the models folder.")
@click.option("--list-checkpoints", is_flag=True, help="Trained models too, of this project and of the data home.")
@click.pass_obj
def list_(options: Options, model_dirs: tuple[str, ...], list_checkpoints: bool) -> None:
    """List the models on this machine.

    \b
    Example:
      ilab model list --list-checkpoints
    """
    from ilab.transfer.shelf import Shelf, checkpoints_home

    shelves = [shelf_at(options, folder) for folder in model_dirs] or [shelf_at(options, None)]
    models = [model for shelf in shelves for model in shelf.models()]
    if list_checkpoints:
        models += Shelf(checkpoints_home()).models() + _built(options)
    rows = [told(model) for model in models]
    if options.as_json:
        options.result(rows)
    elif not rows:
        where = ", ".join(str(shelf.root) for shelf in shelves)
        click.echo(f"There are no models in {where} yet. Get one with: ilab model download")
    else:
        _table(rows, paths=bool(model_dirs) or list_checkpoints)
    if not options.as_json:
        for name, size in (one for shelf in shelves for one in shelf.unfinished().items()):
            click.echo(f"unfinished: {name}, {size_text(size)} have arrived; download it again, or remove it")


@click.command()
@click.argument("name")
@MODEL_DIR
@click.option("--check", is_flag=True, help="Read every byte, and compare with what was downloaded.")
@click.pass_obj
def info(options: Options, name: str, model_dir: str | None, check: bool) -> None:
    """What a model is, where it came from, and whether it is still whole. NAME may be a path.

    \b
    Examples:
      ilab model info OWNER/NAME --check
      ilab model info ./my-model
    """
    from ilab.transfer.shelf import damaged

    model = _one(options, name, model_dir)
    result: dict[str, Any] = told(model)
    result["recalled"] = warn_of_recall(options, result["revision"])
    result["files"] = {file.name: file.stat().st_size for file in model.files}
    if check:
        result["damaged"] = damaged(model)
    if options.as_json:
        options.result(result)
    else:
        _show(result)
    if result.get("damaged"):
        hint = f"fetch it again: ilab model remove {name}   then: ilab model download"
        raise InputError(f"{len(result['damaged'])} of its files are damaged", where=str(model.path), hint=hint)


def _one(options: Options, name: str, model_dir: str | None) -> Model:
    """The model of that name, or at that path. Raises InputError, which names the nearest, for neither."""
    from ilab.core.files import expanded
    from ilab.transfer.shelf import Model, Shelf, checkpoints_home, is_model

    shelf = shelf_at(options, model_dir)
    path = options.directory / expanded(name)
    found = shelf.find(name) or Shelf(checkpoints_home()).find(name)
    if found is None and is_model(path):
        return Model(path.resolve().name, path.resolve(), None, None)
    return found or shelf.need(name)


def warn_of_recall(options: Options, digest: str) -> str:
    """Why the package of this digest was recalled, which is shown to people too; empty where it was not."""
    from ilab.cli.findings import printable
    from ilab.outcome import recalled

    reason = recalled(options.load(), digest)
    if reason:
        click.echo(click.style(f"warning: it was recalled: {printable(reason)}", fg="red"), err=True)
    return reason


def told(model: Model) -> dict[str, Any]:
    """A model as plain JSON."""
    from ilab.transfer.describe import describe

    facts, record = describe(model), model.record
    origin = f"{record.source} {record.revision[:12]}".strip() if record else ""
    return {
        "name": model.name,
        "path": str(model.path),
        "format": facts.format,
        "bytes": model.size,
        "quantisation": facts.quantisation,
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "context": facts.context,
        "licence": facts.licence,
        "source": record.source if record else "",
        "revision": record.revision if record else "",
        "downloaded": record.downloaded if record else "",
        "lineage": facts.lineage or origin,
        "last_used": model.used.isoformat(timespec="seconds") if model.used else "",
        "needs_code": facts.code,
    }


def _built(options: Options) -> list[Model]:
    """What the last builds of this project chose."""
    from ilab.transfer.shelf import Model, is_model

    latest = options.load().store / "latest"
    found = [(step, latest / step / "model") for step in ("select-phase-1", "select-phase-2")]
    return [Model(step, path.resolve(), None, None) for step, path in found if is_model(path)]


def _table(rows: list[dict[str, Any]], paths: bool) -> None:
    """``paths`` where names alone do not say which folder a model lies in."""
    from rich.table import Table
    from rich.text import Text

    from ilab.cli.findings import printable
    from ilab.cli.render import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "format", "size", "licence", "from", "last used"):
        table.add_column(name, overflow="fold", justify="right" if name == "size" else "left")
    for row in rows:
        form = f"{row['format']} {row['quantisation']}".strip()
        used = row["last_used"][:10] or "never"
        cells = (row["name"], form, size_text(row["bytes"]), row["licence"] or "–", row["lineage"] or "–", used)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console().print(table)
    for row in rows if paths else ():  # a line each, for a column would break them
        click.echo(printable(f"{row['name']}: {row['path']}"))


def _show(result: dict[str, Any]) -> None:
    from ilab.cli.findings import printable

    parameters = f"{result['parameters']:,}" if result["parameters"] else ""
    context = f"{result['context']:,} tokens" if result["context"] else ""
    rows = {
        "model": result["name"],
        "path": result["path"],
        "format": f"{result['format']} {result['quantisation']}".strip(),
        "size": f"{size_text(result['bytes'])} in {len(result['files'])} files",
        "kind": result["architecture"],
        "weights": parameters,
        "context": context,
        "licence": result["licence"] or "not named",
        "from": result["lineage"] or "it does not say, and ilab did not download it",
        "downloaded": result["downloaded"],
        "last used": result["last_used"] or "never",
    }
    for name, value in rows.items():
        if value:
            click.echo(f"{name:<12}{printable(value)}")
    if result["needs_code"]:
        click.echo("note: its makers' own code comes with it; that is not downloaded, and never run")
    for line in result.get("damaged", ()):
        click.echo(f"damaged     {printable(line)}")
    if result.get("damaged") == []:
        click.echo("checked     every file is what was downloaded")


__all__ = ["info", "list_"]
