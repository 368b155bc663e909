"""``ilab system``: what this machine has."""

from __future__ import annotations

import click

from ilab.cli.app import Options, show_error


@click.group(name="system")
def group() -> None:
    """What this machine has, for a report of a problem."""


@group.command()
@click.pass_obj
def info(options: Options) -> None:
    """Machine, GPUs, versions and folders; no secrets.

    For example: ilab system info --json
    """
    from ilab.machine import system_info

    loaded, wrong = options.load_or_defaults()
    if wrong:
        show_error(wrong)
    told = system_info(loaded)
    lines: list[str] = []
    for category, values in told.items():
        lines.append(f"{category}:")
        lines += [f"  {name}: {'-' if value is None else value}" for name, value in values.items()] or ["  none"]
    options.result(told, "\n".join(lines))
