"""A small PDF writer: pages of text, lines and boxes at given places, nothing a library would hide.

    write_pdf([Page((Text(72, 720, "A heading", size=18, font="Helvetica-Bold"), *paragraph(words, 72, 690)))])

Coordinates are PDF points from the lower left corner of a page of 612 × 792. Fonts are the standard ones that every
viewer has, text is Windows-1252. ``Text`` can be what a reader does not see: white (``colour=WHITE``), invisible
(``mode=3``), of size zero, or off the page. ISO 32000-1, sections 7.5 (file structure), 8.5 (paths), 9.4 (text).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Colour = tuple[float, float, float]  # red, green, blue in 0..1
BLACK: Colour = (0.0, 0.0, 0.0)
WHITE: Colour = (1.0, 1.0, 1.0)
FONTS = ("Helvetica", "Helvetica-Bold", "Helvetica-Oblique", "Times-Roman", "Times-Bold", "Courier")
# Advance widths of Helvetica for the characters 32 to 126, in thousandths of the font size (Adobe's metrics).
# fmt: off
_WIDTHS = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778,
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556,
    556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
]
# fmt: on


@dataclass(frozen=True)
class Text:
    """One piece of text whose baseline begins at (``x``, ``y``). ``mode`` 0 fills, 3 is invisible."""

    x: float
    y: float
    text: str
    size: float = 11
    font: str = "Helvetica"
    colour: Colour = BLACK
    mode: int = 0


@dataclass(frozen=True)
class Line:
    """A ruled line."""

    x0: float
    y0: float
    x1: float
    y1: float
    width: float = 0.75


@dataclass(frozen=True)
class Box:
    """A filled rectangle; later items lie on top of it, earlier ones below."""

    x: float
    y: float
    width: float
    height: float
    colour: Colour = WHITE


Mark = Text | Line | Box


@dataclass(frozen=True)
class Page:
    """What stands on a page, drawn in this order."""

    marks: tuple[Mark, ...] = ()
    width: float = 612
    height: float = 792


def text_width(text: str, size: float) -> float:
    """Width of ``text`` in points in Helvetica; other characters than ASCII count as half an em."""
    return sum(_WIDTHS[ord(c) - 32] if 32 <= ord(c) <= 126 else 556 for c in text) * size / 1000


def wrap(text: str, width: float, size: float = 11) -> list[str]:
    """``text`` in lines of at most ``width`` points, broken at spaces."""
    lines: list[str] = []
    line, used, space = "", 0.0, text_width(" ", size)
    for word in text.split():
        length = text_width(word, size)
        if line and used + space + length > width:
            lines.append(line)
            line, used = word, length
        else:
            line, used = (f"{line} {word}", used + space + length) if line else (word, length)
    return [*lines, line] if line else lines


def paragraph(text: str, x: float, y: float, width: float = 468, size: float = 11) -> tuple[Text, ...]:
    """``text`` wrapped to ``width`` points, first baseline at ``y``, lines 1.25 sizes apart. Columns are two calls."""
    return tuple(Text(x, y - 1.25 * size * row, line, size) for row, line in enumerate(wrap(text, width, size)))


def table(
    rows: Sequence[Sequence[str]], x: float, y: float, widths: Sequence[float], *, ruled: bool = True, size: float = 10
) -> tuple[Mark, ...]:
    """A table whose upper left corner is (``x``, ``y``), one line of text a cell, with rules or as bare columns.

    Its height is ``len(rows) * 1.6 * size``.
    """
    step = 1.6 * size
    edges = [x + sum(widths[:column]) for column in range(len(widths) + 1)]
    marks: list[Mark] = []
    for row, cells in enumerate(rows):
        base = y - step * row - 1.1 * size
        font = "Helvetica-Bold" if row == 0 else "Helvetica"
        marks += [Text(edges[column] + 4, base, cell, size, font) for column, cell in enumerate(cells) if cell]
    if ruled:
        bottom = y - step * len(rows)
        marks += [Line(edges[0], y - step * row, edges[-1], y - step * row) for row in range(len(rows) + 1)]
        marks += [Line(edge, y, edge, bottom) for edge in edges]
    return tuple(marks)


def write_pdf(pages: Iterable[Page], *, title: str = "", compress: bool = False) -> bytes:
    """The bytes of a PDF 1.4 file with ``pages``. Characters outside Windows-1252 are written as question marks."""
    pages = list(pages)
    first = 4 + len(FONTS)  # 1 catalogue, 2 page tree, 3 information, fonts, then page and content in turn
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Producer (pdf_writer)" + (b" /Title " + _string(title) if title else b"") + b" >>",
        *(f"<< /Type /Font /Subtype /Type1 /BaseFont /{f} /Encoding /WinAnsiEncoding >>".encode() for f in FONTS),
    ]
    fonts = " ".join(f"/F{number} {4 + number} 0 R" for number in range(len(FONTS)))
    for number, page in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {page.width:g} {page.height:g}] "
            f"/Resources << /Font << {fonts} >> >> /Contents {first + 2 * number + 1} 0 R >>".encode()
        )
        objects.append(_stream(b"\n".join(_draw(mark) for mark in page.marks), compress))
    return assemble(objects)


def assemble(objects: list[bytes]) -> bytes:
    """A file of these objects, numbered from 1: the first is the catalogue, the third the information."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 3 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def _stream(data: bytes, compress: bool) -> bytes:
    if compress:
        data = zlib.compress(data)
    coding = b" /Filter /FlateDecode" if compress else b""
    return b"<< /Length %d%b >>\nstream\n%b\nendstream" % (len(data), coding, data)


def _draw(mark: Mark) -> bytes:
    if isinstance(mark, Text):
        colour = " ".join(f"{part:g}" for part in mark.colour)
        head = (
            f"BT {colour} rg {mark.mode} Tr /F{FONTS.index(mark.font)} {mark.size:g} Tf {mark.x:.2f} {mark.y:.2f} Td "
        )
        return head.encode() + _string(mark.text) + b" Tj ET"
    if isinstance(mark, Line):
        return f"{mark.width:g} w {mark.x0:.2f} {mark.y0:.2f} m {mark.x1:.2f} {mark.y1:.2f} l S".encode()
    colour = " ".join(f"{part:g}" for part in mark.colour)
    return f"{colour} rg {mark.x:.2f} {mark.y:.2f} {mark.width:.2f} {mark.height:.2f} re f".encode()


def _string(text: str) -> bytes:
    data = text.encode("cp1252", "replace")
    for special in (b"\\", b"(", b")"):
        data = data.replace(special, b"\\" + special)
    return b"(" + data + b")"
