"""The blocks of a page, and how they are written as Markdown.

A list is *tight* (no blank lines inside) when no item held a real paragraph and every join inside an item can do
without a blank line; CommonMark then gives back items without paragraphs. Two lists, one behind the other, get
different markers, or they would become one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Paragraph:
    """``text`` is inline Markdown. ``spaced``: it was a paragraph of its own, not bare text inside a list item."""

    text: str
    spaced: bool = True


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Code:
    """``text`` verbatim, without a line end behind its last line."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Rule:
    """A line between two topics."""


@dataclass(frozen=True)
class Table:
    """``rows`` of inline Markdown, the first one the header; no row is longer than the header."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Quote:
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class List:
    """``numbers`` of the items, or none for a bulleted list."""

    items: tuple[tuple[Block, ...], ...]
    numbers: tuple[int, ...] = ()


Block = Paragraph | Heading | Code | Rule | Table | Quote | List


def markdown(blocks: Sequence[Block]) -> str:
    """The text of ``blocks``, ending in one line end; ``""`` for none."""
    lines = _lines(trimmed(blocks), tight=False)
    return "\n".join(lines) + "\n" if lines else ""


def trimmed(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """``blocks`` without rules at either end: they separate nothing there, and could be taken for front matter."""
    start, end = 0, len(blocks)
    while start < end and isinstance(blocks[start], Rule):
        start += 1
    while end > start and isinstance(blocks[end - 1], Rule):
        end -= 1
    return tuple(blocks[start:end])


def _lines(blocks: Sequence[Block], *, tight: bool) -> list[str]:
    """The lines of ``blocks``; whoever builds blocks limits how deep lists and quotes go, and leaves none empty."""
    found: list[str] = []
    before: Block | None = None
    other_marker = False
    for block in blocks:
        if before is not None and not (tight and _touches(before, block)):
            found.append("")
        if isinstance(block, List):
            other_marker = isinstance(before, List) and bool(before.numbers) == bool(block.numbers) and not other_marker
            found.extend(_list_lines(block, other_marker))
        elif isinstance(block, Quote):
            found.extend(f"> {line}".rstrip(" ") for line in _lines(block.blocks, tight=False))
        else:
            found.extend(_leaf_lines(block))
        before = block
    return found


def _leaf_lines(block: Paragraph | Heading | Code | Rule | Table) -> list[str]:
    if isinstance(block, Paragraph):
        return block.text.split("\n")
    if isinstance(block, Heading):
        return [f"{'#' * block.level} {block.text}"]
    if isinstance(block, Code):
        longest = max((len(run) for run in re.findall("`{3,}", block.text)), default=2)
        fence = "`" * (longest + 1)
        return [fence + block.language, *block.text.split("\n"), fence]
    if isinstance(block, Table):
        header, *rows = [f"| {' | '.join(row)} |" for row in block.rows]
        return [header, f"|{' --- |' * len(block.rows[0])}", *rows]
    return ["---"]


def _list_lines(block: List, other_marker: bool) -> list[str]:
    tight = _is_tight(block)
    found: list[str] = []
    numbers = block.numbers or itertools.repeat(0)
    for number, item in zip(numbers, block.items, strict=False):
        if found and not tight:
            found.append("")
        bullet = "*" if other_marker else "-"
        marker = f"{number}{')' if other_marker else '.'} " if block.numbers else f"{bullet} "
        lines = _lines(item, tight=tight)
        found.append(marker + lines[0])
        found.extend(" " * len(marker) + line if line else "" for line in lines[1:])
    return found


def _is_tight(block: List) -> bool:
    return all(
        not (isinstance(item[0], Paragraph) and item[0].spaced)
        and all(_touches(before, after) for before, after in itertools.pairwise(item))
        for item in block.items
    )


def _touches(before: Block, after: Block) -> bool:
    """Whether ``after`` is recognised directly behind ``before``, without a blank line."""
    if isinstance(before, Table) or isinstance(after, Table | Rule):
        return False
    if isinstance(after, Paragraph):
        return not after.spaced and isinstance(before, Heading | Code)
    if isinstance(after, List) and after.numbers:  # only a list that begins with 1 may interrupt a paragraph
        return after.numbers[0] == 1 or isinstance(before, Heading | Code)
    return not (isinstance(after, Quote) and isinstance(before, Quote))
