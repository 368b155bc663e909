"""Text that a document's author may have meant for a model and not for a reader: told, left out, or refused.

    Converted ──▶ characters nobody sees ──▶ passages that speak to a model ──▶ Converted, flags

Documents come from anywhere, and what stands in them is read by a teacher and learned by a student. Text that the
converter left out because nobody sees it, and invisible characters, are never part of a document; under ``warn`` and
``drop`` they are told. A visible passage that speaks to a model stays under ``warn``; under ``drop`` the paragraph,
list item, table row or line of code that holds it goes. Under ``fail`` a document with any of these is refused.

A list of phrasings finds what is common, not everything, and a page *about* prompt injection is flagged as well.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from ilab.data import Flag, FlagKind
from ilab.documents.converted import Converted
from ilab.documents.instructions import speaking_to_models
from ilab.documents.invisible import described, unseen
from ilab.documents.markdown import Block, blocks, is_list_item, lines
from ilab.documents.policy import PARAMETER, Policy, Word
from ilab.documents.text import clean
from ilab.errors import InputError

__all__ = ["Policy", "inspect"]

MOST_FLAGS = 20  # of one kind in one document; what is more is counted
EXCERPT = 80  # characters
_IN_WORDS: dict[FlagKind, str] = {
    "hidden-text": "text that no reader sees",
    "instruction": "text that speaks to a model",
    "control-character": "control characters",
    "invisible-character": "invisible characters",
}

_LINE_END = re.compile(r"\r\n?|\n")

Span = tuple[int, int]
Place = Callable[[int], str]  # where an offset in a text stands, for people


def inspect(converted: Converted, source: str, policy: Word, raw: str = "") -> tuple[Converted, tuple[Flag, ...]]:
    """``converted`` as it may be used, and what was found in it.

    ``raw`` is the file's own text where the file is text: then invisible characters that the converter already took
    out are found, too, and places are lines of the file; otherwise they are pages, or lines of the Markdown. Raises
    ``InputError`` (without ``where``) under ``fail``.
    """
    told = [
        Flag(kind=one.kind, source=source, place=one.place, excerpt=excerpt(one.text), action="left out")
        for one in converted.hidden
    ]
    told += _characters(converted, source, raw)
    seen = _without(converted, [(found.start, found.end) for found in unseen(converted.text)])
    passages = list(speaking_to_models(seen.text))
    told += _passages(seen, passages, Flag(kind="instruction", source=source, place="", excerpt="", action="kept"), raw)
    if policy == "fail" and told:
        raise _refusal(told, source)
    if policy == "drop" and passages:
        seen = _without(seen, _units(seen.text, passages))
        told = [flag.model_copy(update={"action": "left out"}) for flag in told]
    return seen, tuple(_capped(told))


def excerpt(text: str) -> str:
    """At most 80 characters of ``text`` on one line, safe to print: a dot for each that is not printable."""
    line = " ".join(text[: 8 * EXCERPT].split())
    shown = "".join(char if char.isprintable() else "·" for char in line)
    return shown if len(shown) <= EXCERPT else shown[: EXCERPT - 1] + "…"


def _characters(converted: Converted, source: str, raw: str) -> list[Flag]:
    """One flag for each place and kind of invisible character."""
    text = raw or converted.text
    everything = list(unseen(text))
    if not everything:
        return []
    place = _place(Converted(raw), raw) if raw else _place(converted, "")
    found: dict[tuple[str, FlagKind], list[Span]] = {}
    for one in everything:
        found.setdefault((place(one.start), one.kind), []).append((one.start, one.end))
    flags = []
    for (at, kind), spans in found.items():
        names = described("".join(text[start:end] for start, end in spans[:MOST_FLAGS]))
        shown = excerpt(f"{names} in “{_plain(_around(text, spans[0]))}”")
        flags.append(Flag(kind=kind, source=source, place=at, excerpt=shown, action="left out"))
    return flags


def _passages(seen: Converted, passages: Sequence[Span], like: Flag, raw: str) -> list[Flag]:
    """A flag as ``like`` for each line or page that holds such passages."""
    if not passages:
        return []
    place = _place(seen, raw)
    firsts: dict[str, Span] = {}
    for start, end in passages:
        firsts.setdefault(place(start), (start, end))
    return [
        like.model_copy(update={"place": at, "excerpt": excerpt(_around(seen.text, span))})
        for at, span in firsts.items()
    ]


def _around(text: str, span: Span) -> str:
    """The span with a few words before it and the rest of its line."""
    line = text.rfind("\n", 0, span[0]) + 1
    begin = line
    if span[0] - line > EXCERPT // 4:
        begin = text.find(" ", span[0] - EXCERPT // 4, span[0]) + 1 or span[0]
    end = text.find("\n", span[1])
    return ("…" if begin > line else "") + text[begin : len(text) if end < 0 else min(end, span[1] + EXCERPT)]


def _capped(flags: Sequence[Flag]) -> Iterator[Flag]:
    """The first of each kind, and how many more there are."""
    counts: Counter[FlagKind] = Counter()
    for flag in flags:
        counts[flag.kind] += 1
        if counts[flag.kind] <= MOST_FLAGS:
            yield flag
    for kind, count in counts.items():
        if count > MOST_FLAGS:
            last = [flag for flag in flags if flag.kind == kind][MOST_FLAGS]
            more = f"and {count - MOST_FLAGS:,} more places with {_IN_WORDS[kind]}"
            yield last.model_copy(update={"excerpt": more, "place": f"{last.place} on"})


def _refusal(flags: Sequence[Flag], source: str) -> InputError:
    firsts = {flag.kind: flag for flag in reversed(flags)}
    counts = Counter(flag.kind for flag in flags)
    told = "; ".join(
        f"{_IN_WORDS[kind]} ({counts[kind]} place{'s' if counts[kind] > 1 else ''}, first {one.place}: “{one.excerpt}”)"
        for kind, one in sorted(firsts.items())
    )
    hint = f"read it; to take it all the same, put a rule for it first: -p {PARAMETER}='{source}=warn, …'"
    return InputError(f"is refused by the policy `fail`: {told}", hint=hint)


def _plain(text: str) -> str:
    """``text`` without the invisible characters."""
    return _without(Converted(text), [(found.start, found.end) for found in unseen(text)]).text


def _place(converted: Converted, raw: str) -> Place:
    """Page, line of the file ``raw``, or line of the Markdown, of an offset in ``converted.text``."""
    if converted.pages:
        return lambda offset: f"page {max(bisect_right(converted.pages, offset), 1)}"
    starts = [0, *(match.end() for match in _LINE_END.finditer(converted.text))]
    if not raw:
        return lambda offset: f"line {bisect_right(starts, offset)} of the text"
    numbers = _origins(converted.text, raw)
    return lambda offset: f"line {numbers[bisect_right(starts, offset) - 1]}"


def _origins(text: str, raw: str) -> Sequence[int]:
    """For each line of ``text`` the line of ``raw`` it was made from: the next equal one, else the last one known."""
    written = _LINE_END.split(raw)
    if text == raw:
        return range(1, len(written) + 1)
    known: dict[str, list[int]] = {}
    for number, line in enumerate(written, 1):
        known.setdefault(_plain(clean(line)).strip(), []).append(number)
    at, numbers = 0, []
    for line in text.split("\n"):
        same = known.get(line.strip(), [])
        following = bisect_right(same, at)
        at = same[following] if following < len(same) and line.strip() else at
        numbers.append(max(at, 1))
    return numbers


def _without(converted: Converted, spans: Sequence[Span]) -> Converted:
    """``converted`` without the ``spans`` of its text (in order, not overlapping), its pages moved along."""
    if not spans:
        return converted
    text, at = converted.text, 0
    kept: list[str] = []
    gone: list[int] = []  # characters left out up to the end of each span
    for start, end in spans:
        kept.append(text[at:start])
        gone.append((gone[-1] if gone else 0) + end - start)
        at = end
    short = "".join([*kept, text[at:]])
    if short.endswith("\n\n"):
        short = short.rstrip("\n") + "\n"
    short = short if short.strip() else ""
    lead = len(short) - len(short.lstrip("\n"))  # of a first paragraph that is gone
    ends = [end for _, end in spans]
    pages = []
    for page in converted.pages:
        before = bisect_right(ends, page)
        cut = max(page - spans[before][0], 0) if before < len(spans) else 0  # the page begins inside what goes
        pages.append(max(min(page - cut - (gone[before - 1] if before else 0), len(short)) - lead, 0))
    return replace(converted, text=short[lead:], pages=tuple(pages))


def _units(text: str, passages: Sequence[Span]) -> list[Span]:
    """What goes with the ``passages``: whole lines, with the blank lines that would stand twice."""
    starts = [start for start, _ in passages]
    gone: list[Span] = []
    for start, end, unit in _parts(text):
        first = bisect_left(starts, end) - 1  # the last passage that begins before the part's end
        if first >= 0 and passages[first][1] > start:
            if gone and unit[0] <= gone[-1][1]:
                gone[-1] = (gone[-1][0], max(gone[-1][1], unit[1]))
            else:
                gone.append(unit)
    return [(start, _behind_blanks(text, start, end)) for start, end in gone]


def _behind_blanks(text: str, start: int, end: int) -> int:
    """``end``, moved behind the blank lines that follow, if a blank line or nothing stands before ``start``."""
    if start and not text.endswith("\n\n", 0, start):
        return end
    while end < len(text) and text[end] == "\n":
        end += 1
    return end


def _parts(text: str) -> Iterator[tuple[int, int, Span]]:
    """The smallest parts of ``text`` that can go: start and end of a part, and the span that goes with it."""
    for block in blocks(text):
        rows = list(lines(text, block.start, block.end))
        if block.kind in ("table", "fence"):
            whole = 2 if block.kind == "table" else 1  # without these lines the others are no table or code
            for number, row in enumerate(rows):
                span = (block.start, block.end) if number < whole else (row.start, row.end)
                yield row.start, row.end, span
        else:
            yield from _items(block, [row.start for row in rows if is_list_item(row.text)])


def _items(block: Block, begins: Sequence[int]) -> Iterator[tuple[int, int, Span]]:
    """The list items of a block, with what stands before them; a heading or a plain paragraph is one part."""
    cuts = [block.start, *(begin for begin in begins if begin > block.start and block.kind == "paragraph"), block.end]
    for start, end in pairwise(cuts):
        yield start, end, (start, end)
