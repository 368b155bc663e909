"""Runs of styled text, and what is left of them when whitespace is collapsed as a browser does it.

A blank at the edge of a style belongs outside it (``<b>a </b>b`` is ``**a** b``); two neighbours of one style are one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

BREAK = "\\\n"
"""A line break inside a paragraph, as Markdown."""
_BLANKS = re.compile(r"[ \t\n\r\f\v\x1c-\x1f\x85\xa0\u2028\u2029]+")  # a no-break space looks like a space
_WIDTHLESS = " \u200b\u200c\u200d\u2060\ufeff"  # runs of these alone show nothing


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


def one_line(text: str) -> str:
    """``text`` with every run of whitespace as one space."""
    return _BLANKS.sub(" ", text)


def collapsed(runs: Sequence[Run], *, flat: bool) -> list[Run]:
    """``runs`` with whitespace as a browser shows it; blanks between styles and breaks are runs of their own."""
    found: list[Run] = []
    blank: Run | None = None
    for run in runs:
        text = run.text if run.kind == "image" else one_line(run.text).replace("\xad", "")
        words = text.strip(" ") if text.strip(_WIDTHLESS) else ""
        if run.kind == "break" or text[:1] == " " or (not words and " " in text):
            blank = _blank(blank, run, flat=flat)
        if not words:
            continue
        if blank and found:
            within = blank.style == found[-1].style == run.style  # of one code span, too
            style = run.style if within else _meet(blank.style, _meet(found[-1].style, run.style))
            found.append(blank._replace(style=style._replace(code=False) if blank.kind == "break" else style))
        found.append(run._replace(text=words))
        blank = _blank(None, run, flat=flat) if text[-1] == " " else None
    return found


def _blank(before: Run | None, run: Run, *, flat: bool) -> Run:
    """The one blank that is seen of ``before`` and that of ``run``, in the style that they share; a break outlasts
    blanks."""
    style = _meet(before.style, run.style) if before and before.style != run.style else run.style
    breaks = not flat and (run.kind == "break" or (before is not None and before.kind == "break"))
    return Run(BREAK, style, "break") if breaks else Run(" ", style)


def _meet(one: Style, other: Style) -> Style:
    """What two different styles share, code left aside: two code spans stay two."""
    link = one.link if one.link is other.link else None
    return Style(link, one.strong and other.strong, one.em and other.em, one.strike and other.strike)


def merged(pieces: list[Run]) -> list[Run]:
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
