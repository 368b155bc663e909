"""Tables: which of them only arrange a page, and how cells with spans become rows of a Markdown table.

A cell that spans several columns or rows is written once, at its first place, and blank at the others: so every word
stands there exactly once. Blank cells are limited, since a few bytes of HTML can ask for millions of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lxml.etree import _Element, iterwalk

from ilab.documents.html.blocks import Table
from ilab.documents.html.elements import name_of
from ilab.documents.html.hidden import Unseen
from ilab.documents.html.main import is_admonition, is_furniture

_SPARE_BLANKS = 10_000
_STRUCTURE = frozenset({"pre", "table", "h1", "h2", "h3", "h4", "h5", "h6"})


@dataclass
class Grid:
    """The rows of one table while they are read."""

    rows: list[list[str]] = field(default_factory=list)
    heads: list[bool] = field(default_factory=list)  # whether the row holds nothing but header cells
    loose: list[str] = field(default_factory=list)  # caption and stray text, which stand before the table
    _blank: dict[int, int] = field(default_factory=dict)  # column to rows still to be left blank, this one included
    _next: dict[int, int] = field(default_factory=dict)
    _spare: int = _SPARE_BLANKS

    def row(self) -> None:
        """Begin a row."""
        self.rows.append([])
        self.heads.append(True)
        self._spare -= len(self._next)
        self._blank = self._next if self._spare > 0 else {}
        self._next = {column: left - 1 for column, left in self._blank.items() if left > 1}

    def cell(self, text: str, element: _Element) -> None:
        """Add ``text`` where ``element`` stands, after the cells that reach down into this row."""
        if not self.rows:
            self.row()
        row = self.rows[-1]
        while len(row) in self._blank:
            row.append("")
        across = min(_span(element, "colspan"), max(self._spare, 1))
        down = _span(element, "rowspan")
        self._spare -= across - 2  # a cell earns more than it takes, so big tables keep their shape
        if down > 1:
            self._next.update(dict.fromkeys(range(len(row), len(row) + across), down - 1))
        row.extend([text, *[""] * (across - 1)])
        self.heads[-1] = self.heads[-1] and name_of(element) == "th"

    def table(self) -> Table | None:
        """The table with its header row, an empty one where the page has none; ``None`` when no cell holds text."""
        kept = [(row, head) for row, head in zip(self.rows, self.heads, strict=True) if any(row)]
        if not kept:
            return None
        rows = [row for row, _ in kept] if kept[0][1] else [[], *(row for row, _ in kept)]
        width = max(len(row) for row in rows)
        header = (*rows[0], *[""] * (width - len(rows[0])))
        return Table((header, *(tuple(row) for row in rows[1:])))


def _span(element: _Element, name: str) -> int:
    found = re.fullmatch(r"\s*0*([1-9]\d{0,2})\s*", element.get(name) or "")
    return int(found[1]) if found else 1


@dataclass
class _Seen:
    """What is known of an open table."""

    element: _Element
    cells: int = 0
    widest: int = 0
    headed: bool = False
    structured: bool = False


def layout_tables(root: _Element, unseen: Unseen, *, whole: bool) -> frozenset[_Element]:
    """The tables that only arrange blocks: by their role, with one cell a row, or with headings, code or other tables
    inside cells and no header cell anywhere."""
    found: set[_Element] = set()
    tables: list[_Seen] = []
    walk = iterwalk(root, events=("start", "end"))
    for event, element in walk:
        name = name_of(element)
        if event == "end":
            if tables and element is tables[-1].element:
                _judge(tables.pop(), found)
            continue
        if element is not root and (element in unseen.gone or (not whole and is_furniture(element, name))):
            walk.skip_subtree()
            continue
        if tables:
            _note(tables[-1], name)
        if name == "table":
            tables.append(_Seen(element))
    return frozenset(found)


def _note(table: _Seen, name: str) -> None:
    if name == "tr":
        table.cells = 0
    elif name in ("td", "th"):
        table.cells += 1
        table.widest = max(table.widest, table.cells)
    table.headed = table.headed or name in ("th", "thead", "caption")
    table.structured = table.structured or name in _STRUCTURE


def _judge(table: _Seen, found: set[_Element]) -> None:
    parent = table.element.getparent()
    arranged = table.element.get("role") in ("presentation", "none") or (parent is not None and is_admonition(parent))
    if arranged or (not table.headed and (table.widest <= 1 or table.structured)):
        found.add(table.element)
