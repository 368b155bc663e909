"""``ilab endpoint``: what a model server can do."""

from __future__ import annotations

from typing import Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError


@click.group(name="endpoint")
def group() -> None:
    """Servers that speak the OpenAI protocol."""


@group.command()
@click.argument("url", required=False)
@click.option("-m", "--model", metavar="NAME", default="", help="Model to try; without it the first one listed.")
@click.option("--api-key", metavar="REF", help="env:NAME or file:PATH that holds the key.  [where.teacher.api_key]")
@click.option("--parallel", type=click.IntRange(1, 1000), default=8, show_default=True, help="Calls tried at once.")
@click.pass_obj
def check(options: Options, url: str | None, model: str, api_key: str | None, parallel: int) -> None:
    """Try what the server at URL can do, with about twenty tiny requests.

    Without URL it is where.teacher. For all that it cannot do the failing request is shown, to be tried by hand.
    """
    import asyncio

    from ilab.config import cache_home
    from ilab.models.probe import measure, probe

    flags = {"where__teacher__url": url, "where__teacher__api_key": api_key}
    loaded = options.load(**flags)
    endpoint = loaded.config.where.teacher
    if endpoint is None:
        raise InputError("no server is named", hint="type: ilab endpoint check http://127.0.0.1:8000/v1")
    cache = loaded.path(loaded.config.where.cache) if loaded.config.where.cache else cache_home()

    async def run() -> tuple[Any, Any]:
        found = await probe(endpoint, model, cache=cache, fresh=True)
        able = found["chat"] or found["completions"]
        return found, await measure(endpoint, found, count=parallel) if able else None

    found, timing = asyncio.run(run())
    if options.as_json:
        options.result(_json(found, timing, bool(endpoint.api_key)))
    else:
        _show(found, timing, bool(endpoint.api_key))


def _json(found: Any, timing: Any, key: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from ilab.models.probe import curl

    told = asdict(found)
    told["findings"] = {
        name: {"able": True}
        if made.able
        else {"able": False, "said": made.said, "curl": curl(found.url, made, key=key)}
        for name, made in found.findings.items()
    }
    return {**told, "timing": asdict(timing) if timing else None}


def _show(found: Any, timing: Any, key: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from ilab.cli.render import console
    from ilab.models.ability import WORDS
    from ilab.models.probe import curl

    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    # Texts, not strings: what a server says may look like markup.
    table.add_row("model", Text(_printable(found.model)), Text(_others(found)))
    table.add_row("context", f"{found.context_length:,} tokens" if found.context_length else "not told")
    if found.limit != "max_tokens":
        table.add_row("limit of an answer", found.limit, "asked for by this name from then on")
    for name, made in found.findings.items():
        table.add_row(WORDS[name], "yes" if made.able else "no", Text("" if made.able else _printable(made.said)))
    if timing is not None:
        table.add_row("a one-token call", f"{1000 * timing.single:.0f} ms")
        answered = timing.count - sum(timing.failures.values())
        said = "; ".join(f"{times} × {reason}" for reason, times in timing.failures.items())
        together = f"{answered} of {timing.count} answered in {1000 * timing.together:.0f} ms"
        table.add_row(f"{timing.count} of them at once", together, Text(_printable(said)))
    view = console()
    view.print(table)
    failing = [made for made in found.findings.values() if not made.able]
    if failing:
        click.echo("\nWhat it cannot do, to be tried by hand:")
    for made in failing:
        click.echo(f"  {_printable(curl(found.url, made, key=key))}\n    {_printable(made.said)}")


def _others(found: Any) -> str:
    others = [name for name in found.models if name != found.model]
    more = f" and {len(others) - 8} more" if len(others) > 8 else ""
    return f"also serves: {_printable(', '.join(others[:8]))}{more}" if others else ""


def _printable(text: str) -> str:
    """``text`` of a server's without what would steer the terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
