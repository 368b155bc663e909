"""Passages for seed examples: pieces of documents of a length that a person likes to read, spread over all of them.

Documents are cut into small chunks, and consecutive chunks of one document are joined until they hold enough words. A
passage is a verbatim piece of its document, so headings between its chunks stay in it. How much is enough depends on
how much text there is for the passages wanted, so that a short document gives several all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ilab.data import Chunk, Document
from ilab.documents.chunk import chunk_documents
from ilab.documents.markdown import blocks

LEAST, ENOUGH, MOST = 25, 100, 500  # words; 500 is what the InstructLab taxonomy's guidelines allow
_TOKENS = 2  # of a chunk, for each word that is enough; an English word has about 1.3
_TRUSTED = 200  # words of prose beyond which a passage is no better than another


@dataclass(frozen=True)
class Passage:
    """``text`` stands word for word in the document called ``source``; ``heading`` and ``page`` are where it begins."""

    source: str
    heading: tuple[str, ...]
    page: int | None
    text: str


def passages(documents: Sequence[Document], wanted: int) -> list[Passage]:
    """The passages of all documents in order, about ``wanted`` of them or more.

    A passage has 100 words or more, in short documents fewer, and never over 500; pieces of under 25 words that fit
    nowhere are left out.
    """
    total = sum(_words(document.text) for document in documents)
    # Passages come out between once and twice as long as is enough, so half of an equal share is right.
    enough = max(LEAST, min(ENOUGH, total // (2 * max(wanted, 1))))
    parts: dict[str, list[Chunk]] = {}
    for chunk in chunk_documents(documents, _TOKENS * enough):
        parts.setdefault(chunk.document, []).append(chunk)
    return [
        passage
        for document in documents
        for passage in _of_one(document, parts.get(document.id, []), enough)
        if _words(passage.text) >= LEAST
    ]


def spread(found: Sequence[Passage], wanted: int) -> list[Passage]:
    """All of ``found``, in the order in which to try them: first the best of each of ``wanted`` equal shares.

    The best has the most running text (tables, code and headings do not count); among equals the first.
    """
    if not found:
        return []
    shares = min(max(wanted, 1), len(found))
    bounds = [len(found) * share // shares for share in range(shares + 1)]
    ranked = [
        sorted(range(start, stop), key=lambda at: (-_prose(found[at].text), at)) for start, stop in pairwise(bounds)
    ]
    longest = max(len(share) for share in ranked)
    return [found[share[rank]] for rank in range(longest) for share in ranked if rank < len(share)]


def _of_one(document: Document, chunks: list[Chunk], enough: int) -> list[Passage]:
    groups: list[list[Chunk]] = []
    for chunk in chunks:
        if groups and _joins(document, groups[-1], chunk, enough):
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
    # What is left at the end may be too short to stand alone.
    if len(groups) > 1 and _words(_text(document, groups[-1])) < LEAST:
        joined = [*groups[-2], *groups[-1]]
        if _words(_text(document, joined)) <= MOST:
            groups[-2:] = [joined]
    return [
        Passage(document.source, group[0].heading, group[0].page, text)
        for group in groups
        if _words(text := _text(document, group)) <= MOST
    ]


def _joins(document: Document, group: list[Chunk], chunk: Chunk, enough: int) -> bool:
    return _words(_text(document, group)) < enough and _words(_text(document, [*group, chunk])) <= MOST


def _text(document: Document, group: list[Chunk]) -> str:
    return document.text[group[0].span[0] : group[-1].span[1]]


def _words(text: str) -> int:
    return len(text.split())


def _prose(text: str) -> int:
    """Words in paragraphs and lists, up to the number from which more are no better."""
    found = sum(_words(text[block.start : block.end]) for block in blocks(text) if block.kind == "paragraph")
    return min(found, _TRUSTED)
