"""``ilab documents``: websites and files as the Markdown that leaves are made from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.process import detachable, go_to_background
from ilab.errors import IlabError, InputError, InputErrors

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.core.events import Bus
    from ilab.documents.crawl.crawler import Order, Report
    from ilab.documents.export import Exported

SHOWN = 10  # warnings of one kind; --json has them all


@click.group(name="documents")
def group() -> None:
    """Make Markdown documents of websites and files."""


@group.command()
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("--output", metavar="DIR", default="markdown", show_default=True, help="Folder for the files.")
@click.option("--depth", type=click.IntRange(min=0), help="Most links between a start page and a page.")
@click.option("--max-pages", type=click.IntRange(min=1), default=500, show_default=True, help="Most pages to ask for.")
@click.option(
    "--include", multiple=True, metavar="PREFIX", help="Read these, too: a path such as /blog/, or an address."
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave paths out, for example '/docs/old/*'.")
@click.option("--selector", default="", metavar="CSS", help="The element that holds the text; found by itself without.")
@click.option(
    "--delay", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Seconds between two requests."
)
@click.option("--sitemap/--no-sitemap", default=True, help="Whether to read the site's sitemap for more pages.")
@click.option("--documents", is_flag=True, help="Take PDF, DOCX, EPUB, Markdown and text files along as they are.")
@click.option("--prune", is_flag=True, help="Remove the files of pages that are gone.")
@click.option("--dry-run", is_flag=True, help="Read start pages and sitemaps alone, and list what would be read.")
@detachable
@click.pass_obj
def crawl(options: Options, /, urls: tuple[str, ...], output: str, **wanted: Any) -> None:
    """Make a Markdown file of every page of a website.

    Pages are those below each URL on the same host. robots.txt counts, and there is a pause between two requests.
    The same command again asks for changes only, updates the files in place, and tells what is new and what is gone;
    after an interruption it goes on. Files that you have changed are left as they are.
    """
    from ilab.actions import where_of
    from ilab.core.web import Web
    from ilab.documents.crawl import crawler as website

    order = website.Order(starts=urls, output=options.directory / output, **wanted)
    settings = where_of(options.load()).web
    website.check(order, settings.private_hosts)
    go_to_background(options)
    try:
        with _events() as bus, Web(settings) as web:
            report = website.crawl(order, web, bus.for_step("crawl"), datetime.now(UTC))
    except KeyboardInterrupt:
        click.echo(f"what was read is kept in {order.output}; the same command goes on from there", err=True)
        raise
    _warn(report)
    options.result(_facts(order, report), _summary(order, report))


@group.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE|DIR|URL...")
@click.option("--output", metavar="DIR", default="markdown", show_default=True, help="Folder for the files.")
@click.option("--chunks", is_flag=True, help="Tell into how many chunks each document is cut.")
@click.pass_obj
def convert(options: Options, sources: tuple[str, ...], output: str, chunks: bool) -> None:
    """Make Markdown files of documents, as a leaf would see them.

    PDF, DOCX, EPUB, HTML, Markdown and plain text; of a folder all that is below it. What nobody sees on the page, and
    what speaks to a model instead of a reader, is told.
    """
    from ilab.actions import where_of
    from ilab.documents.collect import Reading
    from ilab.documents.export import export, find_inputs
    from ilab.documents.policy import Policy
    from ilab.parameters import collect

    loaded: Loaded = options.load()
    folder = options.directory / output
    values = {name: given.value for name, given in collect(loaded.parameters()).items()}
    policy = Policy.parse(values["document_policy"])
    files, problems = find_inputs(sources, options.directory, where_of(loaded), loaded.base)
    if not files:
        _raise(problems)
    with _events() as bus:
        emit = bus.for_step("convert")
        emit.started()
        reading = Reading(policy, values["document_converter"], emit=emit)
        written, faults = export(files, folder, reading, max_tokens=values["chunk_tokens"])
        emit.finished(state="run", counts={"documents": len(written)})
    for flag in (flag for one in written for flag in one.flags):
        _say(f"{flag.source} {flag.place}: {flag.kind} {flag.action}: {flag.excerpt}")
    lines = [_printable(f"{one.source} → {folder / one.file}: {_measures(one, chunks)}") for one in written]
    following = [_refer(folder)] if written and not (problems or faults) else []
    facts = [{**vars(one), "flags": [flag.model_dump() for flag in one.flags]} for one in written]
    options.result(facts, "\n".join([*lines, *following]))
    _raise([*problems, *faults])


@contextlib.contextmanager
def _events() -> Iterator[Bus]:
    """The command's events, on the terminal or as plain lines."""
    from ilab.cli.live import view
    from ilab.core.events import Bus

    with view() as shown:
        yield Bus([shown])


def _warn(report: Report) -> None:
    """What a person should look at, a few lines of each kind."""
    hidden = [f"{url} {one.place}: left out, for nobody sees it: {one.text[:80]}" for url, one in report.hidden]
    kinds = (
        list(report.notes),
        [f"{page.url}: {page.reason}" for page in report.of("failed")],
        [f"{page.file}: left as it is, for it was changed by hand" for page in report.of("kept")],
        [f"{page.file or 'removed'}: {page.url}: {page.reason}" for page in report.of("gone")],
        hidden,
    )
    for lines in kinds:
        for line in lines[:SHOWN]:
            _say(line)
        if len(lines) > SHOWN:
            _say(f"… and {len(lines) - SHOWN} more like this; --json has all")


def _summary(order: Order, report: Report) -> str:
    """The result for people: counts, what was left out, what to type next."""
    if order.dry_run:
        found = report.of("found")
        listed = [*(page.url for page in found), f"{len(found)} pages are known so far. Nothing is written"]
        return "\n".join(map(_printable, listed))
    counts = {state: len(report.of(state)) for state in ("new", "changed", "unchanged", "kept", "gone", "failed")}
    files = sum(counts[state] for state in ("new", "changed", "unchanged", "kept"))
    always = ("new", "changed", "unchanged", "gone")
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state in always)
    lines = [f"{files} {'page' if files == 1 else 'pages'} in {order.output}: {told}"]
    lines += [f"  left out, {reason}: {count}" for reason, count in sorted(report.left_out.items())]
    if report.resumed:
        lines.append("  went on where the last crawl was interrupted")
    if files == 1 and not (order.include or order.depth == 0):
        lines.append(f"  only what is below {', '.join(report.scope)} was wanted; for more: --include PREFIX")
    if any(page.file for page in report.of("gone")):
        lines.append("  the files of pages that are gone are still there; to remove them: --prune")
    return "\n".join([*map(_printable, lines), _refer(order.output)])


def _facts(order: Order, report: Report) -> dict[str, Any]:
    """The result as JSON."""
    return {
        "output": str(order.output),
        "pages": [asdict(page) for page in report.pages],
        "left_out": dict(report.left_out),
        "hidden": [{"url": url, **asdict(one)} for url, one in report.hidden],
        "notes": list(report.notes),
        "scope": list(report.scope),
        "resumed": report.resumed,
    }


def _measures(one: Exported, chunks: bool) -> str:
    """``12 pages, 3 tables, 4,210 words, 23 chunks``"""
    counts = {"page": one.pages, "table": one.tables, "word": one.words, "chunk": one.chunks if chunks else 0}
    return ", ".join(f"{count:,} {name if count == 1 else f'{name}s'}" for name, count in counts.items() if count)


def _refer(folder: Path) -> str:
    name = folder.resolve().name
    return _printable(f"Next: put {folder} beside a qna.yaml, and in it: document: {{path: {name}}}")


def _raise(problems: Sequence[IlabError]) -> None:
    """All problems at once where they are the user's; a server's or the machine's first."""
    for problem in problems:
        if not isinstance(problem, InputError):
            raise problem
    if problems:
        raise InputErrors([problem for problem in problems if isinstance(problem, InputError)])


def _say(text: str) -> None:
    line = _printable(" ".join(text.split()))
    click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {line}", err=True)


def _printable(text: str) -> str:
    """``text`` without what a terminal would obey or cannot show; pages may hold anything."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
