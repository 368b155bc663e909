"""A question to the passages that answer it: full text and vectors, fused by rank.

    question ─┬─ BM25 (Robertson and Zaragoza 2009), its words joined by OR ─▶ ranks ─┐
              └─ cosine of its vector with all passages, exactly ────────────▶ ranks ─┴─▶ fused ─▶ the first k

Ranks are fused by their reciprocals, 1 / (60 + rank) summed (Cormack, Clarke and Büttcher, "Reciprocal rank fusion",
SIGIR 2009): no scale of either matters. Passages that say the same word for word are one, and ties go to the earlier
place in the collection, so equal collections give equal answers whatever order they were made in.

A retriever holds the vectors in memory, as they are when it is opened: 4 bytes a dimension and passage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ilab.errors import InputError
from ilab.rag.embedder import Embedder
from ilab.rag.hashed import FUNCTION_WORDS
from ilab.rag.store import Collection, DocumentStore, Passage
from ilab.rag.vectors import nearest

DEPTH = 50  # ranks of either list that are fused
CONSTANT = 60  # of the fusion: how little the first ranks stand out (the paper's value)
WORD = re.compile(r"\w+")
WORDS = 200  # of a question that are looked up

By = Literal["text", "vectors", "both"]


@dataclass(frozen=True)
class Hit:
    """A passage that was found, with its rank in each list (None: not among the first) and the fused score."""

    passage: Passage
    score: float
    text_rank: int | None
    vector_rank: int | None

    @property
    def place(self) -> str:
        """Document, heading and page, for people: ``manual.pdf, Locks > Opening, page 3``."""
        one = self.passage
        parts = [one.source, " > ".join(one.heading), f"page {one.page}" if one.page else ""]
        return ", ".join(part for part in parts if part)

    def facts(self) -> dict[str, Any]:
        """The hit as JSON."""
        one = self.passage
        return {
            "source": one.source,
            "title": one.title,
            "heading": list(one.heading),
            "page": one.page,
            "span": list(one.span),
            "document": one.document,
            "chunk": one.chunk,
            "origin": one.origin,
            "text": one.text,
            "score": round(self.score, 6),
            "text_rank": self.text_rank,
            "vector_rank": self.vector_rank,
        }


@dataclass(frozen=True)
class Retrieved:
    """What was found for a question, the best first. ``citations[i]`` says where ``passages[i]`` stands."""

    question: str
    hits: tuple[Hit, ...]

    @property
    def passages(self) -> tuple[str, ...]:
        """The passages for a prompt. Every line begins with ``> ``, so that no passage can end where it does not, or
        pass for the question or for another."""
        return tuple("\n".join(f"> {line}" for line in hit.passage.text.splitlines()) for hit in self.hits)

    @property
    def citations(self) -> tuple[str, ...]:
        """``manual.pdf, Locks > Opening, page 3``; each on one line whatever a document is called."""
        return tuple(" ".join(hit.place.split()) for hit in self.hits)


class Retriever:
    """Finds passages of one collection. Raises InputError where ``embedder`` is not the one that made it."""

    def __init__(self, store: DocumentStore, collection: Collection, embedder: Embedder, top_k: int = 3) -> None:
        check_embedder(store, collection, embedder)
        self.collection = collection
        self.top_k = top_k
        self._store = store
        self._embedder = embedder
        self._ids, self._rows = store.vectors(collection)

    def retrieve(self, question: str) -> Retrieved:
        """The ``top_k`` passages for ``question``."""
        return Retrieved(question, tuple(self.search(question, self.top_k)))

    def search(self, question: str, count: int, by: By = "both") -> list[Hit]:
        """The ``count`` best passages; ``by`` one list alone, to compare."""
        depth = max(DEPTH, count)
        text = self._by_text(question, depth) if by != "vectors" else []
        vectors = self._by_vector(question, depth) if by != "text" else []
        ranked = fused([text, vectors])
        found: list[Hit] = []
        seen: set[str] = set()
        for number, score in ranked:
            for passage in self._store.passages([number]):
                if passage.text not in seen:
                    found.append(Hit(passage, score, _rank(text, number), _rank(vectors, number)))
                seen.add(passage.text)
            if len(found) == count:
                break
        return found

    def _by_text(self, question: str, depth: int) -> list[int]:
        query = match_any(question)
        return self._store.matching(self.collection, query, depth) if query else []

    def _by_vector(self, question: str, depth: int) -> list[int]:
        if not self._ids:
            return []
        query = self._embedder.queries([question])[0]
        if len(query) != self._rows.shape[1]:
            raise other_embedder(self._store, self.collection, self._embedder)
        return [self._ids[at] for at, _ in nearest(self._rows, query, depth)]


def match_any(question: str) -> str:
    """An FTS5 query for passages with any word of ``question``, function words apart where it has others.

    Words are quoted, and hold letters, digits and ``_`` alone: no sign in a question is syntax.
    """
    every = dict.fromkeys(WORD.findall(question.casefold()))
    words = [word for word in every if word not in FUNCTION_WORDS] or list(every)
    return " OR ".join(f'"{word}"' for word in words[:WORDS])


def fused(lists: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
    """The members of ranked lists with their fused scores, the best first; among equals the first in ``lists``."""
    scores: dict[int, float] = {}
    for ranked in lists:
        for rank, member in enumerate(ranked, 1):
            scores[member] = scores.get(member, 0.0) + 1 / (CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: -round(pair[1], 12))


def _rank(ranked: Sequence[int], number: int) -> int | None:
    return ranked.index(number) + 1 if number in ranked else None


def check_embedder(store: DocumentStore, collection: Collection, embedder: Embedder) -> None:
    """Raises InputError where ``embedder`` is not the one that made the collection's vectors."""
    if embedder.identity != collection.embedder:
        raise other_embedder(store, collection, embedder)


def other_embedder(store: DocumentStore, collection: Collection, embedder: Embedder) -> InputError:
    """What is wrong, and both ways out of it."""
    same = embedder.setting == collection.made_with
    now = "its files are others now" if same else f"not {embedder.setting}"
    anew = (
        f"ilab rag ingest --anew --document-store-uri {store.path} --document-store-collection-name {collection.name}"
    )
    return InputError(
        f"collection {collection.name!r} was made with the embedder {collection.made_with}: {now}",
        where=str(store.path),
        hint=f"make it anew: {anew}" + ("" if same else f"; or give --embedding-model-path {collection.made_with}"),
    )
