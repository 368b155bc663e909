"""Markdown cut into the blocks that the extractive rules read, each with its place in the text.

Only what the rules need: headings, tables, list items, glossary terms and prose; fenced and indented code
gives nothing. Lines are looked at one by one, with at most one line of look-ahead, so the time is linear in
the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"\s{0,3}(?:```|~~~)")
_ATX = re.compile(r"\s{0,3}#{1,6}\s+(.{1,200}?)[\s#]*$")
_SETEXT = re.compile(r"\s{0,3}(?:=+|-{3,})\s*$")
_ITEM = re.compile(r"^\s{0,8}(?:[*+-]|\d{1,3}[.)])\s+(?=\S)")
_DELIMITER = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-*:?\s*)*$")
_TERM_LINE = re.compile(r"\s{0,3}\*\*([^*\n]{1,80})\*\*:?\s*$")
_TERM_INLINE = re.compile(r"\s{0,3}\*\*([^*\n]{1,80}?)(?::\*\*|\*\*\s*(?::|–|—|-))\s+(?=\S)")
_LINK = re.compile(r"!?\[([^\[\]]{0,300})\]\([^()]{0,400}(?:\([^()]{0,100}\)[^()]{0,200})?\)")
_SENTENCE = re.compile(r"[.!?][\"”’)*_]{0,3}\s+(?=[\"“‘(*_\[]{0,3}[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|Ms|St|No|Prof|Fig|approx|ca|c)|\b[A-Z])\.$")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the text: ``term`` is a term's or heading's words, ``body`` the definition's start."""

    kind: str  # "prose", "item", "term", "table" or "heading"
    start: int
    end: int
    term: str = ""
    body: int = 0


def plain(markdown: str) -> str:
    """The text on one line, without emphasis, links, tags, escapes, list marks; code keeps its backticks."""
    text = "\n".join(_ITEM.sub("", line.lstrip("> ")) for line in markdown.splitlines())
    text = _LINK.sub(r"\1", text.replace(")[", ") ["))
    text = re.sub(r"</?[A-Za-z][^<>]{0,200}>|\[\^\w{1,20}\]", "", text)
    text = re.sub(r"\\([\\_*#|\[\]()-])", r"\1", text).replace("*", "")
    text = re.sub(r"(?<!\w)_{1,2}(?=\w)|(?<=\w)_{1,2}(?!\w)", "", text)
    return " ".join(text.split())


def blocks(text: str) -> Iterator[Block]:
    """The text's blocks in order; fenced code gives none."""
    lines: list[tuple[int, str]] = []
    position = 0
    for line in text.splitlines(keepends=True):
        lines.append((position, line.rstrip("\r\n")))
        position += len(line)
    lines.append((position, ""))
    i = 0
    while i < len(lines):
        start, line = lines[i]
        following = lines[i + 1][1] if i + 1 < len(lines) else ""
        if _FENCE.match(line):
            i = next((j + 1 for j in range(i + 1, len(lines)) if _FENCE.match(lines[j][1])), len(lines))
            continue
        if not line.strip() or _SETEXT.match(line) or line.startswith("    "):
            i += 1
            continue
        atx = _ATX.match(line)
        if atx or (_SETEXT.match(following) and following.strip()):
            yield Block("heading", start, start + len(line), plain(atx.group(1) if atx else line))
            i += 1 if atx else 2
            continue
        if "|" in line and _DELIMITER.match(following) and "|" in following:
            end = _run(lines, i + 2, lambda row: "|" in row)
            yield Block("table", start, lines[end - 1][0] + len(lines[end - 1][1]))
        else:
            end = _run(lines, i + 1, lambda row: bool(row.strip()) and not _starts_block(row))
            yield _paragraph(start, line, lines[end - 1][0] + len(lines[end - 1][1]), end > i + 1)
        i = end


def _run(lines: list[tuple[int, str]], i: int, goes_on: Callable[[str], bool]) -> int:
    while i < len(lines) and goes_on(lines[i][1]):
        i += 1
    return i


def _starts_block(line: str) -> bool:
    return any(
        p.match(line) for p in (_FENCE, _ATX, _SETEXT, _ITEM, _TERM_LINE, _TERM_INLINE)
    ) or line.lstrip().startswith("|")


def _paragraph(start: int, line: str, end: int, more: bool) -> Block:
    item = _ITEM.match(line)
    offset = item.end() if item else 0
    inline = _TERM_INLINE.match(line[offset:])
    if inline:
        return Block("term", start + offset, end, plain(inline.group(1)), start + offset + inline.end())
    term = _TERM_LINE.match(line)
    if term and more:
        return Block("term", start, end, plain(term.group(1)), start + len(line) + 1)
    return Block("item" if item else "prose", start + offset, end)


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    """(offset, raw sentence) between two offsets."""
    begin = start
    for mark in _SENTENCE.finditer(text, start, end):
        stop = mark.start() + 1
        if not _ABBREVIATION.search(text[max(begin, stop - 12) : stop]):
            yield begin, text[begin : mark.end()].rstrip()
            begin = mark.end()
    if text[begin:end].strip():
        yield begin, text[begin:end].rstrip()
