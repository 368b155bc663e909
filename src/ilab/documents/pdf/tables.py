"""Tables on a page: ruled ones from the lines that are drawn, bare ones from text that stands in columns.

Ruled: level and upright rules that meet make a grid. Where no rule stands between two fields they are one cell, and
its text goes into the first of them. Bare: at least three lines below one another whose pieces fall into the same two
or more columns, with nothing across.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, takewhile

from ilab.documents.pdf.lines import has_leaders, rows, segments
from ilab.documents.pdf.marks import Rule, Segment, Word

_NEAR = 3.0  # points: rules that near are one
_MOST_RULES = 400  # in one direction on one page; more is a drawing
_MOST_COLUMNS, _MOST_ROWS = 40, 300
_FEWEST_ROWS = 3  # of a bare table
_FILLED = 0.35  # of the cells: an emptier grid is a drawing
_DENSE = 0.6  # of the cells of a bare table
_FAR = 3.0  # sizes between two lines of one
_APART = 2.0  # points between two columns


def ruled_tables(words: Sequence[Word], rules: Sequence[Rule]) -> tuple[list[Segment], list[Word]]:
    """The ruled tables of a page as pieces, and the words outside of them."""
    level = _lines((rule.y0, rule.x0, rule.x1) for rule in rules if rule.y0 == rule.y1)
    upright = _lines((rule.x0, rule.y0, rule.y1) for rule in rules if rule.x0 == rule.x1)
    if not 2 <= len(level) <= _MOST_RULES or not 1 <= len(upright) <= _MOST_RULES:
        return [], list(words)
    tables, rest = [], list(words)
    for grid_level, grid_upright in _grids(level, upright):
        table, rest = _Grid(grid_level, grid_upright).read(rest)
        tables += table
    return tables, rest


def bare_tables(lines: list[list[Segment]]) -> list[list[Segment]]:
    """``lines`` (pieces from left to right, line by line) with runs that stand in columns replaced by tables."""
    found: list[list[Segment]] = []
    at = 0
    while at < len(lines):
        start, end, table = _next_table(lines, at)
        found += lines[at:start] + ([[table]] if table else [])
        at = end
    return found


def _next_table(lines: list[list[Segment]], at: int) -> tuple[int, int, Segment | None]:
    """Start, end and table of the run at ``at``, whose first two lines may be titles across; else its end alone."""
    reach = at + 1
    for start in range(at, at + 3):
        if start >= min(reach, len(lines)):
            break
        end, columns = _run(lines, start)
        table = _table(lines[start:end], columns)
        if table:
            return start, end, table
        reach = max(reach, end)
    return reach, reach, None


# A rule as (where it stands, from, to), whether level or upright.
_Ruling = tuple[float, float, float]


def _lines(rules: Iterable[_Ruling]) -> list[_Ruling]:
    """``rules`` of one direction with those joined that continue or double one another."""
    found: list[_Ruling] = []
    for place, start, end in sorted(rules):
        close = takewhile(lambda index: place - found[index][0] <= _NEAR, reversed(range(len(found))))  # noqa: B023
        same = (at for at in close if start <= found[at][2] + _NEAR and end >= found[at][1] - _NEAR)
        at = next(same, None)
        if at is not None:
            found[at] = (found[at][0], min(start, found[at][1]), max(end, found[at][2]))
        elif len(found) > _MOST_RULES:
            break
        else:
            found.append((place, start, end))
    return found


def _grids(level: list[_Ruling], upright: list[_Ruling]) -> list[tuple[list[_Ruling], list[_Ruling]]]:
    """Rules that meet, directly or through others, as groups; from above to below."""
    group = list(range(len(level) + len(upright)))

    def root(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for i, (y, x0, x1) in enumerate(level):
        for j, (x, y0, y1) in enumerate(upright):
            if x0 - _NEAR <= x <= x1 + _NEAR and y0 - _NEAR <= y <= y1 + _NEAR:
                group[root(len(level) + j)] = root(i)
    found: dict[int, tuple[list[_Ruling], list[_Ruling]]] = {}
    for i, rule in enumerate(level):
        found.setdefault(root(i), ([], []))[0].append(rule)
    for j, rule in enumerate(upright):
        found.setdefault(root(len(level) + j), ([], []))[1].append(rule)
    return [grid for grid in found.values() if len(grid[0]) >= 2 and grid[1]]


class _Grid:
    """The fields between rules that meet."""

    def __init__(self, level: list[_Ruling], upright: list[_Ruling]) -> None:
        self.level, self.upright = level, upright
        ends = [min(rule[1] for rule in level), max(rule[2] for rule in level)]
        self.xs = _places([*(rule[0] for rule in upright), *ends])
        self.ys = _places([*(rule[0] for rule in level), *(end for rule in upright for end in rule[1:])])
        self.columns, self.rows = len(self.xs) - 1, len(self.ys) - 1

    def read(self, words: list[Word]) -> tuple[list[Segment], list[Word]]:
        """The table with the words inside it, and the other words. No table where the grid is none."""
        if not (2 <= self.columns <= _MOST_COLUMNS and 2 <= self.rows <= _MOST_ROWS):
            return [], words
        first = self._cells()
        held: dict[tuple[int, int], list[Word]] = {}
        rest = []
        for word in words:
            field = self._field(word)
            if field is None:
                rest.append(word)
            else:
                held.setdefault(first[field], []).append(word)
        if len(held) < max(3, _FILLED * len(set(first.values()))):
            return [], words
        cells = [[_text(held.get((row, column), [])) for column in range(self.columns)] for row in range(self.rows)]
        size = max(word.size for part in held.values() for word in part)
        return [_piece(cells, self.xs[0], self.xs[-1], self.ys[0] + size, size)], rest

    def _field(self, word: Word) -> tuple[int, int] | None:
        x, y = (word.x0 + word.x1) / 2, word.base - 0.3 * word.size
        if not (self.xs[0] <= x <= self.xs[-1] and self.ys[0] <= y <= self.ys[-1]):
            return None
        column = next(index for index in range(self.columns) if x <= self.xs[index + 1])
        row = next(index for index in range(self.rows) if y <= self.ys[index + 1])
        return row, column

    def _cells(self) -> dict[tuple[int, int], tuple[int, int]]:
        """For every field the first field of its cell: the upper left of those with no rule between them."""
        first: dict[tuple[int, int], tuple[int, int]] = {}
        for row in range(self.rows):
            y = (self.ys[row] + self.ys[row + 1]) / 2
            for column in range(self.columns):
                x = (self.xs[column] + self.xs[column + 1]) / 2
                above = first.get((row - 1, column))
                left = first.get((row, column - 1))
                if left and not _crosses(self.upright, self.xs[column], y):
                    first[row, column] = left
                elif above and not _crosses(self.level, self.ys[row], x):
                    first[row, column] = above
                else:
                    first[row, column] = (row, column)
        return first


def _places(values: Iterable[float]) -> list[float]:
    """``values`` sorted, those that are near one another once."""
    found: list[float] = []
    for value in sorted(values):
        if not found or value - found[-1] > _NEAR:
            found.append(value)
    return found


def _crosses(rules: list[_Ruling], place: float, at: float) -> bool:
    return any(abs(rule[0] - place) <= _NEAR and rule[1] - _NEAR <= at <= rule[2] + _NEAR for rule in rules)


def _text(words: list[Word]) -> str:
    """The text of a cell, its lines joined."""
    text = ""
    for row in rows(segments(words)):
        text = joined_text(text, " ".join(piece.text for piece in row))
    return text


def joined_text(before: str, text: str) -> str:
    """Two lines of a cell as one; a hyphen that divided a word goes."""
    if before.endswith("-") and before[-2:-1].isalpha() and text[:1].islower():
        return before[:-1] + text
    return f"{before} {text}".strip()


def _piece(cells: Sequence[Sequence[str]], x0: float, x1: float, base: float, size: float) -> Segment:
    """A table as a piece. Rows and columns without any text are left out."""
    kept = [row for row in cells if any(row)]
    columns = [column for column in range(len(kept[0])) if any(row[column] for row in kept)]
    table = tuple(tuple(row[column] for column in columns) for row in kept)
    return Segment("", x0, x1, base, size, table=table)


class _Columns:
    """The places of columns as lines are added: the stretches that their pieces cover together."""

    def __init__(self) -> None:
        self.edges: list[tuple[float, float]] = []

    def with_line(self, pieces: list[Segment]) -> list[tuple[float, float]]:
        """The columns there would be with one more line."""
        found: list[tuple[float, float]] = []
        for x0, x1 in sorted([*self.edges, *((piece.x0, piece.x1) for piece in pieces)]):
            if found and x0 < found[-1][1] + _APART:
                found[-1] = (found[-1][0], max(found[-1][1], x1))
            else:
                found.append((x0, x1))
        return found

    def of(self, piece: Segment) -> int:
        """The column that a piece stands in."""
        return next(at for at, edge in enumerate(self.edges) if piece.x0 <= edge[1])


def _run(lines: list[list[Segment]], start: int) -> tuple[int, _Columns]:
    """The end of the run of lines from ``start`` that could be a bare table, and its columns.

    It begins with a line of several pieces. A lone piece belongs to it where it fits into one column: it goes on with
    the cell above. A line that would leave but one column ends the run.
    """
    columns = _Columns()
    end = start
    while end < min(len(lines), start + _MOST_ROWS):
        row = lines[end]
        if row[0].table or all(piece.mono for piece in row) or len(row) > _MOST_COLUMNS:
            break
        if any(has_leaders(piece.text) for piece in row):
            break
        if end > start and row[0].base - lines[end - 1][0].base > _FAR * max(row[0].size, 6):
            break
        edges = columns.with_line(row)
        if len(edges) < 2 or (len(row) < 2 and len(edges) != len(columns.edges)):
            break
        columns.edges = edges
        end += 1
    while end > start and len(lines[end - 1]) < 2 and columns.of(lines[end - 1][0]) == 0:
        end -= 1  # what follows the table, and is as short as its first column
    return end, columns


def _table(lines: list[list[Segment]], columns: _Columns) -> Segment | None:
    """The lines as a table, if there are enough that stand in columns."""
    if sum(1 for row in lines if len(row) > 1) < _FEWEST_ROWS or len(columns.edges) > _MOST_COLUMNS:
        return None
    cells: list[list[str]] = []
    begins = _row_starts(lines, columns)
    for pieces, begin in zip(lines, begins, strict=True):
        if begin:
            cells.append(["" for _ in columns.edges])
        for piece in pieces:
            column = columns.of(piece)
            cells[-1][column] = joined_text(cells[-1][column], piece.text)
    full = sum(1 for row in cells for cell in row if cell)
    if len(cells) < 2 or full < _DENSE * len(cells) * len(columns.edges):
        return None
    first = lines[0][0]
    return _piece(cells, columns.edges[0][0], columns.edges[-1][1], first.base, first.size)


def _row_starts(lines: list[list[Segment]], columns: _Columns) -> list[bool]:
    """For each line whether a row begins with it, or the cells above go on.

    Rows are told by the room between them if that is more than between the lines of a cell, else by their first cell.
    """
    gaps = [line[0].base - above[0].base for above, line in pairwise(lines)]
    near = 1.25 * min(gaps) + 0.5
    named = [columns.of(line[0]) == 0 for line in lines]
    tight = [name for name, gap in zip(named[1:], gaps, strict=True) if gap <= near]
    if len(tight) < len(gaps) and sum(tight) < 0.5 * len(tight):
        return [True, *(gap > near for gap in gaps)]
    return [True, *named[1:]]
