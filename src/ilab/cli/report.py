"""``ilab report``: the page that says what a build learned, the same in the terminal, and two of them side by side."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ilab.cli.app import Options

RUN = click.argument("run", required=False, default="")


@click.group(name="report")
def group() -> None:
    """What a build learned."""


@group.command(name="open")
@RUN
@click.option("--print", "only_print", is_flag=True, help="Print the path instead of opening a browser.")
@click.pass_obj
def open_(options: Options, run: str, only_print: bool) -> None:
    """Open the newest report, or that of RUN: a run's folder or the beginning of its name."""
    from ilab.outcome import find_report

    page = find_report(options.load(), run)
    if not only_print and not options.as_json:
        webbrowser.open(page.resolve().as_uri())
    options.result({"report": str(page), "twin": str(page.with_suffix(".json"))}, str(page))


@group.command()
@RUN
@click.pass_obj
def show(options: Options, run: str) -> None:
    """Print the newest report, or that of RUN, as a table; with --json the whole of it."""
    from ilab.cli.findings import printable
    from ilab.cli.render import console, result_table
    from ilab.outcome import find_report, read_report

    page = find_report(options.load(), run)
    told = read_report(page)
    if options.as_json:
        options.result(told)
        return
    click.echo(printable(f"{told['title']}, {page.parent.name}"))
    out = console()
    if told["summary"]:
        out.print()
        out.print(result_table(told["summary"], out.width))
        out.print()
    click.echo(printable(f"gate  {told['gate']['line']}"))
    causes = told.get("causes", {})
    if causes:
        counted = ", ".join(f"{count} {cause}" for cause, count in causes.items())
        click.echo(printable(f"still wrong  {counted}"))
        first = told["diagnoses"][0]
        question = next((one["question"] for one in _questions(told) if one["id"] == first["item"]), None)
        if question:
            click.echo(printable(f'             for one of them: ilab why "{question}"'))
    click.echo(f"page  {page}")


@group.command()
@click.argument("before")
@click.argument("after", required=False, default="")
@click.pass_obj
def diff(options: Options, before: str, after: str) -> None:
    """What changed from the report BEFORE to AFTER (default: the newest), leaf by leaf, and what was set differently.

    Each is a run of this project (the beginning of its folder's name will do), or a file report.json.
    """
    from ilab.evaluation.report_diff import diff as compare_reports
    from ilab.evaluation.report_diff import read_told
    from ilab.outcome import find_report, read_report

    loaded = options.load()
    pages = [find_report(loaded, before), find_report(loaded, after)]
    told = compare_reports(*(read_told(read_report(page), str(page)) for page in pages))
    if options.as_json:
        options.result({"before": str(pages[0]), "after": str(pages[1]), **told})
    else:
        _show_diff(told, pages)


def _questions(told: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The wrongly answered questions that a report holds with their text."""
    return [entry for leaf in told.get("wrong", ()) for entry in leaf["items"]]


def _show_diff(told: Mapping[str, Any], pages: Sequence[Path]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ilab.cli.findings import printable
    from ilab.cli.render import console, short_names

    for side, page in enumerate(pages):
        line = f"{told['titles'][side]}, {page.parent.name}: {told['models'][side]}, {told['lines'][side]}"
        click.echo(printable(f"{('before', 'after')[side]:<6}  {line}"))
    names = short_names([leaf["name"] for leaf in told["leaves"]])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("leaf", "before", "after", "change", "items", "gained", "lost", "verdict"):
        right = name not in ("leaf", "verdict")
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=name == "change")
    for leaf in (*told["leaves"], told["total"]):
        counts = [str(leaf["shared"]), str(len(leaf["gained"])), str(len(leaf["lost"]))]
        row = [names.get(leaf["name"], leaf["name"]), *leaf["shares"], leaf["text"], *counts, leaf["verdict"]]
        table.add_row(*(Text(printable(cell)) for cell in row), style="bold" if leaf is told["total"] else "")
    out = console()
    out.print()
    out.print(table)
    out.print()
    if not told["total"]["shared"]:
        click.echo("No question was scored in both: the changes are plain differences, without intervals.")
    for line in _differences(told):
        click.echo(printable(line))


def _differences(told: Mapping[str, Any]) -> list[str]:
    """Leaves, settings and causes that are not the same, a line each."""
    lines = [f"only before: {name}" for name in told["only"][0]] + [f"only after: {name}" for name in told["only"][1]]
    lines += [f"edited: {name}" for name in told["edited"]]
    lines += [f"{name}: {old} -> {new}" for name, (old, new) in told["settings"].items()]
    lines += [f"wrong because {cause}: {old} -> {new}" for cause, (old, new) in told["causes"].items()]
    return lines or ["Leaves and settings are the same."]
