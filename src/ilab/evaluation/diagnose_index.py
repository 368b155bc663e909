"""Search by shared words over every text a build made: which samples say this, and which passages.

    nearest(query) ──rarest words first──▶ candidates ──exact share of the query's weight──▶ ranked hits

A word weighs log(1 + N / (1 + texts that have it)), the inverse document frequency of Spärck Jones (1972); a word that
no text has weighs most, so a query about something nobody wrote has only poor hits. Words are compared by their first
six letters: *construction* is *constructed* (truncation works about as well as a stemmer: McNamee and Mayfield 2004).
Adding a word's texts stops at ``BUDGET``, so a query costs the same in 200,000 samples as in 2,000.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import nsmallest
from itertools import pairwise

from ilab.evaluation.answers import content_words, words

STEM = 6  # letters of a word that count
ENDINGS = ("ing", "ed", "es", "s", "e")  # taken off before, where at least ...
SHORTEST = 4  # ... so many letters are left: *turned* is *turns*
BUDGET = 10_000  # entries of the index that one query may walk
RESCORED = 80  # candidates whose share is computed exactly
REMEMBERED = 4096  # texts whose words are kept at hand


@dataclass(frozen=True)
class Hit:
    """Text ``number`` has ``share`` (0..1) of the query's weight."""

    number: int
    share: float


def stem(word: str) -> str:
    """What of a word counts in a search. Figures and codes count whole."""
    if not word.isalpha():
        return word
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST:
            return word[: -len(ending)][:STEM]
    return word[:STEM]


@lru_cache(REMEMBERED)  # the questions of a leaf meet the same samples and passages again and again
def stems(text: str) -> frozenset[str]:
    """The words of ``text`` that can carry a fact, shortened."""
    return frozenset(map(stem, content_words(text)))


@lru_cache(REMEMBERED)
def word_pairs(text: str) -> frozenset[tuple[str, str]]:
    """The (shortened) words of ``text`` that follow one another."""
    return frozenset(pairwise(map(stem, words(text))))


class WordIndex:
    """An inverted index of ``texts``. Results depend on nothing but the texts and their order."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self._numbers: dict[str, array[int]] = {}
        self._weights: dict[str, float] = {}
        for number, text in enumerate(texts):
            for word in stems.__wrapped__(text):  # each once: not worth remembering
                self._numbers.setdefault(word, array("L")).append(number)

    def weight(self, word: str) -> float:
        """How much a (shortened) word says: more the fewer texts have it."""
        known = self._weights.get(word)
        if known is None:
            known = math.log1p(len(self.texts) / (1 + len(self._numbers.get(word, ()))))
            self._weights[word] = known
        return known

    def rarest(self, among: Iterable[str]) -> int:
        """How many texts have the rarest of these (shortened) words; 0 where there is none."""
        return min((len(self._numbers.get(word, ())) for word in among), default=0)

    def total(self, among: Iterable[str]) -> float:
        return math.fsum(self.weight(word) for word in among)

    def share(self, wanted: frozenset[str], among: frozenset[str]) -> float:
        """The share of the weight of ``wanted`` that ``among`` has; 0 where nothing is wanted."""
        return self.total(wanted & among) / self.total(wanted) if wanted and self.texts else 0.0

    def nearest(self, query: str, most: int = 10) -> list[Hit]:
        """The texts with the largest share of the query's words, then the most of its word pairs, then the first."""
        wanted, pairs = stems(query), word_pairs(query)
        found = self._candidates(wanted)
        shares = {number: round(self.share(wanted, stems(self.texts[number])), 9) for number in found}
        best = sorted(shares, key=lambda number: (-shares[number], number))[: 2 * most]

        def rank(number: int) -> tuple[float, int, int]:
            return -shares[number], -len(pairs & word_pairs(self.texts[number])), number

        return [Hit(number, shares[number]) for number in sorted(best, key=rank)[:most]]

    def _candidates(self, wanted: frozenset[str]) -> list[int]:
        """The texts with most of the rarest words: at least those of the rarest two, whatever they cost."""
        weights: dict[int, float] = {}
        walked = 0
        rarest = sorted((word for word in wanted if word in self._numbers), key=lambda word: (self._count(word), word))
        for turn, word in enumerate(rarest):
            walked += self._count(word)
            if turn >= 2 and walked > BUDGET:
                break
            weight = self.weight(word)
            for number in self._numbers[word]:
                weights[number] = weights.get(number, 0.0) + weight
        return [number for _, number in nsmallest(RESCORED, ((-weight, number) for number, weight in weights.items()))]

    def _count(self, word: str) -> int:
        return len(self._numbers[word])


def by_text(texts: Iterable[str]) -> Mapping[str, list[int]]:
    """Which texts are the same but for case, punctuation and white space."""
    same: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        same.setdefault(alike(text), []).append(number)
    return same


def alike(text: str) -> str:
    """What two texts must share to be the same question."""
    return " ".join(words(text))
