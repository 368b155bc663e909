"""Vectors of texts without any model: hashed letters, for a machine that has downloaded nothing.

A word is the sum of itself and its character 3- to 5-grams (the subword units of Bojanowski et al., "Enriching word
vectors with subword information", TACL 2017), each hashed to one place with a sign (feature hashing: Weinberger et
al., ICML 2009). A text is the sum of its words, those that it repeats counted by the logarithm. Nothing is learnt:
``built`` and ``building`` are near, ``car`` and ``automobile`` are not. So it finds inflected, compound and misspelt
words, and texts of languages without blanks, which full-text search misses; it knows no meaning.

Equal texts give equal vectors everywhere, and no other text has a part in one: a store can grow document by document.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ilab.rag.vectors import Floats, Ints, unit

DIMENSIONS = 1024
GRAMS = (3, 4, 5)  # lengths in characters, with a mark at either end of the word
LETTERS = 64  # of a word that are looked at
WORD = re.compile(r"\w+")
# Words that stand in every text and say nothing about it: by frequency they would make all texts alike.
_FUNCTION = """
a about after all also an and any are as at be because been before being but by can could did do does doing for
from had has have having he her here him his how i if in into is it its itself just me more most my no not now of on
only or other our out over she should so some such than that the their them then there these they this those to too
under up us very was we were what when where which while who whom whose why will with would you your
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())


class HashedEmbedder:
    """See the module's text. ``identity`` changes whenever a vector could."""

    name = setting = "hashed"
    identity = f"hashed/1/{DIMENSIONS}"

    def documents(self, texts: Sequence[str]) -> Floats:
        """[texts, DIMENSIONS], rows of length 1; a text without any word gives zeros."""
        made = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in zip(made, texts, strict=True):
            words = Counter(word for word in WORD.findall(text.casefold()) if word not in FUNCTION_WORDS)
            for word, count in words.items():
                places, values = _word(word)
                np.add.at(row, places, values * np.float32(1 + np.log(count)))
        return unit(made)

    def queries(self, texts: Sequence[str]) -> Floats:
        """As :meth:`documents`: a question is a text like any other."""
        return self.documents(texts)


@lru_cache(maxsize=1 << 16)
def _word(word: str) -> tuple[Ints, Floats]:
    """Places and values of one word: it and its grams, together of length 1."""
    shown = f"<{word[:LETTERS]}>"
    grams = {shown[at : at + size] for size in GRAMS for at in range(len(shown) - size + 1)} | {shown}
    hashes = np.array([zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in sorted(grams)], dtype=np.int64)
    signs = np.where((hashes >> 20) & 1, 1.0, -1.0).astype(np.float32)
    return hashes % DIMENSIONS, signs / np.float32(np.sqrt(len(hashes)))
