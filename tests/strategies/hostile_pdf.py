"""Hypothesis strategies for PDF files that nobody should make: mutated, and built to explode.

``pdf`` is the strategy of a file's bytes; ``PDF_BOMBS`` make files of a size.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import baits
from changes import BYTE_CHANGES, changed, insert
from hypothesis import strategies as st
from pdf_writer import WHITE, Box, Line, Page, Text, assemble, paragraph, table, write_pdf

PROSE = "The kiln stands in the valley. It burns at 900 degrees, for two long days, and then it rests un-"
_ROWS = [["part", "made of"], ["door", "iron"], ["roof", "slate"], ["wall", "clay"]]
_GUIDE = (
    Text(72, 740, "Guide to the kiln", 8),
    Text(72, 700, "1. The kiln", 20, "Helvetica-Bold"),
    *paragraph(f"{PROSE} til spring. " * 3, 72, 670),
    *table(_ROWS, 72, 560, [120, 160]),
    *table(_ROWS, 72, 460, [120, 160], ruled=False),
    Text(72, 360, "- a door"),
    Text(72, 346, "- a chimney"),
    Text(300, 30, "3", 9),
)
_COLUMNS = (*paragraph(PROSE * 3, 50, 700, 230), *paragraph(PROSE * 3, 320, 700, 230))
_HIDDEN = (
    Text(72, 700, "seen by all"),
    Text(72, 680, "white on white", colour=WHITE),
    Text(72, 660, "of no size at all", size=0),
    Text(-900, 640, "far off the page"),
    Text(72, 620, "drawn without ink", mode=3),
    Text(72, 600, "under a box"),
    Box(60, 590, 200, 20),
    Line(72, 580, 300, 580),
)
BASES = (
    write_pdf([Page(_GUIDE), Page(_COLUMNS)], title="The kiln"),
    write_pdf([Page(_HIDDEN), Page()]),
    write_pdf([Page(_GUIDE), Page(_COLUMNS), Page(_HIDDEN)], compress=True),
)
TOKENS = (
    *(
        b"<< ",
        b" >>",
        b"[ ",
        b" ]",
        b" 2 0 R ",
        b"1 0 obj\n",
        b"endobj\n",
        b"stream\n",
        b"endstream\n",
        b"xref\n",
        b"trailer\n",
    ),
    *(
        b"startxref\n0\n%%EOF\n",
        b"(",
        b")",
        b"<feff",
        b"%",
        b"/Kids [2 0 R]",
        b"/Count 99999999 ",
        b"/Parent 2 0 R",
        b"/Rotate 45",
    ),
    *(
        b"/Encrypt 2 0 R ",
        b"/Prev 9 ",
        b"/Filter /FlateDecode ",
        b"/Filter [/ASCIIHexDecode /LZWDecode] ",
        b"/UserUnit 1e9 ",
    ),
    *(
        b"/MediaBox [0 0 0 0] ",
        b"/MediaBox [1e38 -1e38 nan inf] ",
        b"/CropBox [600 0 0 1] ",
        b"BT ",
        b"ET ",
        b"q ",
        b"Q Q Q ",
    ),
    *(
        b"1e38 0 0 1e38 0 0 cm ",
        b"0 0 0 0 0 0 Tm ",
        b"/F0 1e38 Tf ",
        b"/F9 9 Tf ",
        b"-1 Tr ",
        b"99 Tr ",
        b"W n ",
        b"(\\377\\000\\b) Tj ",
    ),
    *(
        b"[(a) -1e30 (b)] TJ ",
        b"BI /W 9999999 /H 9999999 ID \n EI ",
        b"/OpenAction << /S /JavaScript /JS (app.alert(1)) >> ",
    ),
    *(
        f"/A << /S /URI /URI ({baits.URL}) >> ".encode(),
        f"/F ({baits.FILE}) ".encode(),
        b"/Type /ObjStm ",
        b"/Type /XRef ",
        b"\x00",
    ),
)
Bomb = Callable[[int], bytes]


def _stream(data: bytes, more: bytes = b"") -> bytes:
    return b"<< /Length %d %b>>\nstream\n%b\nendstream" % (len(data), more, data)


def _page(content: bytes, *more: bytes, resources: bytes = b"", extra: bytes = b"", coding: bytes = b"") -> bytes:
    """A file of one page with this content; ``more`` are the objects from number 7 on."""
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
            b"<< >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R %b"
            b"/Resources << /Font << /F0 6 0 R >> %b >> >>" % (extra, resources),
            _stream(content, coding),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
            *more,
        ]
    )


def _packed(data: bytes, times: int) -> bytes:
    """A page whose content is ``data``, compressed so many times."""
    for _ in range(times):
        data = zlib.compress(data, 9)
    return _page(data, coding=b"/Filter [%b] " % (b"/FlateDecode " * times))


def _forms(n: int, each: int) -> bytes:
    """Forms that each draw the next one ``each`` times; the last one draws text."""
    forms = []
    for number in range(n):
        last = number == n - 1
        body = b"BT /F0 9 Tf 72 700 Td (ha) Tj ET " if last else b"/X Do " * each
        forms.append(
            _stream(
                body,
                b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << /Font << /F0 6 0 R >> "
                b"/XObject << /X %d 0 R >> >> " % (7 + number + (not last)),
            )
        )
    return _page(b"/X Do", *forms, resources=b"/XObject << /X 7 0 R >>")


def _tree(n: int) -> bytes:
    """A tree of pages of this depth."""
    nodes = [b"<< /Type /Pages /Parent %d 0 R /Kids [%d 0 R] /Count 1 >>" % (3 + i, 5 + i) for i in range(n)]
    head = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>", b"<< >>"]
    return assemble([*head, *nodes, b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 612 792] >>" % (3 + n)])


def _meaning(n: int) -> bytes:
    """A font of which each character means a text of this length."""
    text = b"0061" * n
    table_ = b"/CIDInit /ProcSet findresource begin begincmap 1 beginbfchar <61> <%b> endbfchar endcmap end" % text
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 8 0 R >>"
    return _page(b"BT /F1 9 Tf 72 700 Td (aaaaaaaa) Tj ET", font, _stream(table_), resources=b"").replace(
        b"/F0 6 0 R >>", b"/F1 7 0 R >>", 1
    )


def _many(*marks: Text | Line | Box) -> bytes:
    return write_pdf([Page(marks)], compress=True)


PDF_BOMBS: dict[str, Bomb] = {
    "empty pages": lambda n: write_pdf([Page()] * n),
    "pages with text": lambda n: write_pdf([Page(_HIDDEN)] * n),
    "a count that lies": lambda n: BASES[0].replace(b"/Count 2", b"/Count %d" % n),
    "pages that are their own": lambda n: BASES[0].replace(b"/Kids [", b"/Kids [" + b"2 0 R " * n),
    "one page again and again": lambda n: (
        BASES[0].replace(b"/Kids [10 0 R", b"/Kids [" + b"10 0 R " * n).replace(b"/Count 2", b"/Count %d" % (n + 1))
    ),
    "a deep tree of pages": _tree,
    "blanks, compressed": lambda n: _packed(b" " * 1000 * n, 1),
    "blanks, compressed twice": lambda n: _packed(b" " * 1000 * n, 2),
    "text, compressed": lambda n: _packed(b"BT /F0 9 Tf 72 700 Td (kiln) Tj ET " * 10 * n, 2),
    "filters without end": lambda n: _page(b"00", coding=b"/Filter [%b] " % (b"/ASCIIHexDecode " * n)),
    "states that are kept": lambda n: _page(b"q " * n),
    "texts that begin": lambda n: _page(b"BT " * n),
    "a string that never ends": lambda n: _page(b"BT /F0 9 Tf (" + b"(" * n),
    "deep arrays": lambda n: _page(b"[" * n + b"]" * n + b" TJ"),
    "deep dictionaries": lambda n: _page(b"", extra=b"/A " + b"<< /A " * n + b"1 " + b">> " * n),
    "references in a ring": lambda n: _page(
        b"", *[b"%d 0 R" % (7 + (i + 1) % n) for i in range(n)], extra=b"/Annots 7 0 R "
    ),
    "forms in forms": lambda n: _forms(max(n, 1), 1),
    "a billion forms": lambda n: _forms(max(min(n, 60), 1), 10),
    "a form of itself": lambda n: _forms(1, 1).replace(b"(ha) Tj ET", b"/X Do  ET"),
    "characters that mean much": _meaning,
    "one long line": lambda n: _many(Text(10, 700, "kiln " * n, 1)),
    "pieces on one line": lambda n: _many(*(Text(10 + i % 500, 700, "a") for i in range(n))),
    "pieces on one point": lambda n: _many(*[Text(100, 700, "kiln")] * n),
    "pieces everywhere": lambda n: _many(*(Text(i * 37 % 600, i * 91 % 780, f"w{i}") for i in range(n))),
    "sizes without end": lambda n: _many(*(Text(72, 700 - i % 600, "a", 1 + i / 7) for i in range(n))),
    "columns without end": lambda n: _many(
        *(Text(20 + i * 590 / n, 700 - 20 * row, "a", 1) for i in range(n) for row in range(5))
    ),
    "rules": lambda n: _many(
        *(Line(0, i * 792 / n, 612, i * 792 / n) for i in range(n)),
        *(Line(i * 612 / n, 0, i * 612 / n, 792) for i in range(n)),
        Text(9, 9, "a"),
    ),
    "boxes over text": lambda n: _many(*[Text(72, 700, "under"), Box(60, 690, 200, 20)] * n),
    "a page without end": lambda n: write_pdf([Page(_GUIDE, width=10.0**n if n < 300 else 1e300)]),
    "a picture without end": lambda n: _page(b"BI /W %d /H %d /BPC 8 /CS /RGB ID a EI" % (n * 1000, n * 1000)),
    "notes": lambda n: _page(
        b"", extra=b"/Annots [%b] " % (b"<< /Subtype /Text /Contents (a) /Rect [0 0 9 9] >> " * n)
    ),
    "objects": lambda n: _page(b"", *[b"<< >>"] * n),
    "tables of objects in a ring": lambda n: BASES[0].replace(
        b"/Root 1 0 R", b"/Prev %d /Root 1 0 R" % BASES[0].rindex(b"xref\n0 ")
    ),
    "a password": lambda n: BASES[0].replace(
        b"/Root",
        b"/Encrypt << /Filter /Standard /V 4 /R 4 /P -4 /O (%b) /U (%b) >> /ID [(a) (b)] /Root"
        % (b"o" * 32, b"u" * 32),
    ),
    "nothing but the name": lambda n: b"%PDF-1.7\n" + b"\x00" * n,
    "the name late": lambda n: b"x" * n + BASES[0],
}
_SMALL = st.builds(lambda name, n: PDF_BOMBS[name](n), st.sampled_from(sorted(PDF_BOMBS)), st.integers(1, 40))
_PAGES = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=5), max_size=30).map(
    lambda parts: _page(b" ".join(parts))
)
_CHANGES = (*BYTE_CHANGES, insert(TOKENS), insert(TOKENS), insert(TOKENS))

pdf: st.SearchStrategy[bytes] = st.one_of(*[changed(BASES, _CHANGES, most=8)] * 5, _PAGES, _SMALL)
