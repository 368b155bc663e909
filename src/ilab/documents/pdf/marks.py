"""What stands on a page of a PDF, as plain data: words, ruled lines, tables.

Coordinates are points from the upper left corner of the page as a reader sees it, ``y`` downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Word(NamedTuple):
    """A run of letters without a blank. ``base`` is its baseline; ``glued`` if no blank stands before it."""

    text: str
    x0: float
    x1: float
    base: float
    size: float
    bold: bool = False
    mono: bool = False
    glued: bool = False


class Rule(NamedTuple):
    """A horizontal (``y0 == y1``) or vertical (``x0 == x1``) line."""

    x0: float
    y0: float
    x1: float
    y1: float


class Segment(NamedTuple):
    """Words of one line without a wide gap between them, or a whole table."""

    text: str
    x0: float
    x1: float
    base: float
    size: float
    bold: bool = False
    mono: bool = False
    table: tuple[tuple[str, ...], ...] = ()


class Line(NamedTuple):
    """A line of text (or a table) in reading order. ``left`` and ``right`` are the edges of its column."""

    text: str
    x0: float
    x1: float
    base: float
    size: float
    bold: bool
    mono: bool
    left: float
    right: float
    page: int
    table: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Sheet:
    """One page as read: ``hidden`` are texts that nobody sees, with the reason."""

    width: float
    height: float
    words: list[Word]
    rules: list[Rule]
    hidden: list[tuple[str, str]]
