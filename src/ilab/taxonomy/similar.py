"""Texts as sets of words, and the near-copies among them.

Similarity is the share of common words (Jaccard). A few texts are compared one by one. Among many, two sets can only
reach the wanted share when they have one of their rarest words in common, so only sets that share one are compared
(prefix filter: Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", WWW 2007).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

NEAR = 0.85  # share of common words from which two texts say the same
MOST_COMPARED = 200  # earlier texts that one text is compared with, so that no file can make this slow
_ROUNDING = 1e-9

_CJK = "぀-ヿ㐀-鿿가-힯"  # written without spaces: every character counts as a word
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))


def words(text: str) -> list[str]:
    """The words and numbers of ``text`` in order, without regard to case and punctuation."""
    if text.isascii():  # the same for plain English, several times as fast
        return text.translate(_ASCII).split()
    return _WORD.findall(text.casefold())


class NearCopies:
    """Finds the first of ``texts`` (sets of words) that a given set is a near-copy of."""

    def __init__(self, texts: Iterable[frozenset[str]]) -> None:
        self._texts = list(texts)
        self._sizes = [len(text) for text in self._texts]

    def find(self, text: frozenset[str], before: int | None = None) -> int | None:
        """The index of the first near-copy of ``text``, among the first ``before`` ones if given."""
        least, most = NEAR * len(text) - _ROUNDING, len(text) / NEAR + _ROUNDING  # of words a near-copy can have
        for at in self._candidates(text, before):
            if least <= self._sizes[at] <= most and _share(text, self._texts[at]) >= NEAR:
                return at
        return None

    def _candidates(self, text: frozenset[str], before: int | None) -> Iterable[int]:
        """Indexes of texts that may be near-copies, in order."""
        end = len(self._texts) if before is None else before
        if len(self._texts) <= MOST_COMPARED:
            return range(end)
        found = {at for word in self._rare(text) for at in self._by_word.get(word, [])[:MOST_COMPARED] if at < end}
        return sorted(found)[:MOST_COMPARED]

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(word for text in self._texts for word in text)

    @cached_property
    def _by_word(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, text in enumerate(self._texts):
            for word in self._rare(text):
                found.setdefault(word, []).append(index)
        return found

    def _rare(self, text: frozenset[str]) -> list[str]:
        """The words of which a near-copy must have one: the rarest, as many as it may lack, and one."""
        ordered = sorted(text, key=lambda word: (self._counts[word], word))
        return ordered[: len(text) - math.ceil(NEAR * len(text)) + 1]


def _share(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common) if one or other else 0.0
