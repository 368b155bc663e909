"""A line of styled text as Markdown that a CommonMark reader turns back into exactly that text.

A paragraph arrives as *runs*: text with a style, line breaks, images. Styles become nested spans, the longer one
outside. Emphasis is written only where CommonMark would read it as such (0.31, "left- and right-flanking delimiter
runs"); elsewhere it is dropped, because the words matter more. ``**`` and ``_`` never touch each other's pairing, and
no span holds one of its own kind, so checking each delimiter alone is enough.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ilab.documents.html.escape import ENTITY, PUNCTUATION, own, with_safe_start, written
from ilab.documents.html.runs import BREAK, PLAIN, Link, Run, Style, collapsed, merged, one_line

_DELIMITERS = {"strong": "**", "em": "_", "strike": "~~"}
_AUTOLINK = re.compile(r"https?://[A-Za-z0-9:/?#@!$'()*+,=._~-]+")

Key = Link | str  # what opens a span: a link, or a field of Style


def paragraph(runs: Sequence[Run]) -> str:
    """``runs`` as the text of a paragraph, its lines separated by hard breaks; ``""`` when nothing is to be seen."""
    lines = _inline(collapsed(runs, flat=False)).split(BREAK)
    return BREAK.join(with_safe_start(line) for line in lines)


def heading(runs: Sequence[Run]) -> str:
    """``runs`` in one line, behind which a parser finds no closing ``#``."""
    line = _inline(collapsed(runs, flat=True))
    bare = line.rstrip("#")
    return f"{bare}\\{line[len(bare) :]}" if bare != line and (not bare or bare[-1] == " ") else line


def cell(runs: Sequence[Run]) -> str:
    """``runs`` in one line for a cell of a table: pipes escaped, in code too (GFM, section 4.10)."""
    return _inline(collapsed(runs, flat=True)).replace("|", "\\|")


def image(alt: str, url: str) -> str:
    """``![alt](url)``, every mark in ``alt`` escaped; the words alone without a ``url``."""
    words = re.sub(r"([\\`*_\[\]<&~!])", r"\\\1", one_line(alt).strip())
    return f"![{words}]({destination(url)})" if url else words


def destination(url: str) -> str:
    """``url`` so that nothing in it ends or changes the Markdown around it."""
    url = re.sub(r"[\x00-\x20\x7f-\xa0<>`\\|\u2028\u2029]", lambda found: _percent(found[0]), url)
    if "(" in url or ")" in url:
        depth = lowest = deepest = 0
        for char in url:
            depth += (char == "(") - (char == ")")
            lowest, deepest = min(lowest, depth), max(deepest, depth)
        if depth or lowest < 0 or deepest > 8:
            url = url.replace("(", "%28").replace(")", "%29")
    return ENTITY.sub(lambda found: "\\" + found[0], url)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8"))


def _inline(pieces: list[Run]) -> str:
    """The Markdown of ``pieces``; spans that a reader would not recognise are dropped and the rest written anew."""
    for _ in range(3):
        joined = _joined(pieces)
        text, wrong = _spanned(joined)
        if not wrong:
            return text
        pieces = [piece._replace(style=_without(piece.style, wrong.get(at, ()))) for at, piece in enumerate(joined)]
    return _spanned(_joined([piece._replace(style=_without(piece.style, _DELIMITERS)) for piece in pieces]))[0]


def _joined(pieces: list[Run]) -> list[Run]:
    """``pieces`` with neighbours of one style joined, and without links around code that holds ``]:``: at the start of
    a line that ends the label of a reference definition, in code too."""
    joined = merged(pieces)
    if not any(piece.style.code and piece.style.link and "]:" in piece.text for piece in joined):
        return joined
    return merged(
        [
            piece._replace(style=piece.style._replace(link=None)) if piece.style.code and "]:" in piece.text else piece
            for piece in joined
        ]
    )


def _without(style: Style, keys: Collection[str]) -> Style:
    return Style(
        style.link,
        style.strong and "strong" not in keys,
        style.em and "em" not in keys,
        style.strike and "strike" not in keys,
        style.code,
    )


@dataclass(frozen=True)
class _Mark:
    """An opening or closing delimiter at ``at`` of the output, of the span ``key`` over pieces ``first`` to ``end``."""

    key: str
    opens: bool
    at: int
    span: tuple[int, int]


def _spanned(pieces: list[Run]) -> tuple[str, dict[int, list[str]]]:
    """The Markdown, and per piece the styles whose delimiters would not be read as such."""
    around = own(pieces)
    until = _extents(pieces)
    out: list[str] = []
    marks: list[_Mark] = []
    length = 0
    open_spans: list[tuple[Key, int, int]] = []

    def put(text: str) -> None:
        nonlocal length
        out.append(text)
        length += len(text)

    def close() -> None:
        key, first, end = open_spans.pop()
        if isinstance(key, str):
            marks.append(_Mark(key, False, length, (first, end)))
        put(_DELIMITERS[key] if isinstance(key, str) else f"]({destination(key.url)})")

    for at, piece in enumerate(pieces):
        while open_spans and open_spans[-1][2] == at:
            close()
        if until[at] and not open_spans and (address := _autolink(piece, until[at], at)):
            put(f"<{address}>")
            continue
        if until[at] and not piece.text.isspace() and piece.kind != "break":
            for key, end in _opening(until[at], open_spans, len(pieces)):
                open_spans.append((key, at, end))
                if isinstance(key, str):
                    marks.append(_Mark(key, True, length, (at, end)))
                put(_DELIMITERS[key] if isinstance(key, str) else "[")
        put(written(pieces, at, around))
    while open_spans:
        close()
    text = "".join(out)
    wrong: dict[int, list[str]] = {}
    for mark in marks:
        if not _recognised(text, mark):
            for index in range(*mark.span):
                wrong.setdefault(index, []).append(mark.key)
    return text, wrong


def _keys(style: Style) -> Iterator[Key]:
    if style.strong:
        yield "strong"
    if style.em:
        yield "em"
    if style.strike:
        yield "strike"
    if style.link:
        yield style.link


def _extents(pieces: list[Run]) -> list[dict[Key, int]]:
    """For every piece and each of its keys, the index behind the last piece up to which that key goes on."""
    nothing: dict[Key, int] = {}
    found = [nothing] * len(pieces)
    for at in range(len(pieces) - 1, -1, -1):
        if pieces[at].style[:4] != PLAIN[:4]:
            following = found[at + 1] if at + 1 < len(pieces) else nothing
            found[at] = {key: following.get(key, at + 1) for key in _keys(pieces[at].style)}
    return found


def _opening(until: dict[Key, int], open_spans: list[tuple[Key, int, int]], end: int) -> Iterator[tuple[Key, int]]:
    """The spans that begin here, the longest first, none going past the span around it."""
    limit = open_spans[-1][2] if open_spans else end
    inside = [key for key, _, _ in open_spans]
    for key, stop in sorted(until.items(), key=lambda item: -min(item[1], limit)):
        if key not in inside:
            limit = min(stop, limit)
            yield key, limit


def _autolink(piece: Run, until: dict[Key, int], at: int) -> str:
    """The address when ``piece`` is a whole link that shows nothing but its own address."""
    link = piece.style.link
    if link is None or piece.style != Style(link) or piece.text != link.url or until[link] != at + 1:
        return ""
    return piece.text if _AUTOLINK.fullmatch(piece.text) else ""


def _recognised(text: str, mark: _Mark) -> bool:
    """Whether CommonMark reads the delimiter as the opening (or closing) one it is meant to be."""
    end = mark.at + len(_DELIMITERS[mark.key])
    before, after = text[mark.at - 1 : mark.at] or "\n", text[end : end + 1] or "\n"
    outer, inner = (before, after) if mark.opens else (after, before)
    if inner.isspace() or (_may_be_punctuation(inner) and not _ends_word(outer)):
        return False
    return mark.key != "em" or _ends_word(outer)  # "_" does nothing inside a word


def _may_be_punctuation(char: str) -> bool:
    """Punctuation to some version of CommonMark: symbols became punctuation in 0.31."""
    return char in PUNCTUATION or unicodedata.category(char)[0] in "PS"


def _ends_word(char: str) -> bool:
    """Whitespace or punctuation to every version."""
    return (
        char in PUNCTUATION
        or char == "\n"
        or unicodedata.category(char)[0] == "P"
        or unicodedata.category(char) == "Zs"
    )
