"""``ilab rag advise``, also ``ilab advise``: whether tuning, retrieval or both helped, leaf by leaf."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.rag_options import EMBEDDER

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.core.step import Site
    from ilab.data import Item
    from ilab.inquiry import Results

MEASURE = "ilab advise --measure"


@click.command()
@click.option("--measure", is_flag=True, help="Ask both models the test questions beside passages that a search finds.")
@click.option(
    "-k", "--top-k", type=click.IntRange(1, 1000), help="With --measure: passages for a question.  [config: rag.top_k]"
)
@click.option("--embedding-model-path", "embedder", metavar="DIR|NAME", help=f"With --measure. {EMBEDDER}")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, mps.  [config: where.device]")
@click.pass_obj
def advise(options: Options, measure: bool, top_k: int | None, embedder: str | None, device: str | None) -> None:
    """Whether tuning, retrieval or both helped, leaf by leaf, by what the last build's evaluation measured.

    A build asks its test questions from memory, and with eval_open_book beside the passage that each was made from: the
    most that retrieval could reach. --measure asks beside passages that a search over the build's documents finds.

    Example: ilab advise
    """
    from ilab.advice import advise as advised
    from ilab.inquiry import last_results
    from ilab.transfer.stores import open_store

    loaded = options.load(rag__top_k=top_k, where__device=device)
    results = last_results(open_store(loaded))
    told = advised(results, _measured(options, loaded, results, embedder) if measure else None)
    missing = [leaf for leaf in told["leaves"] if leaf["advice"] == "not measured" and leaf["can_look_up"]]
    told["measure"] = MEASURE if missing and not measure else None
    if options.as_json:
        options.result(told)
    else:
        _show(told)


def _measured(options: Options, loaded: Loaded, results: Results, embedder: str | None) -> Any:
    from ilab.advice import measure, to_ask
    from ilab.cli.evaluate_judge import asking_site

    with asking_site(loaded, "advise") as site:
        passages = _passages(options, loaded, results, embedder, site, to_ask(results))
        return measure(results, passages, site)


def _passages(
    options: Options, loaded: Loaded, results: Results, embedder: str | None, site: Site, items: list[Item]
) -> dict[str, str]:
    """By item what a search over the build's documents finds for its question."""
    from ilab.errors import InputError
    from ilab.rag.search import Retriever
    from ilab.rag.store import DocumentStore
    from ilab.retrieval import Source, choose_embedder, documents_of, ingest_into

    documents = documents_of(results)
    if not documents:
        raise InputError("the last build had no documents to look in", where=str(loaded.store))
    chosen, note = choose_embedder(loaded, embedder, None, options.directory)
    if note:
        click.echo(f"note: {note}", err=True)
    settings = loaded.config.rag
    with DocumentStore.open(Path(site.work) / "passages.db", make=True) as store:
        ingest_into(store, "advise", Source("build", documents), chosen, settings.chunk_tokens, site.emit)
        retriever = Retriever(store, store.need("advise"), chosen, settings.top_k)
        found = {item.id: retriever.retrieve(item.question) for item in items}
    return {name: "\n\n".join(hit.passage.text for hit in one.hits) for name, one in found.items() if one.hits}


def _show(told: Mapping[str, Any]) -> None:
    from rich.table import Table

    from ilab.advice import WAYS
    from ilab.cli.render import console, short_names

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("leaf", overflow="fold")
    table.add_column("items", justify="right")
    for way in WAYS:
        table.add_column(way, justify="right", no_wrap=True)
    table.add_column("advice", no_wrap=True)
    names = short_names([leaf["leaf"] for leaf in told["leaves"]])
    for row in (*told["leaves"], told["total"]):
        cells = [_percent(row["ways"].get(way)) for way in WAYS]
        table.add_row(names.get(row["leaf"], row["leaf"]), str(row["n"]), *cells, row["advice"])
    out.print(table)
    for row in (*told["leaves"], told["total"]):
        effects = ", ".join(_effect(name, row["effects"][name]) for name in WAYS[1:] if name in row["effects"])
        out.print(f"{names.get(row['leaf'], row['leaf'])}: {row['because']} ({effects})", markup=False, style="dim")
    if told["passages"]:
        said = {
            "its own": "retrieval: each question beside the passage that it was made from, the most that a search "
            f"could find. With what a search does find: {MEASURE}",
            "retrieved": "retrieval: each question beside the passages that a search over the build's documents found",
        }
        out.print(said[told["passages"]], markup=False, style="dim")
    if told["measure"]:
        out.print(f"Retrieval was not measured for every leaf. To measure it: {told['measure']}", markup=False)


def _percent(cell: Mapping[str, Any] | None) -> str:
    return "–" if not cell or cell["value"] is None else f"{cell['value']:.0%}"


def _effect(name: str, one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return f"{name} –"
    bounds = "" if one["low"] is None else f" [{one['low'] * 100:+.0f}, {one['high'] * 100:+.0f}]"
    return f"{name} {one['value'] * 100:+.0f}{bounds} points"
