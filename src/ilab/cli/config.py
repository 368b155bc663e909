"""``ilab config``: every setting and where it comes from."""

from __future__ import annotations

import click

from ilab.cli.app import Options


@click.group(name="config")
def group() -> None:
    """Where every setting comes from."""


@group.command()
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
@click.pass_obj
def show(options: Options, origin: bool) -> None:
    """The merged configuration."""
    from ilab.config import flatten

    loaded = options.load()
    values = flatten(loaded.config)
    rows = {path: {"value": value, "origin": loaded.origins.get(path, "default")} for path, value in values.items()}
    lines = [f"{path}: {row['value']}" + (f"    # {row['origin']}" if origin else "") for path, row in rows.items()]
    options.result(rows if origin else values, "\n".join([*lines, f"# store: {loaded.store}"]))
