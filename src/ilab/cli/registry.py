"""``ilab registry``: the models that passed their gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError


@click.group(name="registry")
def group() -> None:
    """The registered models."""


@group.command(name="list")
@click.pass_obj
def list_(options: Options) -> None:
    """All registered versions, newest first."""
    from rich.table import Table

    from ilab.cli.render import console
    from ilab.outcome import open_registry

    entries = [entry.model_dump() for entry in open_registry(options.load()).list()]
    if options.as_json:
        options.result(entries)
        return
    if not entries:
        click.echo("No model is registered yet. Build one with: ilab run")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "version", "score", "gate", "digest", "created"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        score = entry["metrics"].get("score")
        table.add_row(
            entry["name"],
            entry["version"],
            "" if score is None else f"{score:.2f}",
            _gate(entry["metrics"]),
            entry["digest"][:19],
            entry["created"],
        )
    console().print(table)


def _gate(metrics: Mapping[str, Any]) -> str:
    """The gate's verdict, and whether the model was published in spite of it; empty for entries that do not say."""
    return f"{metrics.get('verdict', '')}{', published anyway' if metrics.get('published_anyway') else ''}"


@group.command()
@click.argument("name")
@click.argument("version", required=False)
@click.pass_obj
def show(options: Options, name: str, version: str | None) -> None:
    """One version with its metrics and lineage; without VERSION the newest."""
    import json

    from ilab.outcome import open_registry

    registry = open_registry(options.load())
    found = registry.get(name, version)
    if found is None:
        known = [f"{entry.name} {entry.version}" for entry in registry.list()]
        wanted = f"{name} {version}" if version else name
        raise InputError(
            f"{wanted} is not registered",
            where=str(registry.path),
            hint=f"registered: {', '.join(known)}" if known else "nothing is registered yet: ilab run",
        )
    entry = found.model_dump()
    options.result(entry, json.dumps(entry, indent=2, sort_keys=True))
