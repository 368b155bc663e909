"""Answers as words: what counts as the same text, and how much two texts share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# Words that carry no fact: articles, auxiliaries, prepositions, pronouns and question words.
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the and or but of in on at to for from by with without into over under as than then that this these "
        "those is are was were be been being am do does did has have had can could will would shall should may "
        "might must it its he she his her they them their we us our you your i me my not no what which who whom "
        "whose when where why how many much there here one also",
    )
)


def plain(text: str) -> str:
    """White space collapsed and stripped; nothing else is forgiven."""
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """Lower-case word tokens, in order."""
    return re.findall(r"\w+", text.lower())


def content_words(text: str) -> frozenset[str]:
    """The words of ``text`` that can carry a fact."""
    return frozenset(words(text)) - _FUNCTION_WORDS


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over lower-case word tokens (SQuAD: Rajpurkar et al. 2016)."""
    given, wanted = Counter(words(answer)), Counter(words(reference))
    shared = sum((given & wanted).values())
    if not shared:
        return float(not given and not wanted)
    precision, recall = shared / sum(given.values()), shared / sum(wanted.values())
    return 2 * precision * recall / (precision + recall)


def preferred(totals: Sequence[float], texts: Sequence[str], per: str = "bytes") -> int:
    """The place of the option that a model prefers, the first of equals.

    ``totals`` are summed log-probabilities (nats), ``per`` what they are divided by: ``bytes`` or ``characters`` of the
    option's text, or nothing (``sum``), which favours short options. The last three are ``acc_bytes``, ``acc_norm`` and
    ``acc`` of lm-evaluation-harness.
    """
    rates = [total / _length(text, per) for total, text in zip(totals, texts, strict=True)]
    return max(range(len(rates)), key=lambda option: (rates[option], -option))


def _length(text: str, per: str) -> int:
    sizes = {"bytes": len(text.encode()), "characters": len(text), "sum": 1}
    return max(sizes[per], 1)
