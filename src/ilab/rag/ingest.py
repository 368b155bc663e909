"""Documents into a collection, each at most once: what is there already is not embedded again.

    cut documents ──unchanged? skip──▶ texts ──known in the collection?──▶ embedder ──▶ store, one transaction each
    no longer among them ─────────────────────────────────────────────────────────▶ removed

Vectors belong to texts: of a document that was edited only the passages that are new are embedded. A killed ingestion
has written whole documents, and the same command goes on behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ilab.core.events import Emit
from ilab.data import digest_text
from ilab.rag.embedder import Embedder
from ilab.rag.store import Collection, Cut, DocumentStore

BATCH = 64  # texts that are embedded together


@dataclass
class Ingested:
    """What became of the documents: their sources, and how many passages were made and embedded."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    passages: int = 0
    embedded: int = 0


def ingest(
    into: tuple[DocumentStore, Collection, Embedder],
    origin: str,
    documents: Sequence[Cut],
    emit: Emit,
    *,
    complete: bool = True,
) -> Ingested:
    """Make the documents of ``origin`` in a collection those that are given, by their sources.

    Unless they are ``complete`` (some could not be read this time) none is removed. Raises whatever the embedder
    raises; documents that are written stay.
    """
    store, collection, _ = into
    told = Ingested()
    before = {entry.source for entry in store.documents(collection) if entry.origin == origin}
    wanted = {cut.document.source: cut for cut in documents}
    for source in sorted(before - wanted.keys()) if complete else ():
        store.remove(collection, origin, source)
        told.removed.append(source)
    changed = []
    for source, cut in wanted.items():
        if store.holds(collection, origin, cut):
            told.unchanged.append(source)
        else:
            changed.append(cut)
            (told.replaced if source in before else told.added).append(source)
    total, done = sum(len(cut.chunks) for cut in changed), 0
    for some in _batches(changed):
        told.embedded += _write(into, origin, some)
        done += sum(len(cut.chunks) for cut in some)
        emit.progress(done, total, "passages", note=some[-1].document.source)
    told.passages = total
    return told


def _write(into: tuple[DocumentStore, Collection, Embedder], origin: str, cuts: Sequence[Cut]) -> int:
    """Embed what the collection has no vector of, then write each document. How many texts were embedded."""
    store, collection, embedder = into
    digests = [[digest_text(text) for text in cut.texts] for cut in cuts]
    vectors = store.known(collection, [digest for own in digests for digest in own])
    missing = {
        digest: text
        for own, cut in zip(digests, cuts, strict=True)
        for digest, text in zip(own, cut.texts, strict=True)
        if digest not in vectors
    }
    new = list(missing.items())
    for at in range(0, len(new), BATCH):
        part = new[at : at + BATCH]
        rows = embedder.documents([text for _, text in part])
        vectors |= {digest: row.astype("<f4").tobytes() for (digest, _), row in zip(part, rows, strict=True)}
    for own, cut in zip(digests, cuts, strict=True):
        store.put(collection, origin, cut, [(digest, vectors[digest]) for digest in own])
    return len(new)


def _batches(cuts: Sequence[Cut]) -> Iterator[list[Cut]]:
    """Documents with about ``BATCH`` passages together; a longer one alone."""
    some: list[Cut] = []
    for cut in cuts:
        some.append(cut)
        if sum(len(one.chunks) for one in some) >= BATCH:
            yield some
            some = []
    if some:
        yield some
