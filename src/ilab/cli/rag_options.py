"""The options that say where passages are looked for, and the retriever that they mean.

@RAG_OPTIONS                                     --rag, --document-store-uri, …
def chat(options, …, **given):
    retriever = retriever_for(options, given)    None without --rag
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ilab.cli.app import Options
    from ilab.rag.search import Retriever

F = TypeVar("F", bound=Callable[..., Any])

STORE = click.option(
    "--document-store-uri", "store_uri", metavar="FILE", help="The document store's file.  [config: rag.store]"
)
COLLECTION = click.option(
    "--document-store-collection-name", "collection", metavar="NAME", help="Collection in it.  [config: rag.collection]"
)
EMBEDDER = "Embedding model: a folder, the name of a downloaded one, or `hashed` for none."


def RAG_OPTIONS(command: F) -> F:  # noqa: N802 - read as a constant where it is applied
    """Add ``--rag`` and where to look: what upstream's ``model chat`` takes."""
    for option in (
        click.option(
            "--retriever-top-k",
            "top_k",
            type=click.IntRange(1, 1000),
            help="Passages for a question.  [config: rag.top_k]",
        ),
        click.option("--retriever-embedding-model-path", "embedder", metavar="DIR|NAME", help=EMBEDDER),
        COLLECTION,
        STORE,
        click.option(
            "--rag", is_flag=True, help="Put passages of the document store before each question, and cite them."
        ),
    ):
        command = option(command)
    return command


def retriever_for(options: Options, given: Mapping[str, Any]) -> Retriever | None:
    """The retriever that the options of :func:`RAG_OPTIONS` mean; None without ``--rag``.

    Raises InputError where there is no store, or where it was made with another embedder.
    """
    if not given["rag"]:
        return None
    return open_retriever(options, given)


def open_retriever(options: Options, given: Mapping[str, Any]) -> Retriever:
    """The retriever over the collection that is meant, with the line about its embedder on standard error."""
    from ilab.retrieval import retriever

    loaded = options.load(rag__collection=given["collection"], rag__top_k=given["top_k"])
    found, note = retriever(loaded, store_uri(options, given), given["embedder"], options.directory)
    if note:
        click.echo(f"note: {note}", err=True)
    return found


def store_uri(options: Options, given: Mapping[str, Any]) -> str | None:
    """``--document-store-uri``; a path is one from the folder where the command works."""
    uri: str | None = given["store_uri"]
    return (
        str((options.directory / Path(uri).expanduser()).absolute())
        if uri and "://" not in uri and not uri.startswith("file:")
        else uri
    )
