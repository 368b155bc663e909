"""A store with documents in it, for the tests of retrieval."""

from __future__ import annotations

from collections.abc import Sequence

from ilab.core.events import Bus
from ilab.data import Document, digest_text
from ilab.documents.chunk import chunk
from ilab.rag.hashed import HashedEmbedder
from ilab.rag.ingest import Ingested, ingest
from ilab.rag.store import Cut, DocumentStore
from ilab.rag.vectors import Floats

CANAL = "# Canal\n\nThe canal has 14 locks.\n\n## Tolls\n\nA barge pays nine crowns.\n"
MILL = "# Mill\n\nThe mill grinds barley on Tuesdays.\n"


class Counting(HashedEmbedder):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def documents(self, texts: Sequence[str]) -> Floats:
        self.texts += texts
        return super().documents(texts)


def cut(source: str, text: str, pages: tuple[int, ...] = (), how: str = "1") -> Cut:
    document = Document(
        id=digest_text(text), leaf="", source=source, title=text.partition("\n")[0][2:], text=text, pages=pages
    )
    return Cut(document, chunk(document, 50), how)


def put(store: DocumentStore, embedder: Counting, *cuts: Cut, origin: str = "a", complete: bool = True) -> Ingested:
    collection = store.find("ilab") or store.make("ilab", embedder.identity, embedder.setting)
    return ingest((store, collection, embedder), origin, cuts, Bus().for_step("ingest"), complete=complete)
