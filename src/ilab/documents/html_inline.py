"""A line of styled text as Markdown that a CommonMark reader turns back into exactly that text.

A paragraph arrives as *runs*: text with a style, line breaks, images. Whitespace is collapsed as a browser does it,
and a blank at the edge of a style belongs outside it. Styles become nested spans, the longer one outside. Emphasis is
written only where CommonMark would read it as such (0.31, "left- and right-flanking delimiter runs"); elsewhere it is
dropped, because the words matter more. ``**`` and ``_`` never touch each other's pairing, and no span holds one of
its own kind, so checking each delimiter alone is enough. Text is escaped only where it would otherwise change its
meaning: ``foo_bar``, ``2 * 3``, ``[1]`` and a lone ``*`` stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

BREAK = "\\\n"
_BLANKS = re.compile(r"[ \t\n\r\f\v\x1c-\x1f\x85\xa0\u2028\u2029]+")  # a no-break space looks like a space
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_DELIMITERS = {"strong": "**", "em": "_", "strike": "~~"}
_CANDIDATE = re.compile(r"\*+|_+|~+|`+|[\\\[\]<&!]")
_TAG = re.compile(r"<[A-Za-z/!?]")
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,32};")
_AUTOLINK = re.compile(r"https?://[A-Za-z0-9:/?#@!$'()*+,=._~-]+")
_LINE_START = re.compile(  # possessive, so that a line of a million dashes is read once
    r"(?P<mark>[-+*](?=\s|$)|>|\#{1,6}(?=\s|$)|\||`{3,}+(?=[^`]*+$)|~{3,}|=++$|:?-[-:|\s]*+$"
    r"|(?P<rule>[-*_])\s*+(?:(?P=rule)\s*+){2,}+$|\[(?=[^\[\]]*+\]:))|(?P<number>\d{1,9})(?P<dot>[.)])(?=\s|$)"
)


@dataclass(frozen=True, eq=False)
class Link:
    """One hyperlink; two of them with one address stay two."""

    url: str


class Style(NamedTuple):
    link: Link | None = None
    strong: bool = False
    em: bool = False
    strike: bool = False
    code: bool = False


PLAIN = Style()


class Run(NamedTuple):
    """``text`` in one style; a ``break`` has none, an ``image`` is finished Markdown (see ``image``)."""

    text: str
    style: Style = PLAIN
    kind: Literal["text", "break", "image"] = "text"


BREAK_RUN = Run("", PLAIN, "break")
Key = Link | str  # what opens a span: a link, or a field of Style


@dataclass(frozen=True)
class _Own:
    """What decides about escapes in a whole block: delimiters written by us, and how many the text holds itself."""

    spans: frozenset[str]  # of "*", "_", "~", "`"
    literal: Counter[str]
    brackets: frozenset[Link]  # links whose text must have its brackets escaped

    def escapes(self, mark: str) -> bool:
        """One delimiter alone means nothing; a second one makes a pair of them."""
        return mark in self.spans or self.literal[mark] > 1


def paragraph(runs: Sequence[Run]) -> str:
    """``runs`` as the text of a paragraph, its lines separated by hard breaks; ``""`` when nothing is to be seen."""
    lines = _inline(_collapsed(runs, flat=False)).split(BREAK)
    return BREAK.join(_with_safe_start(line) for line in lines)


def heading(runs: Sequence[Run]) -> str:
    """``runs`` in one line, behind which a parser finds no closing ``#``."""
    line = _inline(_collapsed(runs, flat=True))
    bare = line.rstrip("#")
    return f"{bare}\\{line[len(bare) :]}" if bare != line and (not bare or bare[-1] == " ") else line


def cell(runs: Sequence[Run]) -> str:
    """``runs`` in one line for a cell of a table: pipes escaped, in code too (GFM, section 4.10)."""
    return _inline(_collapsed(runs, flat=True)).replace("|", "\\|")


def image(alt: str, url: str) -> str:
    """``![alt](url)``, every mark in ``alt`` escaped; the words alone without a ``url``."""
    words = re.sub(r"([\\`*_\[\]<&~!])", r"\\\1", _BLANKS.sub(" ", alt).strip())
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
    return _ENTITY.sub(lambda found: "\\" + found[0], url)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8"))


def _with_safe_start(line: str) -> str:
    """``line`` so that it does not begin a list, a heading, a table …"""
    found = _LINE_START.match(line)
    if not found:
        return line
    return f"\\{line}" if found["mark"] else f"{found['number']}\\{line[found.end('number') :]}"


def _collapsed(runs: Sequence[Run], *, flat: bool) -> list[Run]:
    """``runs`` with whitespace as a browser shows it; blanks between styles and breaks are runs of their own."""
    found: list[Run] = []
    blank = ""
    for run in runs:
        if run.kind == "break":
            blank = " " if flat else BREAK
            continue
        text = run.text if run.kind == "image" else _BLANKS.sub(" ", run.text).replace("\xad", "")
        words = text.strip(" ")
        if text[:1] == " ":
            blank = blank or " "
        if not words:
            continue
        if blank and found:
            found.append(Run(blank, _meet(found[-1].style, run.style), "text" if blank == " " else "break"))
        found.append(run._replace(text=words))
        blank = " " if text[-1] == " " else ""
    return found


def _meet(one: Style, other: Style) -> Style:
    """The style of a blank between two runs: what they share, but never code."""
    link = one.link if one.link is other.link else None
    return Style(link, one.strong and other.strong, one.em and other.em, one.strike and other.strike)


def _inline(pieces: list[Run]) -> str:
    """The Markdown of ``pieces``; spans that a reader would not recognise are dropped and the rest written anew."""
    for _ in range(3):
        text, wrong = _written(_merged(pieces))
        if not wrong:
            return text
        merged = _merged(pieces)
        pieces = [piece._replace(style=_without(piece.style, wrong.get(at, ()))) for at, piece in enumerate(merged)]
    return _written(_merged([piece._replace(style=_without(piece.style, _DELIMITERS)) for piece in pieces]))[0]


def _without(style: Style, keys: Collection[str]) -> Style:
    return Style(
        style.link,
        style.strong and "strong" not in keys,
        style.em and "em" not in keys,
        style.strike and "strike" not in keys,
        style.code,
    )


def _merged(pieces: list[Run]) -> list[Run]:
    """``pieces`` with neighbours of one style joined (one span instead of two that would touch)."""
    found: list[Run] = []
    texts: list[str] = []
    for piece in pieces:
        if found and found[-1].kind == piece.kind == "text" and found[-1].style == piece.style:
            texts.append(piece.text)
            continue
        if found:
            found[-1] = found[-1]._replace(text="".join(texts))
        found.append(piece)
        texts = [piece.text]
    if found:
        found[-1] = found[-1]._replace(text="".join(texts))
    return found


@dataclass(frozen=True)
class _Mark:
    """An opening or closing delimiter at ``at`` of the output, of the span ``key`` over pieces ``first`` to ``end``."""

    key: str
    opens: bool
    at: int
    span: tuple[int, int]


def _written(pieces: list[Run]) -> tuple[str, dict[int, list[str]]]:
    """The Markdown, and per piece the styles whose delimiters would not be read as such."""
    own = _own(pieces)
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
        address = "" if open_spans else _autolink(piece, until[at], at)
        if address:
            put(f"<{address}>")
            continue
        if not piece.text.isspace() and piece.kind != "break":
            for key, end in _opening(until[at], open_spans, len(pieces)):
                open_spans.append((key, at, end))
                if isinstance(key, str):
                    marks.append(_Mark(key, True, length, (at, end)))
                put(_DELIMITERS[key] if isinstance(key, str) else "[")
        put(_piece(pieces, at, own))
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
    found: list[dict[Key, int]] = [{} for _ in pieces]
    following: dict[Key, int] = {}
    for at in range(len(pieces) - 1, -1, -1):
        found[at] = following = {key: following.get(key, at + 1) for key in _keys(pieces[at].style)}
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
    return char in _PUNCTUATION or unicodedata.category(char)[0] in "PS"


def _ends_word(char: str) -> bool:
    """Whitespace or punctuation to every version."""
    return (
        char in _PUNCTUATION
        or char == "\n"
        or unicodedata.category(char)[0] == "P"
        or unicodedata.category(char) == "Zs"
    )


def _own(pieces: list[Run]) -> _Own:
    spans: set[str] = set()
    literal: Counter[str] = Counter()
    texts: dict[Link, list[str]] = {}
    for at, piece in enumerate(pieces):
        style = piece.style
        used = {"*": style.strong, "_": style.em, "~": style.strike, "`": style.code}
        spans.update(mark for mark, is_used in used.items() if is_used)
        if piece.kind == "text" and not style.code:
            literal.update(found[0][0] for found in _CANDIDATE.finditer(piece.text) if _delimits(pieces, at, found))
            if style.link:
                texts.setdefault(style.link, []).append(piece.text)
    return _Own(frozenset(spans), literal, frozenset(link for link, parts in texts.items() if _unbalanced(parts)))


def _unbalanced(parts: list[str]) -> bool:
    text = "".join(parts)
    depth = 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if depth < 0:
            return True
    return depth != 0 or "](" in text or "\\" in text


def _piece(pieces: list[Run], at: int, own: _Own) -> str:
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


def _around(pieces: list[Run], at: int, start: int, end: int) -> tuple[str, str]:
    """The characters around ``[start:end]`` of a piece; ``""`` where a delimiter may stand instead."""
    text = pieces[at].text
    before = text[start - 1] if start else pieces[at - 1].text[-1] if at else "\n"
    after = text[end] if end < len(text) else pieces[at + 1].text[0] if at + 1 < len(pieces) else "\n"
    bare = pieces[at].style == PLAIN
    return (
        before if start or (bare and before.isspace()) else "",
        after if end < len(text) or (bare and after.isspace()) else "",
    )


def _delimits(pieces: list[Run], at: int, found: re.Match[str]) -> bool:
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


def _escaped(pieces: list[Run], at: int, found: re.Match[str], own: _Own) -> str:
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
        needed = not after or after in _PUNCTUATION
    elif mark in "[]":
        first = following.text[:1] if at_edge and following else after
        needed = pieces[at].style.link in own.brackets or (mark == "]" and first == "(")
    elif mark == "<":
        needed = _TAG.match(text, found.start()) is not None or (at_edge and not after)
    elif mark == "&":
        needed = _ENTITY.match(text, found.start()) is not None or (at_edge and not after)
    elif mark == "!":
        needed = at_edge and following is not None and following.style.link not in (None, pieces[at].style.link)
    return f"\\{mark}" if needed else mark
