"""``ilab report``: the page that says what a build learned."""

from __future__ import annotations

import webbrowser

import click

from ilab.cli.app import Options


@click.group(name="report")
def group() -> None:
    """What a build learned."""


@group.command(name="open")
@click.option("--print", "only_print", is_flag=True, help="Print the path instead of opening a browser.")
@click.pass_obj
def open_(options: Options, only_print: bool) -> None:
    """Open the newest report."""
    from ilab.outcome import newest_report

    page = newest_report(options.load())
    if not only_print and not options.as_json:
        webbrowser.open(page.as_uri())
    options.result({"report": str(page), "twin": str(page.with_suffix(".json"))}, str(page))
