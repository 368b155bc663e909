"""From the words of a page to pieces of lines, and from pieces of lines to rows.

A piece (``Segment``) ends where a gap is wider than letters are high: that is where another column or a table cell
begins. Words come in the order of the file, which is nearly always the order inside a line; the place of a line on the
page is taken from its coordinates alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ilab.documents.pdf.marks import Segment, Word

_GAP = 1.0  # of the size: a wider one divides a line
_TOUCH = 0.5  # of the size: pieces that are no further apart, though not written one after the other, are one
_RISE = 0.35  # of the size: letters that stand higher or lower by more are of another line
_SCRIPT = 0.6  # the same for smaller letters close by: sub- and superscripts
_RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_WIDE = r"\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"  # scripts without blanks between words
_BETWEEN_WIDE = re.compile(rf"(?<=[{_WIDE}]) (?=[{_WIDE}])")


def segments(words: Iterable[Word]) -> list[Segment]:
    """The pieces of lines that ``words`` make, in their order."""
    found: list[Segment] = []
    group: list[Word] = []
    for word in words:
        if group and _is_copy(group[-1], word):
            continue
        if group and not _follows(group, word):
            found.append(joined(group))
            group = []
        group.append(word)
    if group:
        found.append(joined(group))
    return found


def joined(words: Sequence[Word]) -> Segment:
    """One piece made of words. Words drawn out of order are put right, except where script runs to the left."""
    if not any(_RIGHT_TO_LEFT.search(word.text) for word in words):
        words = sorted(words, key=lambda word: word.x0)
    text = "".join(word.text if word.glued or not index else f" {word.text}" for index, word in enumerate(words))
    letters = sum(len(word.text) for word in words)
    sizes: dict[float, int] = {}
    for word in words:
        sizes[word.size] = sizes.get(word.size, 0) + len(word.text)
    main = max(words, key=lambda word: (sizes[word.size], word.size))
    return Segment(
        text=_BETWEEN_WIDE.sub("", text),
        x0=min(word.x0 for word in words),
        x1=max(word.x1 for word in words),
        base=main.base,
        size=main.size,
        bold=sum(len(word.text) for word in words if word.bold) >= 0.9 * letters,
        mono=sum(len(word.text) for word in words if word.mono) >= 0.9 * letters,
    )


def rows(pieces: Iterable[Segment]) -> list[list[Segment]]:
    """``pieces`` by line, from above to below, each line from left to right. Pieces that touch become one."""
    found: list[list[Segment]] = []
    for piece in sorted(pieces, key=lambda piece: (piece.base, piece.x0)):
        last = found[-1][0] if found else None
        same = last and not last.table and not piece.table
        if last and same and piece.base - last.base <= _RISE * max(last.size, piece.size):
            found[-1].append(piece)
        else:
            found.append([piece])
    return [_merged(sorted(row, key=lambda piece: piece.x0)) for row in found]


def _merged(row: list[Segment]) -> list[Segment]:
    """``row`` with neighbours joined between which no column can be; a bullet joins what it stands before."""
    found = [row[0]]
    for piece in row[1:]:
        last = found[-1]
        gap = piece.x0 - last.x1
        if gap <= _TOUCH * max(last.size, piece.size) or (len(found) == 1 and is_marker(last.text) and gap < 60):
            found[-1] = merged(last, piece)
        else:
            found.append(piece)
    return found


def merged(one: Segment, other: Segment) -> Segment:
    """Two pieces of one line as one."""
    main = one if len(one.text) >= len(other.text) else other
    return main._replace(
        text=_BETWEEN_WIDE.sub("", f"{one.text} {other.text}"),
        x0=one.x0,
        x1=max(one.x1, other.x1),
        bold=one.bold and other.bold,
        mono=one.mono and other.mono,
    )


_LEADERS = re.compile(r"(?:\s?[.·…]){4,}\s*")


def has_leaders(text: str) -> bool:
    """Whether dots lead to a page number at the end of a line, as in a table of contents."""
    found = _LEADERS.search(text)
    return found is not None and len(text) - found.end() <= 8


def without_leaders(text: str) -> str:
    """A line with such dots as one sign."""
    return _LEADERS.sub(" … ", text) if has_leaders(text) else text


_BULLETS = "•●▪◦‣∙·○■□➢➤►✓–—\uf0b7\uf0a7\uf0d8\u2043\u2212"
_MARKER = re.compile(rf"(?:[{_BULLETS}*o-]|\(?(?:\d{{1,3}}|[a-zA-Z]|[ivx]{{1,5}})[.)])$")


def is_marker(text: str) -> bool:
    """Whether ``text`` is nothing but a bullet or the number of a list item."""
    return _MARKER.match(text) is not None


def bullets() -> str:
    """The letters that are used as bullets and for nothing else at the start of a line."""
    return _BULLETS


def _is_copy(last: Word, word: Word) -> bool:
    """A word drawn twice with a small offset, to look bold."""
    return last.text == word.text and abs(last.x0 - word.x0) < 0.1 * word.size and abs(last.base - word.base) < 1


def _follows(group: Sequence[Word], word: Word) -> bool:
    last = group[-1]
    size = max(last.size, word.size)
    gap = max(word.x0 - last.x1, last.x0 - word.x1)
    if gap > _GAP * size or gap < -0.5 * size:
        return False
    apart = abs(word.base - last.base)
    if apart <= _RISE * min(last.size, word.size):
        return True
    script = abs(last.size - word.size) > 0.1 * size and gap < 0.3 * size
    return script and apart <= _SCRIPT * size
