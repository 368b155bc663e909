"""Which passage of a leaf's documents a question and its answer rest on.

The share of their content words that stand in the passage, each word weighted by its rarity among the passages
(inverse document frequency: Spärck Jones, "A statistical interpretation of term specificity", 1972). The words of the
answer count twice: they have to be there, while a question may use other words than the text.

Measured on the 72 pairs of the public taxonomy's and the quickstart's knowledge, whose contexts people chose, with
these contexts as passages: 69 pairs get a clear passage, each the one that was chosen (67 of 72, all right, among 240
passages of other documents). With the chosen passage taken away, 3 pairs get a clear one all the same (7 of 72 among
the 240): short answers that stand elsewhere too. So a person should look at the diff.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ilab.taxonomy.similar import words

CLEAR = 0.5  # share of the (weighted) words that a passage must hold
AHEAD = 1.2  # times the share of the next best passage
_STEM = 6  # letters that are compared, so that `crosses` and `crossing` are one word
_SHORTEST = 3  # letters of a content word; numbers count at any length


@dataclass(frozen=True)
class Support:
    """The best passage for a pair: its index, its share of the words (0 to 1), and whether that is clear."""

    passage: int
    share: float
    clear: bool


class Passages:
    """Finds the passage among ``texts`` that supports a pair best."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = [_content(text) for text in texts]
        self._in = Counter(word for words in self._words for word in words)

    def support(self, question: str, answer: str) -> Support | None:
        """The best passage, the first of equals; ``None`` where no passage shares a word with the pair."""
        answered = _content(answer)
        asked = _content(question) | answered
        shares = [
            (self._weight(asked & words) / self._weight(asked), self._weight(answered & words), -at)
            for at, words in enumerate(self._words)
            if asked & words
        ]
        whole = self._weight(answered)
        ranked = sorted(
            (((share + part / whole) / 2 if whole else share, at) for share, part, at in shares), reverse=True
        )
        if not ranked:
            return None
        (best, at), second = ranked[0], ranked[1][0] if len(ranked) > 1 else 0.0
        return Support(-at, best, best >= CLEAR and best >= AHEAD * second)

    def _weight(self, words: Iterable[str]) -> float:
        """A word in no passage weighs as one that stands in half a passage."""
        return math.fsum(math.log1p(len(self._words) / (self._in[word] or 0.5)) for word in words)


def _content(text: str) -> frozenset[str]:
    return frozenset(
        word if word.isdigit() else word[:_STEM] for word in words(text) if len(word) >= _SHORTEST or word.isdigit()
    )
