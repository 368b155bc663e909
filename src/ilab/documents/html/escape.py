"""Escapes: a character of the text gets a backslash only where it would otherwise change its meaning.

That depends on its neighbours, on what else stands in the paragraph and on the delimiters written by us. One ``*``
alone means nothing, nor one between blanks; ``_`` means nothing inside a word, ``<`` in front of a blank, ``[``
without a link behind it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ilab.documents.html.runs import PLAIN, Link, Run

PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
"""What a backslash can escape."""
ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,32};")
_CANDIDATE = re.compile(r"\*+|_+|~+|`+|[\\\[\]<&!]")
_TAG = re.compile(r"<[A-Za-z/!?]")
_LINE_START = re.compile(  # possessive, so that a line of a million dashes is read once
    r"(?P<mark>[-+*](?=\s|$)|>|\#{1,6}(?=\s|$)|\||`{3,}+(?=[^`]*+$)|~{3,}|=++$|:?-[-:|\s]*+$"
    r"|(?P<rule>[-*_])\s*+(?:(?P=rule)\s*+)++$|\[(?=(?:[^\[\]\\]|\\.)*+\]:))|(?P<number>\d{1,9})[.)](?=\s|$)"
)


@dataclass(frozen=True)
class Own:
    """What decides about escapes in a whole block: delimiters written by us, and how many the text holds itself."""

    spans: frozenset[str]  # of "*", "_", "~", "`"
    literal: Counter[str]
    brackets: frozenset[Link]  # links whose text must have its brackets escaped

    def escapes(self, mark: str) -> bool:
        """One delimiter alone means nothing; a second one makes a pair of them."""
        return mark in self.spans or self.literal[mark] > 1


def own(pieces: Sequence[Run]) -> Own:
    """Look at all ``pieces`` of a block."""
    spans: set[str] = set()
    literal: Counter[str] = Counter()
    brackets: set[Link] = set()
    for at, piece in enumerate(pieces):
        style = piece.style
        used = {"*": style.strong, "_": style.em, "~": style.strike, "`": style.code}
        spans.update(mark for mark, is_used in used.items() if is_used)
        if piece.kind == "text" and not style.code:
            literal.update(found[0][0] for found in _CANDIDATE.finditer(piece.text) if _delimits(pieces, at, found))
            if style.link and _unbalanced(piece.text):
                brackets.add(style.link)
    return Own(frozenset(spans), literal, frozenset(brackets))


def _unbalanced(text: str) -> bool:
    """Whether ``text`` could end a link that it is part of (which part: a link may have to be written in pieces)."""
    depth = 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if depth < 0:
            return True
    return depth != 0 or "](" in text or "]:" in text or "\\" in text


def written(pieces: Sequence[Run], at: int, own: Own) -> str:
    """The Markdown of one piece, without the delimiters of the spans it stands in."""
    piece = pieces[at]
    if piece.kind != "text":
        return piece.text
    if piece.style.code:
        return _code_span(piece.text)
    return _CANDIDATE.sub(lambda found: _escaped(pieces, at, found, own), piece.text)


def _code_span(text: str) -> str:
    runs = {len(run) for run in re.findall("`+", text)}
    fence = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _around(pieces: Sequence[Run], at: int, start: int, end: int) -> tuple[str, str]:
    """The characters around ``[start:end]`` of a piece; ``""`` where a delimiter may stand instead."""
    text = pieces[at].text
    before = text[start - 1] if start else pieces[at - 1].text[-1] if at else "\n"
    after = text[end] if end < len(text) else pieces[at + 1].text[0] if at + 1 < len(pieces) else "\n"
    bare = pieces[at].style == PLAIN
    return (
        before if start or (bare and before.isspace()) else "",
        after if end < len(text) or (bare and after.isspace()) else "",
    )


def _delimits(pieces: Sequence[Run], at: int, found: re.Match[str]) -> bool:
    """Whether a run of ``*``, ``_``, ``~`` or backticks in the text could open or close a span."""
    mark = found[0][0]
    before, after = _around(pieces, at, *found.span())
    if mark == "`":
        return True
    if mark == "~":
        return len(found[0]) > 1 or not before or not after
    if mark not in "*_":
        return False
    alone = bool(before and after) and before.isspace() and after.isspace()
    return not alone and not (mark == "_" and before.isalnum() and after.isalnum())


def _escaped(pieces: Sequence[Run], at: int, found: re.Match[str], own: Own) -> str:
    """A character or run of characters that may have to be escaped, so if it has."""
    mark, text = found[0], found.string
    if mark[0] in "*_~`":
        needed = _delimits(pieces, at, found) and own.escapes(mark[0])
        return "".join(f"\\{char}" for char in mark) if needed else mark
    _, after = _around(pieces, at, *found.span())
    following = pieces[at + 1] if at + 1 < len(pieces) else None
    at_edge = found.end() == len(text) and following is not None
    needed = False
    if mark == "\\":
        needed = not after or after in PUNCTUATION
    elif mark in "[]":
        first = following.text[:1] if at_edge and following else after
        needed = pieces[at].style.link in own.brackets or (mark == "]" and first == "(")
    elif mark == "<":
        needed = _TAG.match(text, found.start()) is not None or (at_edge and not after)
    elif mark == "&":
        needed = ENTITY.match(text, found.start()) is not None or (at_edge and not after)
    elif mark == "!":
        needed = at_edge and following is not None and following.style.link not in (None, pieces[at].style.link)
    return f"\\{mark}" if needed else mark


def with_safe_start(line: str) -> str:
    """``line`` so that it does not begin a list, a heading, a table …"""
    found = _LINE_START.match(line)
    if not found:
        return line
    return f"\\{line}" if found["mark"] else f"{found['number']}\\{line[found.end('number') :]}"
