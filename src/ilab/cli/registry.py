"""``ilab registry``: the models that passed their gate, and what their versions are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.packaging.registry import Entry
    from ilab.packaging.stages import Stages

NAME = click.argument("name")
REFERENCE = click.argument("reference", metavar="VERSION")


@click.group(name="registry")
def group() -> None:
    """The registered models: versions, stages, aliases.

    VERSION is a version, an alias, a stage (candidate, staging, production, archived), or `latest`.
    """


@group.command(name="list")
@click.pass_obj
def list_(options: Options) -> None:
    """All registered versions, by name and version."""
    from rich.table import Table

    from ilab.cli.render import console

    stages = _stages(options)
    entries = stages.registry.list()
    aliases = {name: stages.aliases(name) for name in {entry.name for entry in entries}}
    rows = [_with_aliases(entry, aliases[entry.name]) for entry in entries]
    if options.as_json:
        options.result(rows)
        return
    if not rows:
        click.echo("No model is registered yet. Build one with: ilab run")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "version", "stage", "aliases", "score", "gate", "digest", "created"):
        table.add_column(column, overflow="fold")
    for row in rows:
        score = row["metrics"].get("score")
        table.add_row(
            row["name"],
            row["version"],
            "recalled" if row["recalled"] else row["stage"],
            ", ".join(row["aliases"]),
            "" if score is None else f"{score:.2f}",
            _gate(row["metrics"]),
            row["digest"][:19],
            row["created"],
        )
    console().print(table)


def _gate(metrics: Mapping[str, Any]) -> str:
    """The gate's verdict, and whether the model was published in spite of it; empty for entries that do not say."""
    return f"{metrics.get('verdict', '')}{', published anyway' if metrics.get('published_anyway') else ''}"


@group.command()
@NAME
@click.argument("version", required=False, metavar="[VERSION]")
@click.pass_obj
def show(options: Options, name: str, version: str | None) -> None:
    """One version with its metrics, lineage, and what it learned; without VERSION the newest that was not recalled."""
    import json

    stages = _stages(options)
    entry = stages.find(name, version or "")
    told = {**_told(entry, stages), "changelog": _changelog(options, entry)}
    options.result(told, json.dumps(told, indent=2, sort_keys=True))


@group.command()
@NAME
@REFERENCE
@click.option("--to", "stage", default="production", show_default=True, help="Or candidate, staging, archived.")
@click.pass_obj
def promote(options: Options, name: str, reference: str, stage: str) -> None:
    """Bring a version to a stage. What was in production before is archived."""
    _result(options, _stages(options).promote(name, reference, stage), "is in the stage {stage}")


@group.command()
@NAME
@click.option("--alias", default="", help="Roll this alias back.  [default: the stage production]")
@click.pass_obj
def rollback(options: Options, name: str, alias: str) -> None:
    """Go back to the version that was in production before, or that an alias meant."""
    stages = _stages(options)
    left, now = stages.rollback(name, alias)
    told = {"from": _told(left, stages), "to": _told(now, stages)}
    options.result(told, f"{name}: {alias or 'production'} is {now.version} again, no more {left.version}")


@group.command()
@NAME
@REFERENCE
@click.argument("alias")
@click.pass_obj
def alias(options: Options, name: str, reference: str, alias: str) -> None:
    """Point ALIAS (stable, nightly …) to a version."""
    _result(options, _stages(options).alias(name, reference, alias), f"is {alias}")


@group.command()
@NAME
@REFERENCE
@click.option("--reason", default="", help="What is wrong with it; shown to whoever fetches it.")
@click.option("--undo", is_flag=True, help="Take a recall back.")
@click.pass_obj
def recall(options: Options, name: str, reference: str, reason: str, undo: bool) -> None:
    """Withdraw a version: it is archived, its aliases go, whoever fetches it is warned, nothing can promote it."""
    if undo and reason:
        raise InputError("--undo and --reason exclude each other")
    stages = _stages(options)
    entry = stages.reinstate(name, reference) if undo else stages.recall(name, reference, reason)
    _result(
        options, entry, "is not recalled any more; it stays archived until it is promoted" if undo else "is recalled"
    )


@group.command()
@NAME
@click.pass_obj
def history(options: Options, name: str) -> None:
    """Who did what to the versions of a model, and when, oldest first."""
    from dataclasses import asdict

    from ilab.cli.findings import printable

    stages = _stages(options)
    changes = stages.history(name)
    if not changes:
        stages.find(name)  # says what there is, where the name is wrong
    lines = [f"{one.time}  {one.version:<10}{one.what} {one.detail}  ({one.person})" for one in changes]
    options.result([asdict(one) for one in changes], "\n".join(printable(line) for line in lines))


def _changelog(options: Options, entry: Entry) -> dict[str, Any]:
    """What a version learned, as its package says; empty where its build was no nightly one, or the package is gone."""
    from ilab.packaging.changelog import changelog_in
    from ilab.resolvers import package_of

    package = package_of(options.load(), entry, whole=False)
    return changelog_in(package) if package.is_dir() else {}


def _stages(options: Options) -> Stages:
    from ilab.packaging.stages import Stages
    from ilab.resolvers import registry_of

    return Stages(registry_of(options.load()))


def _told(entry: Entry, stages: Stages) -> dict[str, Any]:
    return _with_aliases(entry, stages.aliases(entry.name))


def _with_aliases(entry: Entry, aliases: Mapping[str, str]) -> dict[str, Any]:
    return {**entry.model_dump(), "aliases": [alias for alias, version in aliases.items() if version == entry.version]}


def _result(options: Options, entry: Entry, text: str) -> None:
    said = text.format(stage=entry.stage) if "{stage}" in text else text
    options.result(_told(entry, _stages(options)), f"{entry.name} {entry.version} {said}")
