"""Reading order: without what repeats on every page, column after column, line after line.

A page has columns where a line can be drawn downwards that pieces of running text end at on the left and begin at on
the right. What crosses it (a title, a wide table) divides the page into bands; inside a band the left column is read
before the right one. Columns of short entries are a table, not columns of text.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ilab.documents.pdf.lines import rows
from ilab.documents.pdf.marks import Line, Segment
from ilab.documents.pdf.tables import bare_tables

_EDGE = 0.12  # of the page's height: where running heads and page numbers stand
_REPEATS = 3  # pages near one another with the same line at the same place make it a running head
_USUAL = 0.4  # of the pages: so many running heads at one place make it their place
_WORDY = 18  # letters that a line of running text has on average, at least
_FEWEST_LINES = 4  # of a column
_DEEPEST = 4  # columns inside columns
_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")


@dataclass(frozen=True)
class Leaf:
    """The pieces of one page, packed: many pages are kept at once. ``page`` counts from 0, ``height`` is in points."""

    page: int
    height: float
    _texts: str
    _numbers: array[float]
    _tables: tuple[Segment, ...]

    @classmethod
    def of(cls, page: int, height: float, pieces: Sequence[Segment], tables: Sequence[Segment]) -> Leaf:
        numbers = array("f")
        for piece in pieces:
            numbers.extend((piece.x0, piece.x1, piece.base, piece.size, piece.bold, piece.mono))
        return cls(page, height, "\n".join(piece.text for piece in pieces), numbers, tuple(tables))

    def pieces(self) -> list[Segment]:
        """The pieces in their order, then the tables."""
        texts = self._texts.split("\n") if self._numbers else []
        found = []
        for text, at in zip(texts, range(0, len(self._numbers), 6), strict=True):
            x0, x1, base, size, bold, mono = self._numbers[at : at + 6]
            found.append(Segment(text, x0, x1, base, size, bool(bold), bool(mono)))
        return [*found, *self._tables]


@dataclass(frozen=True)
class Heads:
    """What repeats at the edges of pages: texts with their places, and places where nearly always something does."""

    texts: frozenset[tuple[int, str]]
    places: frozenset[int]


def running_heads(leaves: Collection[Leaf], body: float) -> Heads:
    """What repeats at the upper and lower edges of pages. ``body`` is the size of ordinary text.

    Digits and Roman numbers do not count in small lines that stand apart; in larger ones they do, as chapter titles
    may begin at the same place and differ in nothing else.
    """
    found: dict[tuple[int, str], list[int]] = {}
    for leaf in leaves:
        pieces = leaf.pieces()
        for key in {_key(piece, pieces, body) for piece in _at_edges(pieces, leaf.height)}:
            found.setdefault(key, []).append(leaf.page)
    texts = {key: pages for key, pages in found.items() if _repeats(pages)}
    places: dict[int, set[int]] = {}
    for (place, _), pages in texts.items():
        places.setdefault(place, set()).update(pages)
    usual = [place for place, pages in places.items() if len(pages) >= max(2 * _REPEATS, _USUAL * len(leaves))]
    return Heads(frozenset(texts), frozenset(usual))


def without_heads(leaf: Leaf, heads: Heads, body: float) -> list[Segment]:
    """The pieces of a page without running heads, and without its bare page number."""
    pieces = leaf.pieces()
    gone = set()
    for piece in _at_edges(pieces, leaf.height):
        place, text = _key(piece, pieces, body)
        repeated = (place, text) in heads.texts or piece.text == str(leaf.page + 1)
        if repeated or (place in heads.places and _is_apart(piece, pieces, body)):
            gone.add(piece)
    return [piece for piece in pieces if piece not in gone]


def lines(pieces: list[Segment], page: int) -> Iterator[Line]:
    """The lines of a page in reading order."""
    for flow, left, right in _flows(pieces, 0):
        for row in bare_tables(rows(flow)):
            if row[0].table:
                piece = row[0]
                yield Line("", piece.x0, piece.x1, piece.base, piece.size, False, False, left, right, page, piece.table)
            else:
                yield _line(row, left, right, page)


def _key(piece: Segment, pieces: Sequence[Segment], body: float) -> tuple[int, str]:
    return round(piece.base), _DIGITS.sub("#", piece.text) if _is_apart(piece, pieces, body) else piece.text


def _is_apart(piece: Segment, pieces: Sequence[Segment], body: float) -> bool:
    """Whether a piece is small, and no other line is near."""
    near = (other for other in pieces if abs(other.base - piece.base) < 1.5 * piece.size)
    return piece.size <= 1.15 * body and all(_level(other, piece) for other in near)


def _level(one: Segment, other: Segment) -> bool:
    return abs(one.base - other.base) < 0.5 * other.size


def _at_edges(pieces: Sequence[Segment], height: float) -> list[Segment]:
    """The pieces at the upper and lower edge that room divides from the text between, if there is any."""
    ordered = sorted(pieces, key=lambda piece: piece.base)
    cuts = [at for at, (one, other) in enumerate(pairwise(ordered), 1) if other.base - one.base >= 1.5 * one.size]
    top = max((at for at in cuts if ordered[at - 1].base < _EDGE * height), default=0)
    foot = min((at for at in cuts if ordered[at].base > (1 - _EDGE) * height), default=len(ordered))
    edge = [piece for piece in ordered[:top] + ordered[max(foot, top) :] if not piece.table]
    return edge if len(edge) < len(pieces) and len(edge) <= 50 else []


def _repeats(pages: Sequence[int]) -> bool:
    """Whether enough pages follow one another, every one or every other one."""
    length, last = 0, -9
    for page in sorted(pages):
        length = length + 1 if page - last <= 2 else 1
        last = page
        if length >= _REPEATS:
            return True
    return False


_Flow = tuple[list[Segment], float, float]


def _flows(pieces: list[Segment], depth: int) -> list[_Flow]:
    """The pieces in groups to be read one after the other, each with its left and right edge."""
    if not pieces:
        return []
    left, right = min(piece.x0 for piece in pieces), _right_edge(pieces)
    bands = _best_bands(pieces, left, right) if depth < _DEEPEST else []
    if not bands:
        return [(pieces, left, right)]
    found: list[_Flow] = []
    across: list[Segment] = []
    for band in bands:
        if not band.columns:
            across += band.left + band.right
            continue
        if across:
            found.append((across, left, right))
            across = []
        found += _flows(band.left, depth + 1) + _flows(band.right, depth + 1)
    return [*found, (across, left, right)] if across else found


def _right_edge(pieces: list[Segment]) -> float:
    """Where lines of running text end: hardly any letter stands further to the right. Code and tables may."""
    texts = [piece for piece in pieces if piece.text and not piece.mono] or pieces
    left = 0.95 * sum(len(piece.text) for piece in texts)
    for piece in sorted(texts, key=lambda piece: piece.x1):
        left -= len(piece.text)
        if left <= 0:
            return piece.x1
    return texts[-1].x1


@dataclass
class _Band:
    left: list[Segment]
    right: list[Segment]
    columns: bool = False


def _best_bands(pieces: list[Segment], left: float, right: float) -> list[_Band]:
    """The division of the page by the line that most of the pieces respect, or nothing."""
    starts = Counter(round(piece.x0) for piece in pieces if piece.x0 > left + 0.15 * (right - left))
    best: list[_Band] = []
    most = 0
    for start, times in sorted(starts.most_common(8)):
        if times < _FEWEST_LINES:
            continue
        bands = _bands(pieces, float(start))
        held = sum(len(band.left) + len(band.right) for band in bands if band.columns)
        if held > most:
            best, most = bands, held
    return best


def _bands(pieces: list[Segment], gutter: float) -> list[_Band]:
    """From above to below: bands left and right of ``gutter``, and single pieces that cross it."""
    found = [_Band([], [])]
    for piece in sorted(pieces, key=lambda piece: (piece.base, piece.x0)):
        if piece.x1 <= gutter:
            found[-1].left.append(piece)
        elif piece.x0 >= gutter - 2:
            found[-1].right.append(piece)
        else:
            found += [_Band([piece], []), _Band([], [])]
    found = [band for band in found if band.left or band.right]
    for band in found:
        band.columns = _are_columns(band, _FEWEST_LINES)
    if any(band.columns for band in found):
        for band in found:
            band.columns = band.columns or _are_columns(band, 1)
    return found


def _are_columns(band: _Band, fewest: int) -> bool:
    if not band.left or not band.right:
        return False
    beside = band.right[0].base <= band.left[-1].base and band.left[0].base <= band.right[-1].base
    return beside and _is_column(band.left, fewest) and _is_column(band.right, fewest)


def _is_column(pieces: list[Segment], fewest: int) -> bool:
    texts = [piece for piece in pieces if not piece.table]
    if len(texts) < fewest or not texts:
        return False
    wide = max(piece.x1 for piece in texts) - min(piece.x0 for piece in texts)
    high = len({round(piece.base) for piece in texts})
    letters = sum(len(piece.text) for piece in texts)
    return letters >= _WORDY * len(texts) and sum(piece.x1 - piece.x0 for piece in texts) >= 0.5 * wide * high


def _line(row: list[Segment], left: float, right: float, page: int) -> Line:
    main = max(row, key=lambda piece: len(piece.text))
    mono = all(piece.mono for piece in row)
    text = row[0].text
    for piece in row[1:]:
        wide = (piece.x1 - piece.x0) / max(len(piece.text), 1)
        blanks = round((piece.x0 - row[0].x0) / wide) - len(text) if mono and wide else 1
        text += " " * min(max(blanks, 1), 80) + piece.text
    bold = all(piece.bold for piece in row)
    return Line(text, row[0].x0, row[-1].x1, main.base, main.size, bold, mono, left, right, page)
