"""What a build shows at its end: the table, the gate, where everything lies, what to type next."""

from __future__ import annotations

from typing import Any

import click

from ilab.cli.render import console, result_table


def show_outcome(result: dict[str, Any]) -> None:
    """Print the outcome of a build (see ``actions.outcome``)."""
    out = console()
    if result.get("table"):
        out.print()
        out.print(result_table(result["table"], out.width))
        out.print()
    for line in result["lines"]:
        out.print(line, markup=False)
    if result.get("places"):
        width = max(len(name) for name in result["places"])
        for name, place in result["places"].items():
            click.echo(f"{name:<{width}}  {place}")
    if result.get("next"):
        click.echo("\nNext:")
        for command, why in result["next"]:
            click.echo(f"  {command:<44} # {why}")
