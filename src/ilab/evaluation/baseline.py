"""What multiple-choice questions give away without any model.

    open book      which option's words stand together with the question's in one sentence of the document
    choices only   which option repeats the question's words: what the wording alone gives away

Both are plain word overlap. They stand beside a model's score: a closed-book model that stays below ``open book``
has learnt less than a search over the document finds, and one that only reaches ``choices only`` has learnt
nothing. Where k options tie and the right one is among them, an item counts 1/k: the result must not depend on
the options' order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ilab.data import Chunk, Item
from ilab.evaluation.answers import content_words

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")

Rate = Callable[[Item, str], float]  # how well an option fits


def open_book(items: Iterable[Item], chunks: Iterable[Chunk]) -> dict[str, float | None]:
    """Leaf to accuracy of word overlap with the leaf's own chunks; ``None`` without choices or without chunks.

    An option's rate is the best, over sentences, of (share of the question's content words + share of the
    option's) found in that sentence.
    """
    sentences: dict[str, list[frozenset[str]]] = {}
    for chunk in chunks:
        sentences.setdefault(chunk.leaf, []).extend(sentences_of(chunk))

    def rate(item: Item, option: str) -> float:
        question, answer = content_words(item.question), content_words(option)
        return max(share(question, sentence) + share(answer, sentence) for sentence in sentences[item.leaf])

    every = list(items)
    accuracy = _accuracy([item for item in every if sentences.get(item.leaf)], rate)
    return {leaf: accuracy.get(leaf) for leaf in sorted({item.leaf for item in every})}


def choices_only(items: Iterable[Item]) -> dict[str, float | None]:
    """Leaf to accuracy of choosing the option with the largest share of its words in the question."""

    def rate(item: Item, option: str) -> float:
        return share(content_words(option), content_words(item.question))

    every = list(items)
    accuracy = _accuracy(every, rate)
    return {leaf: accuracy.get(leaf) for leaf in sorted({item.leaf for item in every})}


def _accuracy(items: Sequence[Item], rate: Rate) -> dict[str, float]:
    """Per leaf, the expected share of right choices when the best-rated option is taken, ties at random."""
    earned: dict[str, list[float]] = {}
    for item in items:
        if item.kind != "mcq" or not item.options:
            continue
        rates = [rate(item, option) for option in item.options]
        best = [option for option, value in zip(item.options, rates, strict=True) if value >= max(rates) - 1e-12]
        earned.setdefault(item.leaf, []).append(best.count(item.gold) / len(best))
    return {leaf: sum(values) / len(values) for leaf, values in earned.items()}


def sentences_of(chunk: Chunk) -> list[frozenset[str]]:
    """The content words of every sentence that has some. A table row or a list entry counts as a sentence."""
    found = [content_words(part) for part in _SENTENCE_END.split(chunk.text)]
    return [part for part in found if part]


def share(wanted: frozenset[str], among: frozenset[str]) -> float:
    """The share of ``wanted`` that is found in ``among``; 0 where nothing is wanted."""
    return len(wanted & among) / len(wanted) if wanted else 0.0
