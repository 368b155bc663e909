"""From lines to Markdown: headings, paragraphs, list items, code and tables, over the ends of columns and pages.

A line goes on with the block before it unless something says that it begins a new one: more room than usual, another
size or weight, an indentation, a bullet or number, or a line above that ended though the next word would have fitted.
A paragraph goes on over a page's end when it did not end in a full stop and the next page begins in lower case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from ilab.documents.pdf.lines import bullets, has_leaders, without_leaders
from ilab.documents.pdf.marks import Line
from ilab.documents.pdf.style import Key, Look, levels

_BULLET = re.compile(rf"([{bullets()}]|[*o-](?=\s))\s*")
_NUMBER = re.compile(r"(\d{1,3}[.)])\s+(?=\S)")
_LETTER = re.compile(r"\((?:[a-z]|[ivx]{1,5}|\d{1,3})\)\s+|[a-z]\)\s+")
_ENDED = re.compile(r"[.!?:;。！？][\"')\]’”»]*$")
_MARKUP = re.compile(r"(?=#{1,6}(?:\s|$)|\||`{3}|~{3}|=+\s*$|-{2,}\s*$|[*_]{3,}\s*$)")
_LISTED = re.compile(r"(?=[*+-]\s)")
_AND = frozenset(["and", "or", "und", "oder", "bzw", "et", "ou", "y", "o", "e"])
_NARROW = 0.8  # of the size: an indentation


@dataclass
class _Block:
    """Lines that belong together. ``kind`` is settled when the block is complete."""

    kind: str  # heading | paragraph | item | code | table
    lines: list[Line]
    gap: float  # the room above, in sizes
    marker: str = ""
    texts: list[str] = field(default_factory=list)
    key: Key | None = None
    indent: int = 0

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def last(self) -> Line:
        return self.lines[-1]


@dataclass(frozen=True)
class Piece:
    """A part of a block that stands on one page."""

    page: int
    text: str


@dataclass
class Finished:
    """A block as Markdown in the parts that its pages hold; headings without their ``#``."""

    pieces: list[Piece]
    key: Key | None = None
    tight: bool = False  # no blank line before it: an item below an item


class Builder:
    """Takes the lines of a document in reading order, gives its blocks."""

    def __init__(self, look: Look, outline: dict[tuple[int, str], int]) -> None:
        self.look = look
        self.outline = outline
        self.known: dict[Key, Counter[int]] = {}
        self.done: list[Finished] = []
        self._block: _Block | None = None
        self._items: list[float] = []  # where the open lists are indented to

    def add(self, line: Line) -> None:
        """The next line."""
        block = self._block
        if block and self._goes_on(block, line):
            block.lines.append(line)
            return
        gap = self._gap(line)
        self._finish(gap)
        self._block = self._opened(line, gap)

    def blocks(self) -> list[Finished]:
        """All blocks, after the last line."""
        self._finish(9.0)
        return self.done

    def levels(self) -> dict[Key, int]:
        """The level of each kind of heading found."""
        known = {key: counts.most_common(1)[0][0] for key, counts in self.known.items()}
        return levels((block.key for block in self.done if block.key), known)

    def _gap(self, line: Line) -> float:
        last = self._block.last if self._block else None
        if last is None or not _same_column(last, line):
            return 9.0
        return (line.base - last.base) / max(line.size, 1.0)

    def _opened(self, line: Line, gap: float) -> _Block:
        if line.table:
            return _Block("table", [line], gap)
        if self.look.is_code(line):
            return _Block("code", [line], gap)
        bullet = _BULLET.match(line.text)
        if bullet and len(line.text) > bullet.end():
            return _Block("item", [line], gap, bullet.group())
        if self.look.stands_out(line) or self._outlined(line.page, line.text):
            return _Block("heading", [line], gap)
        number = _NUMBER.match(line.text) or _LETTER.match(line.text)
        return _Block("item", [line], gap, number.group()) if number else _Block("paragraph", [line], gap)

    def _goes_on(self, block: _Block, line: Line) -> bool:
        last = block.last
        if block.kind == "table" or line.table:
            return False
        if block.kind == "code":
            return self.look.is_code(line) and self._near(last, line, 2.2)
        if self.look.is_code(line) and not _is_inside(block, line):
            return False
        if abs(last.size - line.size) > 0.08 * last.size + 0.2 or block.first.bold != line.bold:
            return False
        if not _same_column(last, line):
            return block.kind != "heading" and self._flows_over(block, line)
        if not self._near(last, line, 1.5 if block.kind == "heading" else 1.3):
            return False
        if block.kind == "heading":
            return not self._outlined(last.page, self._heading(block.lines)) and len(block.lines) < 8
        return not self._begins(block, last, line)

    def _begins(self, block: _Block, last: Line, line: Line) -> bool:
        """Whether a line below ``last`` in the same column and style is the first of another block."""
        if _BULLET.match(line.text):
            return True
        early = _ends_early(last, line)
        step = _NARROW * line.size
        inside = line.x0 > block.first.x0 + step if block.kind == "item" else line.x0 > last.x0 + step
        numbered = _NUMBER.match(line.text) or _LETTER.match(line.text)
        if numbered and (early or (block.kind == "item" and abs(line.x0 - block.first.x0) < step)):
            return True
        if block.kind == "item":
            hanging = len(block.lines) > 1 and last.x0 > block.first.x0 + 2
            out = line.x0 < block.first.x0 - 2 or (hanging and line.x0 < last.x0 - step)
            return out or (early and _ENDED.search(last.text) is not None and not inside)
        if early and _ENDED.search(last.text):
            return True
        if inside and not _centred(line):
            return len(block.lines) > 1 or last.x0 <= last.left + 2
        return line.x0 < last.x0 - step and len(block.lines) > 1 and not _centred(last)

    def _near(self, last: Line, line: Line, most: float) -> bool:
        if not _same_column(last, line):
            return last.page + 1 == line.page  # code over the end of a page
        return 0 <= line.base - last.base <= most * max(self.look.leading, 1.15) * max(last.size, line.size)

    def _flows_over(self, block: _Block, line: Line) -> bool:
        text = block.last.text
        lower = line.text[:1].islower()
        return lower and not _ENDED.search(text) and 0 <= line.page - block.last.page <= 1

    def _heading(self, lines: list[Line]) -> str:
        """The lines of a heading as one."""
        text = lines[0].text.strip()
        for line in lines[1:]:
            glue, cut = _glue(text, line.text, self.look)
            text = text[: len(text) - cut] + glue + line.text.strip()
        return text

    def _outlined(self, page: int, text: str) -> int:
        """The level of a heading that the document's own outline names, else 0."""
        return self.outline.get((page, plain(text)), 0)

    def _finish(self, gap: float) -> None:
        """Close the open block; ``gap`` is the room below it."""
        block, self._block = self._block, None
        if block is None:
            return
        if block.kind == "table":
            self._items = []
            self.done.append(Finished([Piece(block.first.page, _table(block.first.table))]))
        elif block.kind == "code":
            self._items = []
            self.done.append(Finished(_code(block.lines)))
        elif block.kind == "item":
            self._item(block)
        else:
            self._text_block(block, gap)

    def _text_block(self, block: _Block, gap: float) -> None:
        text = self._heading(block.lines)
        level = self._outlined(block.first.page, text)
        apart = min(gap, block.gap) > 1.2 * self.look.leading
        key = self.look.heading(text, block.first, len(block.lines), apart)
        if level:
            key = key or (round(block.first.size * 2) / 2, block.first.bold, level)
            self.known.setdefault(key, Counter())[level] += 1
        self._items = []
        if key:
            self.done.append(Finished([Piece(block.first.page, text)], key))
        else:
            pieces = self._flowed(block.lines)
            self.done.append(Finished([Piece(pieces[0].page, _escaped(pieces[0].text)), *pieces[1:]]))

    def _item(self, block: _Block) -> None:
        x0 = block.first.x0
        while self._items and self._items[-1] > x0 + 2:
            self._items.pop()
        again = bool(self._items) and abs(self._items[-1] - x0) <= 2
        nested = again or bool(self._items)
        if not again:
            self._items.append(x0)
        indent = "  " * min(len(self._items) - 1, 6)
        pieces = self._flowed(block.lines)
        rest = pieces[0].text[len(block.marker) :].lstrip() if pieces[0].text.startswith(block.marker) else ""
        rest = rest or pieces[0].text
        number = _NUMBER.match(block.marker + "x")
        if number:
            indent = "   " * (len(indent) // 2)
            shown = f"{indent}{number.group(1)} {rest}"
        elif _LETTER.match(block.marker + " "):
            shown = f"{indent}- {block.marker.strip()} {rest}"
        else:
            shown = f"{indent}- {rest}"
        self.done.append(Finished([Piece(pieces[0].page, shown), *pieces[1:]], tight=nested))

    def _flowed(self, lines: list[Line]) -> list[Piece]:
        """Lines joined to running text, one piece for each page. A line that was ended on purpose stays a line."""
        pieces = [Piece(lines[0].page, without_leaders(lines[0].text).strip())]
        for last, line in pairwise(lines):
            before, text = pieces[-1].text, without_leaders(line.text).strip()
            glue, cut = _glue(before, text, self.look)
            early = _same_column(last, line) and _ends_early(last, line) and glue == " "
            if early or has_leaders(last.text):
                glue, cut = "\n", 0
            if glue == "\n":
                text = _escaped(text)
            before = before[: len(before) - cut] + glue
            if line.page == pieces[-1].page:
                pieces[-1] = Piece(line.page, before + text)
            else:
                pieces[-1] = Piece(pieces[-1].page, before)
                pieces.append(Piece(line.page, text))
        return pieces


def write(blocks: Iterable[Finished], kinds: dict[Key, int], pages: int) -> tuple[str, tuple[int, ...]]:
    """The Markdown of ``blocks`` and where each of the ``pages`` begins in it."""
    out: list[str] = []
    length = 0
    starts: dict[int, int] = {}
    for block in blocks:
        glue = "" if not out else "\n" if block.tight else "\n\n"
        glue += "#" * kinds[block.key] + " " if block.key else ""
        begin = length + len(glue) - (kinds[block.key] + 1 if block.key else 0)
        out.append(glue)
        length += len(glue)
        for piece in block.pieces:
            starts.setdefault(piece.page, begin)
            out.append(piece.text)
            length += len(piece.text)
            begin = length
    text = "".join(out) + ("\n" if out else "")
    found = []
    following = len(text)
    for page in reversed(range(pages)):  # a page without text begins where the next one does
        following = starts.get(page, following)
        found.append(following)
    return text, tuple(reversed(found))


def plain(text: str) -> str:
    """A heading's text without its number, case and blanks, to compare it with an outline's."""
    bare = re.sub(r"^(?:(?:chapter|section|appendix)\s+)?(?:\d+|[A-Z])?(?:\.?\d+)*[.:)]?\s+", "", text, flags=re.I)
    return "".join((bare or text).lower().split())


def _same_column(last: Line, line: Line) -> bool:
    return last.page == line.page and line.base > last.base and line.x0 <= last.right and line.x1 >= last.left


def _is_inside(block: _Block, line: Line) -> bool:
    """Whether a line of code is the middle of running text: nothing divides it from the line above."""
    last = block.last
    runs_on = _same_column(last, line) and not _ends_early(last, line) and not _ENDED.search(last.text)
    return block.kind in ("paragraph", "item") and runs_on and abs(line.x0 - last.x0) < 2


def _ends_early(last: Line, line: Line) -> bool:
    """Whether the first word of ``line`` would have fitted into the line above it."""
    word = len(line.text.split(" ", 1)[0]) * (line.x1 - line.x0) / max(len(line.text), 1)
    return last.right - last.x1 > word + 1.5 * line.size


def _centred(line: Line) -> bool:
    left, right = line.x0 - line.left, line.right - line.x1
    return left > 2 * line.size and abs(left - right) < 2 * line.size


def _glue(before: str, text: str, look: Look) -> tuple[str, int]:
    """What joins two lines, and how many letters it takes away: a hyphen that only divided a word goes."""
    if before.endswith("\u00ad"):
        return "", 1
    if not before.endswith("-") or not before[-2:-1].isalnum() or not text[:1].isalnum():
        wide = before and text and before[-1] > "\u2e7f" and text[0] > "\u2e7f"
        return ("" if wide else " "), 0
    head, tail = re.split(r"[^\w-]", before)[-1], re.split(r"[^\w-]", text)[0]
    if tail.lower() in _AND:
        return " ", 0
    keeps = not text[0].islower() or look.keeps_hyphen(head.rstrip("-").rpartition("-")[2], tail.partition("-")[0])
    return "", 0 if keeps else 1


def _escaped(text: str) -> str:
    """``text`` such that its beginning is not read as Markdown's."""
    return "\\" + text if _MARKUP.match(text) or _LISTED.match(text) else text


def _table(cells: tuple[tuple[str, ...], ...]) -> str:
    shown = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in cells]
    rule = ["---"] * len(shown[0])
    return "\n".join(f"| {' | '.join(row)} |" for row in [shown[0], rule, *shown[1:]])


def _code(lines: list[Line]) -> list[Piece]:
    """Lines of code as a fenced block, indented as they stand."""
    wide = max((line.x1 - line.x0) / max(len(line.text), 1) for line in lines) or 1.0
    runs = [len(run) for line in lines for run in re.findall(r"`+", line.text)]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    edge = {line.page: min(other.x0 for other in lines if other.page == line.page) for line in lines[:1]}
    pieces = [Piece(lines[0].page, fence)]
    last = None
    for line in lines:
        if line.page not in edge:
            edge[line.page] = min(other.x0 for other in lines if other.page == line.page)
        blank = last is not None and last.page == line.page and line.base - last.base > 1.8 * line.size
        indent = min(round((line.x0 - edge[line.page]) / wide), 80)
        text = "\n" * (2 if blank else 1) + " " * indent + line.text.rstrip()
        if line.page == pieces[-1].page:
            pieces[-1] = Piece(line.page, pieces[-1].text + text)
        else:
            pieces[-1] = Piece(pieces[-1].page, pieces[-1].text + "\n")
            pieces.append(Piece(line.page, text[1:]))
        last = line
    pieces[-1] = Piece(pieces[-1].page, pieces[-1].text + "\n" + fence)
    return pieces
