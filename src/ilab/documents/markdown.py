"""The block structure of a Markdown text, as spans: enough to cut it well, not a renderer.

One pass over the lines, linear in the length whatever the text holds. Blank lines and horizontal rules belong to
no block. Two differences from CommonMark: an underline (``===`` or ``---``) makes a heading of the one line above
it, not of the whole paragraph, and also behind a list (HTML converters forget the blank line); tables are runs of
lines that begin with ``|``. Anything else between blank lines, lists too, is a paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["heading", "fence", "table", "paragraph"]

_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]")
_RULE = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})")


@dataclass(frozen=True)
class Block:
    """``text[start:end]``, line end included; headings have a ``level`` (1 to 6) and a ``title``."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    title: str = ""


@dataclass(frozen=True)
class Line:
    start: int
    end: int  # behind the line end
    text: str  # without it


def lines(text: str, start: int = 0, end: int | None = None) -> Iterator[Line]:
    """The lines of ``text[start:end]`` with their offsets in ``text``. Only ``\\n`` ends a line."""
    end = len(text) if end is None else end
    while start < end:
        stop = text.find("\n", start, end)
        after = end if stop < 0 else stop + 1
        yield Line(start, after, text[start : end if stop < 0 else stop])
        start = after


def is_list_item(line: str) -> bool:
    return _LIST_ITEM.match(line) is not None


def fence_mark(line: str) -> str:
    """The run of backticks or tildes that opens or closes a code block on this line, or ``""``."""
    stripped = line.lstrip(" \t")
    for mark in ("`", "~"):
        run = len(stripped) - len(stripped.lstrip(mark))
        if run >= 3 and not (mark == "`" and "`" in stripped[run:]):
            return mark * run
    return ""


def closes(line: str, fence: str) -> bool:
    """Whether ``line`` closes the code block that ``fence`` opened."""
    stripped = line.strip(" \t")
    return len(stripped) >= len(fence) and not stripped.strip(fence[0])


def blocks(text: str) -> list[Block]:
    """The blocks of ``text`` in order."""
    found: list[Block] = []
    fence, joins = "", False  # joins: the line above belongs to found[-1], which may go on
    above: Line | None = None
    for line in lines(text):
        if fence:
            found[-1] = _extended(found[-1], line)
            fence = "" if closes(line.text, fence) else fence
            continue
        before = found[-1] if joins else None
        level = _underline(line.text)
        if before and level and above and before.kind == "paragraph" and not is_list_item(above.text):
            if above.start > before.start:
                found[-1] = Block("paragraph", before.start, above.start)
            else:
                found.pop()
            found.append(Block("heading", above.start, line.end, level, above.text.strip()))
            joins = False
            continue
        if not line.text.strip() or _RULE.fullmatch(line.text):
            joins = False
            continue
        block = _opened(line)
        fence = fence_mark(line.text)
        if before and before.kind == block.kind and block.kind in ("table", "paragraph"):
            found[-1] = _extended(before, line)
        else:
            found.append(block)
        joins, above = block.kind not in ("heading", "fence"), line
    return found


def _extended(block: Block, line: Line) -> Block:
    return Block(block.kind, block.start, line.end)


def _opened(line: Line) -> Block:
    """The block that ``line`` begins, looked at alone."""
    level = _atx_level(line.text)
    if level:
        return Block("heading", line.start, line.end, level, _atx_title(line.text))
    kind: BlockKind = "paragraph"
    if fence_mark(line.text):
        kind = "fence"
    elif line.text.lstrip().startswith("|"):
        kind = "table"
    return Block(kind, line.start, line.end)


def _atx_level(line: str) -> int:
    """1 to 6 for ``# …`` to ``###### …`` (indented by at most three spaces), else 0."""
    stripped = line.lstrip(" ")
    level = len(stripped) - len(stripped.lstrip("#"))
    if len(line) - len(stripped) > 3 or not 1 <= level <= 6:
        return 0
    return level if stripped[level : level + 1] in ("", " ", "\t") else 0


def _atx_title(line: str) -> str:
    title = line.strip().lstrip("#").strip()
    bare = title.rstrip("#")
    return bare.strip() if bare == "" or bare[-1] in " \t" else title


def _underline(line: str) -> int:
    """1 for a line of ``=``, 2 for a line of two or more ``-``, else 0."""
    stripped = line.strip()
    if not stripped or len(line) - len(line.lstrip(" ")) > 3:
        return 0
    return 1 if not stripped.strip("=") else 2 if not stripped.strip("-") and len(stripped) > 1 else 0
