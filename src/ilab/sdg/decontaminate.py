"""Keeps held-out items out of training: no item, nor a near-copy of one, may be a sample.

A sample goes when its question (with its context) is an item's, word for word in normal form, or when the two have
the same answer and at least nine tenths of their words in common (Jaccard similarity of word sets). Candidates
come from an index of rare words: two sets of similarity ``t`` must share one of their ``n - ceil(t n) + 1`` rarest
words (prefix filtering: Chaudhuri, Ganti and Kaushik, 2006), so the cost is not samples times items.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ilab.data import Item, Rejected, Sample
from ilab.models.chat import prompt_text
from ilab.sdg.made import refuse
from ilab.sdg.text import normal, words

HELD_OUT = "decontaminate"
SIMILAR = 0.9


class HeldOut:
    """Held-out items, indexed for :meth:`match`."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = sorted(items, key=lambda item: item.id)
        self._sets = [frozenset(words(prompt_text(item.question, item.context))) for item in self._items]
        self._frequency = Counter(word for found in self._sets for word in found)
        self._exact: dict[str, int] = {}
        self._index: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, item in enumerate(self._items):
            self._exact.setdefault(normal(prompt_text(item.question, item.context)), number)
            for word in self._rarest(self._sets[number]):
                self._index[normal(item.gold), word].append(number)

    def match(self, question: str, answer: str) -> tuple[Item, str] | None:
        """The held-out item that ``question`` (context included) is or nearly is, and how it was recognised."""
        number = self._exact.get(normal(question))
        if number is not None:
            return self._items[number], "the same question"
        asked, said = frozenset(words(question)), normal(answer)
        seen: set[int] = set()
        for word in self._rarest(asked):
            seen.update(self._index.get((said, word), ()))
        for number in sorted(seen):
            union = len(asked | self._sets[number])
            if union and len(asked & self._sets[number]) / union >= SIMILAR:
                return self._items[number], "nearly the same question with the same answer"
        return None

    def _rarest(self, found: frozenset[str]) -> list[str]:
        length = len(found) - math.ceil(SIMILAR * len(found) - 1e-9) + 1
        return sorted(found, key=lambda word: (self._frequency[word], word))[:length]


def decontaminate(samples: Sequence[Sample], items: Iterable[Item]) -> tuple[list[Sample], list[Rejected]]:
    """Samples without those that match a held-out item. Document text itself is not a question and stays."""
    held_out = HeldOut(items)
    kept, dropped = [], []
    for sample in samples:
        match = None if sample.train_on == "all" else held_out.match(sample.question, sample.answer)
        if match is None:
            kept.append(sample)
        else:
            item, how = match
            dropped.append(refuse(sample, HELD_OUT, f"held out: {how} as {item.id}"))
    return kept, dropped
