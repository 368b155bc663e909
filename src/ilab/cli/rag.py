"""``ilab rag``: documents into a store of passages, questions to the passages that answer them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.process import detachable, go_to_background
from ilab.cli.rag_advise import advise
from ilab.cli.rag_options import COLLECTION, EMBEDDER, STORE, open_retriever, store_uri
from ilab.errors import IlabError, InputError, InputErrors

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.rag.ingest import Ingested
    from ilab.rag.search import Hit
    from ilab.retrieval import Source

SHOWN = 400  # characters of a passage
INPUT_DIR = click.option("--input-dir", metavar="DIR", help="A folder of documents.")


@click.group(name="rag")
def group() -> None:
    """Answer from documents: convert, ingest and search them.

    A document store keeps the passages of documents with full text and vectors. `ilab model chat --rag` looks a
    question up in it; `ilab advise` tells whether that helps more than tuning.
    """


group.add_command(advise)


@group.command()
@INPUT_DIR
@click.option("--taxonomy-path", metavar="DIR", help="A taxonomy, in place of the project's.")
@click.option("--taxonomy-base", metavar="REF", help="Only leaves that changed since then.  [config: taxonomy_base]")
@click.option("--output-dir", metavar="DIR", help="Folder for the result.  [config: rag.converted]")
@click.pass_obj
def convert(
    options: Options,
    input_dir: str | None,
    taxonomy_path: str | None,
    taxonomy_base: str | None,
    output_dir: str | None,
) -> None:
    """Convert the documents of a folder, or those that a taxonomy refers to: a JSON file for each.

    PDF, DOCX, EPUB, HTML, Markdown and text are read. Without options the project's taxonomy counts. Of the output
    folder only files that this command wrote before are replaced or removed.

    Example: ilab rag convert --input-dir manuals
    """
    from ilab.cli.evaluate_judge import asking_site
    from ilab.documents.converted_folder import write_converted
    from ilab.retrieval import converted_folder, from_folder, from_taxonomy, reading_of

    loaded = options.load()
    folder = options.directory / Path(output_dir).expanduser() if output_dir else converted_folder(loaded)
    with asking_site(loaded, "convert") as site:
        reading = reading_of(loaded, site.memo("documents"), site.emit)
        if input_dir:
            source = from_folder(loaded, options.directory / Path(input_dir).expanduser(), reading)
        else:
            taxonomy = options.directory / taxonomy_path if taxonomy_path else None
            source = from_taxonomy(loaded, taxonomy, taxonomy_base, reading)
    _warn(source)
    written = write_converted(folder, source.documents) if source.documents else None
    files, removed = (written.files, written.removed) if written else ((), ())
    gone = f", {len(removed)} removed" if removed else ""
    told = {"folder": str(folder), "files": files, "removed": removed, "problems": len(source.problems)}
    lines = [
        f"{len(files)} documents in {folder}{gone}",
        "Next: ilab rag ingest" + (f" --input-dir {folder}" if output_dir else ""),
    ]
    options.result(told, _printable("\n".join(lines[: 2 if files else 1])))
    _raise(source.problems)


@group.command()
@INPUT_DIR
@STORE
@COLLECTION
@click.option("--embedding-model-path", "embedder", metavar="DIR|NAME", help=EMBEDDER)
@click.option("--anew", is_flag=True, help="Begin the collection anew: with another embedding model, say.")
@detachable
@click.pass_obj
def ingest(options: Options, /, input_dir: str | None, anew: bool, **given: Any) -> None:
    """Put documents into the store: as they are, or as `ilab rag convert` made them.

    Without --input-dir: what `ilab rag convert` wrote, else the documents of the project's last build. What is in the
    store already is not embedded again; documents that are gone from the folder are removed. After an interruption the
    same command goes on.

    Example: ilab rag ingest --input-dir manuals
    """
    from ilab.cli.evaluate_judge import asking_site
    from ilab.rag.store import DocumentStore
    from ilab.retrieval import choose_embedder, ingest_into, need_folder, reading_of, store_path

    loaded = options.load(rag__collection=given["collection"])
    name, path = loaded.config.rag.collection, store_path(loaded, store_uri(options, given))
    with asking_site(loaded, "ingest") as site:
        if input_dir:
            need_folder(options.directory / Path(input_dir).expanduser())
        go_to_background(options)
        source = _source(options, loaded, input_dir, reading_of(loaded, site.memo("documents"), site.emit))
        _warn(source)
        if not source.documents:
            _raise(source.problems)
        with DocumentStore.open(path, make=True) as store:
            made = None if anew else store.find(name)
            embedder, note = choose_embedder(loaded, given["embedder"], made, options.directory)
            if note:
                click.echo(f"note: {note}", err=True)
            told = ingest_into(store, name, source, embedder, loaded.config.rag.chunk_tokens, site.emit, anew=anew)
    facts = {"store": str(path), "collection": name, "embedder": embedder.setting, "origin": source.origin}
    options.result({**facts, **asdict(told)}, _printable(_summary(told, path, name)))
    _raise(source.problems)


@group.command()
@click.argument("question")
@STORE
@COLLECTION
@click.option("--embedding-model-path", "embedder", metavar="DIR|NAME", help=EMBEDDER)
@click.option("-k", "--top-k", type=click.IntRange(1, 1000), help="How many passages.  [config: rag.top_k]")
@click.pass_obj
def search(options: Options, /, question: str, **given: Any) -> None:
    """The passages that answer QUESTION best, with where they stand.

    Full text (BM25) and vectors each rank all passages; the two are joined by rank.

    Example: ilab rag search "How many locks has the canal?" -k 5
    """
    retriever = open_retriever(options, given)
    found = retriever.retrieve(question)
    lines = [line for number, hit in enumerate(found.hits, 1) for line in _shown(number, hit)]
    options.result([hit.facts() for hit in found.hits], "\n".join(lines) or "Nothing found.")


@group.command()
@STORE
@click.option("--document-store-collection-name", "collection", metavar="NAME", help="Its documents, one by one.")
@click.pass_obj
def info(options: Options, /, **given: Any) -> None:
    """What is in a document store: its collections, their embedders, their documents.

    Example: ilab rag info --document-store-collection-name ilab
    """
    from ilab.rag.store import DocumentStore
    from ilab.retrieval import store_path

    path = store_path(options.load(), store_uri(options, given))
    with DocumentStore.open(path) as store:
        meant = [store.need(given["collection"])] if given["collection"] else store.collections()
        documents = {one.name: store.documents(one) for one in meant}
    lines = [str(path)]
    for one in meant:
        own = documents[one.name]
        passages = sum(entry.passages for entry in own)
        lines.append(f"{one.name}: {len(own)} documents, {passages} passages, embedder {one.made_with}")
        if given["collection"]:
            lines += [f"  {entry.source}: {entry.passages} passages, from {entry.origin}" for entry in own]
    facts = [
        {"name": one.name, "embedder": one.made_with, "documents": [asdict(entry) for entry in documents[one.name]]}
        for one in meant
    ]
    options.result({"store": str(path), "collections": facts}, "\n".join(map(_printable, lines)))


def _source(options: Options, loaded: Loaded, input_dir: str | None, reading: Any) -> Source:
    from ilab.documents.converted_folder import is_converted
    from ilab.retrieval import converted_folder, from_folder, from_last_build

    if input_dir:
        return from_folder(loaded, options.directory / Path(input_dir).expanduser(), reading)
    folder = converted_folder(loaded)
    if is_converted(folder):
        return from_folder(loaded, folder, reading)
    try:
        return from_last_build(loaded)
    except InputError as error:
        error.hint = (
            "give a folder of documents: ilab rag ingest --input-dir DIR; or first: ilab rag convert, or ilab run"
        )
        raise


def _summary(told: Ingested, path: Path, name: str) -> str:
    counts = {"new": told.added, "changed": told.replaced, "unchanged": told.unchanged, "removed": told.removed}
    documents = ", ".join(f"{len(sources)} {state}" for state, sources in counts.items())
    return f"documents: {documents}\n{told.passages} passages written, {told.embedded} embedded, into {path} ({name})"


def _shown(number: int, hit: Hit) -> list[str]:
    text = " ".join(hit.passage.text.split())
    short = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
    ranks = [f"text {hit.text_rank}" if hit.text_rank else "", f"vectors {hit.vector_rank}" if hit.vector_rank else ""]
    place = f"[{number}] {' '.join(hit.place.split())}"
    return [_printable(place), f"    {_printable(short)}", f"    rank by {' and '.join(filter(None, ranks))}", ""]


def _warn(source: Source) -> None:
    """What documents hold that a reader would not see, or that speaks to a model."""
    for flag in (flag for one in source.documents for flag in one.flags):
        text = f"{flag.source} {flag.place}: {flag.kind} {flag.action}: {flag.excerpt}"
        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {_printable(text)}", err=True)


def _raise(problems: Sequence[IlabError]) -> None:
    """All problems at once where they are the user's; a server's or the machine's first."""
    for problem in problems:
        if not isinstance(problem, InputError):
            raise problem
    if problems:
        raise InputErrors([problem for problem in problems if isinstance(problem, InputError)])


def _printable(text: str) -> str:
    from ilab.cli.findings import printable

    return "\n".join(printable(line) for line in text.splitlines())
