"""One normal form of text for comparing questions and answers: what differs only in it is the same."""

from __future__ import annotations

import re
import unicodedata

WORD = re.compile(r"\w+(?:[.,:]\w+)*")


def words(text: str) -> list[str]:
    """The words of ``text``: Unicode NFKC, case-folded, without punctuation. Numbers keep their inner marks."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def normal(text: str) -> str:
    """``text`` as its words with single spaces; where it has none (an answer of symbols), stripped as it is."""
    return " ".join(words(text)) or text.strip()
