"""Texts as sets of words, and the near-copies among many of them.

Similarity is the share of common words (Jaccard). Two sets can only reach the wanted share when they have one of
their rarest words in common, so only sets that share one are compared (prefix filter: Bayardo, Ma and Srikant,
"Scaling up all pairs similarity search", WWW 2007).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

NEAR = 0.85  # share of common words from which two texts say the same
MOST_COMPARED = 200  # earlier texts that one text is compared with, so that no file can make this slow

_CJK = "぀-ヿ㐀-鿿가-힯"  # written without spaces: every character counts as a word
_ASCII_WORD = re.compile(r"[0-9a-z]+")  # the same for plain English, in a third of the time
_WORD = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W_])+")


def words(text: str) -> list[str]:
    """The words and numbers of ``text`` in order, without regard to case and punctuation."""
    plain = text.casefold()
    return (_ASCII_WORD if plain.isascii() else _WORD).findall(plain)


class NearCopies:
    """Finds the first of ``texts`` (sets of words) that a given set is a near-copy of."""

    def __init__(self, texts: Iterable[frozenset[str]]) -> None:
        self._texts = list(texts)
        self._counts = Counter(word for text in self._texts for word in text)
        self._by_word: dict[str, list[int]] = {}
        for index, text in enumerate(self._texts):
            for word in self._rare(text):
                self._by_word.setdefault(word, []).append(index)

    def find(self, text: frozenset[str], before: int | None = None) -> int | None:
        """The index of the first near-copy of ``text``, among the first ``before`` ones if given."""
        candidates = {at for word in self._rare(text) for at in self._by_word.get(word, [])[:MOST_COMPARED]}
        for at in sorted(candidates)[:MOST_COMPARED]:
            if (before is None or at < before) and _share(text, self._texts[at]) >= NEAR:
                return at
        return None

    def _rare(self, text: frozenset[str]) -> list[str]:
        """The words of which a near-copy must have one: the rarest, as many as it may lack, and one."""
        ordered = sorted(text, key=lambda word: (self._counts[word], word))
        return ordered[: len(text) - math.ceil(NEAR * len(text)) + 1]


def _share(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common) if one or other else 0.0
