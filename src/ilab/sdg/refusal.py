"""Answers that teach nothing: a teacher that refuses, speaks of itself, leaves a template unfilled or says nothing.

Rules, not a model: phrases at the place where they mean what they seem to. To refuse a good answer costs a sample, to
keep a bad one teaches it, so a phrase does not count where the question asks for it, where it stands in quotation
marks, where the passage itself has it, or where the leaf's own seed answers do the same. Rows that a flow makes to
have no answer (column ``unanswerable``) may say so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ilab.data import Leaf, Rejected
from ilab.sdg.made import Made
from ilab.sdg.refusal_phrases import ABOUT_TEMPLATES, PATTERNS, TAGS, UNFILLED_PART
from ilab.sdg.text import normal

REFUSAL = "refusal"
SHOWN = 80  # characters of the answer in a reason

_QUOTES = "\"'“‘«„`"


def drop_refusals(made: Sequence[Made], leaves: Iterable[Leaf]) -> tuple[list[Made], list[Rejected]]:
    """``made`` without the written pairs whose answers (or questions) say nothing."""
    usual = {leaf.path: _usual(leaf) for leaf in leaves}
    kept, dropped = [], []
    for one in made:
        fault = find_fault(one, usual.get(one.sample.leaf, {})) if one.is_written_pair else None
        if fault is None:
            kept.append(one)
        else:
            dropped.append(one.refuse(REFUSAL, fault))
    return kept, dropped


def find_fault(one: Made, usual: Mapping[str, bool] | None = None) -> str | None:
    """What is wrong with a pair, as ``kind: what shows it``, or None. ``usual`` are faults that the leaf teaches."""
    source = f"{one.source}\n{one.context or ''}"
    for kind, shown in _faults(one.question, one.answer, source):
        said = kind in ("not in the text", "refusal")
        if not (one.unanswerable and said) and not (usual or {}).get(kind):
            return f"{kind}: {' '.join(shown.split())[:SHOWN]}"
    return None


def _faults(question: str, answer: str, source: str) -> Iterable[tuple[str, str]]:
    tags = TAGS.search(answer)
    if not re.search(r"\w", TAGS.sub(" ", answer)) and (tags or not answer.strip()):
        if not tags or tags.group().casefold() not in question.casefold():
            yield "only tags", answer or "nothing at all"
        return
    asked, said = _plain(question), _plain(answer)
    if normal(answer) == normal(question) or normal(answer) == f"question {normal(question)}":
        yield "repeats the question", answer
    given = _plain(source)
    for kind, (shows, asks) in PATTERNS.items():
        found = shows.search(said)
        if found and not asks.search(asked) and not _is_quoted(said, found.start(), given, found.group()):
            yield kind, said[found.start() :].strip()
    for text in (question, answer):
        unfilled = UNFILLED_PART.search(text)
        if unfilled and not ABOUT_TEMPLATES.search(asked) and unfilled.group() not in source:
            yield "unfilled template", unfilled.group()


def _is_quoted(said: str, at: int, given: str, phrase: str) -> bool:
    """Whether the phrase is somebody else's: in quotation marks, or in the passage word for word."""
    quoted = said[:at].rstrip(" ")[-1:] in tuple(_QUOTES) or said[at : at + 1] in tuple(_QUOTES)
    return quoted or phrase.strip(" ,.:;!") in given


def _usual(leaf: Leaf) -> dict[str, bool]:
    """The faults that the leaf's own seed examples show: there they are what is taught."""
    found: dict[str, bool] = defaultdict(bool)
    for seed in leaf.seeds:
        for pair in seed.pairs:
            found |= {kind: True for kind, _ in _faults("", pair.answer, "")}
            found |= {kind: True for kind, _ in _faults(pair.question, pair.answer, "")}
    return found


def _plain(text: str) -> str:
    """``text`` in lower case, on one line, with straight apostrophes."""
    return re.sub(r"\s", " ", text.casefold().replace("’", "'").replace("ʼ", "'"))
