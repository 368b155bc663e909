"""PDF files that hold text: headings, paragraphs, lists, tables and page starts, by pdfium and rules.

    page ──pdf_page──▶ words, rules ──pdf_lines, pdf_tables──▶ pieces     one page at a time, then it is closed
    all pages: ordinary size, running heads                   ──pdf_style, pdf_layout
    pieces ──pdf_layout──▶ lines in reading order ──pdf_blocks──▶ Markdown

A page is kept only as pieces of text until all have been seen, as what is a heading or a running head shows in the
whole document. pdfium is not safe with threads: one lock for the process. Nothing is rendered, no script or form is
run, nothing is fetched.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from ilab.documents.converted import Converted, Hidden
from ilab.documents.pdf.blocks import Builder, plain, write
from ilab.documents.pdf.layout import Leaf, lines, running_heads, without_heads
from ilab.documents.pdf.lines import segments
from ilab.documents.pdf.page import read_page
from ilab.documents.pdf.style import Style
from ilab.documents.pdf.tables import ruled_tables
from ilab.errors import InputError

MAX_PAGES = 5_000
MAX_MARKS = 25_000_000  # letters and drawn objects in the whole file
_MOST_BOOKMARKS = 5_000
_DEEPEST_BOOKMARK = 4
_MOST_HIDDEN = 100
_LOCK = threading.Lock()
_JUNK_TITLE = re.compile(
    r"untitled|microsoft \w+ - |.*\.(?:docx?|odt|rtf|tex|dvi|indd|qxd|pdf|pptx?|xlsx?|html?)$|\W*$", re.IGNORECASE
)


def read(data: bytes) -> Converted:
    """The text of a PDF as Markdown, with page starts and hidden text.

    Raises ``InputError`` for files that are damaged, encrypted, too large, or hold no text.
    """
    with _LOCK, _opened(data) as document:
        return _Conversion(document).result()


class _Conversion:
    def __init__(self, document: Any) -> None:
        self.document = document
        self.pages = len(document)
        self.style = Style()
        self.leaves: deque[Leaf] = deque()
        self.hidden: list[Hidden] = []

    def result(self) -> Converted:
        if self.pages > MAX_PAGES:
            hint = "divide the document"
            raise InputError(f"has {self.pages} pages; at most {MAX_PAGES} are read", hint=hint)
        self._read_pages()
        look = self.style.reader()
        if not look.letters:
            hint = "it seems to be scanned images; convert it with OCR first (the extra `docling` does that)"
            raise InputError("holds no text", hint=hint)
        heads = running_heads(self.leaves, look.body)
        builder = Builder(look, self._outline())
        while self.leaves:  # given up one by one, as the text grows
            leaf = self.leaves.popleft()
            for line in lines(without_heads(leaf, heads, look.body), leaf.page):
                builder.add(line)
        text, starts = write(builder.blocks(), builder.levels(), self.pages)
        return Converted(text, self._title(), starts, tuple(self.hidden))

    def _read_pages(self) -> None:
        marks = 0
        for number in range(self.pages):
            try:
                marks += self._read_page(number)
            except InputError as error:
                raise InputError(f"page {number + 1}: {error.message}", hint=error.hint) from error
            if marks > MAX_MARKS:
                hint = "divide the document"
                raise InputError(f"holds more than {MAX_MARKS} letters and drawn objects", hint=hint)

    def _read_page(self, number: int) -> int:
        """Add one page; returns how much stands on it."""
        page = pdfium.FPDF_LoadPage(self.document.raw, number)
        if not page:
            raise InputError("is damaged", hint="print it to a new PDF file")
        try:
            sheets, marks = read_page(page)
        finally:
            pdfium.FPDF_ClosePage(page)
        for sheet in sheets:
            tables, words = ruled_tables(sheet.words, sheet.rules)
            pieces = segments(words)
            self.style.add(pieces)
            self.leaves.append(Leaf.of(number, sheet.height, pieces, tables))
            for why, text in sheet.hidden:
                if len(self.hidden) < _MOST_HIDDEN:
                    self.hidden.append(Hidden("hidden-text", f"page {number + 1} ({why})", text[:2000]))
        return marks

    def _title(self) -> str:
        title = " ".join(self.document.get_metadata_value("Title").split())
        return "" if _JUNK_TITLE.match(title) else title[:300]

    def _outline(self) -> dict[tuple[int, str], int]:
        """The level of each heading that the file's bookmarks name, by page and plain text."""
        found: dict[tuple[int, str], int] = {}
        for count, bookmark in enumerate(self.document.get_toc(max_depth=_DEEPEST_BOOKMARK)):
            if count >= _MOST_BOOKMARKS:
                break
            target = bookmark.get_dest()
            page = target.get_index() if target else None
            title = plain(bookmark.get_title())
            if page is not None and title:
                found.setdefault((page, title), bookmark.level + 1)
        return found


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """The open document. pypdfium2's errors become ours here."""
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if pdfium.FPDF_GetLastError() in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise InputError("is encrypted", hint="save it without a password") from error
        raise InputError("is no PDF file that can be read, or damaged", hint="print it to a new PDF file") from error
    try:
        yield document
    except pypdfium2.PdfiumError as error:
        raise InputError(f"is damaged: {error}", hint="print it to a new PDF file") from error
    finally:
        document.close()
