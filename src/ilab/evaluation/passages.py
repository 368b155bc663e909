"""The passage that belongs to a held-out question: what an open-book answer may read.

An item's passage is the chunk that its cluster names. A person's item names none; then it is the chunk of the leaf
that a search by the question's words finds. Questions that bring a context of their own, and leaves without documents,
have no passage. The right answer plays no part in the search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ilab.data import Chunk, Item
from ilab.evaluation.answers import content_words
from ilab.evaluation.baseline import sentences_of, share


def passages(items: Iterable[Item], chunks: Iterable[Chunk]) -> dict[str, str]:
    """Item id to the text of its passage, for the items that have one.

    Of several chunks the one counts in which a single sentence has most of the question's content words, then the one
    that has most of them as a whole, then the first.
    """
    by_leaf: dict[str, list[Chunk]] = {}
    by_cluster: dict[str, str] = {}
    for chunk in chunks:
        by_leaf.setdefault(chunk.leaf, []).append(chunk)
        by_cluster.setdefault(f"{chunk.leaf}#{chunk.id}", chunk.text)
    words = {leaf: [(sentences_of(chunk), chunk.text) for chunk in own] for leaf, own in by_leaf.items()}
    found = {}
    for item in items:
        if item.context is None and item.leaf in by_leaf:
            found[item.id] = by_cluster.get(item.cluster) or _best(item.question, words[item.leaf])
    return found


def part_about(text: str, question: str, size: int) -> str:
    """At most ``size`` characters of ``text``, whole sentences around the one that shares most with ``question``."""
    if len(text) <= size:
        return text
    ends = [match.end() for match in re.finditer(r"(?<=[.!?])\s+|\n+", text)]
    spans = [(start, end) for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if end > start]
    asked = content_words(question)
    rates = [share(asked, content_words(text[start:end])) for start, end in spans]
    first = last = rates.index(max(rates))
    while True:  # one sentence more on either side, in turn, as long as there is room
        wider = [(first - 1, last), (first, last + 1)] if (last - first) % 2 else [(first, last + 1), (first - 1, last)]
        fits = [(a, b) for a, b in wider if a >= 0 and b < len(spans) and spans[b][1] - spans[a][0] <= size]
        if not fits:
            break
        first, last = fits[0]
    return text[spans[first][0] : spans[last][1]][:size].strip()


def _best(question: str, chunks: Sequence[tuple[Sequence[frozenset[str]], str]]) -> str:
    asked = content_words(question)

    def rate(at: int) -> tuple[float, float, int]:
        sentences, text = chunks[at]
        best = max((share(asked, sentence) for sentence in sentences), default=0.0)
        return best, share(asked, content_words(text)), -at

    return chunks[max(range(len(chunks)), key=rate)][1]
