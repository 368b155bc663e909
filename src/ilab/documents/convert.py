"""From the bytes of a document file to a Document whose text does not depend on accidents of formatting.

    bytes ──reader of the format──▶ Converted ──normalise──▶ Converted ──document──▶ Document

The reader is chosen by the file's suffix, and only if the bytes are of that format: a web page saved as ``.pdf`` is
refused in plain words. Every reader gives Markdown; what is done here to all of them alike is to drop blanks at line
ends and repeated blank lines outside code blocks. Conversions that take long are kept by content in a memo.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from itertools import pairwise
from pathlib import PurePosixPath

from ilab.core.memo import Memo
from ilab.data import Document, Flag, digest_text
from ilab.documents.converted import Converted, Hidden, Reader
from ilab.documents.markdown import blocks, closes, fence_mark
from ilab.documents.text import clean, read_markdown, read_plain
from ilab.errors import InputError

MARKDOWN = (".md", ".markdown")
HTML = (".html", ".htm", ".xhtml")
KINDS = (*MARKDOWN, ".txt", *HTML, ".pdf", ".docx", ".epub")
BINARY = (".pdf", ".docx", ".epub")  # the others are text in UTF-8 or, for HTML, in the encoding that it names

# What a format's text depends on beside the file: the version of our reader and the library behind it.
_KEPT = {".pdf": (1, "pypdfium2"), ".docx": (1, "mammoth"), ".epub": (1, "lxml")}
_LOOKED_AT = 1024  # bytes in which a format has to show itself
_MAGIC = (
    (b"%PDF-", ".pdf", "a PDF file"),
    (b"PK\x03\x04", "", "a ZIP archive"),
    (b"PK\x05\x06", "", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".doc", "an old or encrypted Office file"),
    (b"{\\rtf", ".rtf", "an RTF file"),
    (b"\x89PNG", ".png", "a picture"),
    (b"\xff\xd8\xff", ".jpg", "a picture"),
    (b"GIF8", ".gif", "a picture"),
    (b"\x1f\x8b", ".gz", "a gzip file"),
    (b"\x7fELF", "", "a program"),
    (b"version https://git-lfs.github.com/spec", "", "a Git LFS pointer, not the file itself"),
)
_PLACE = re.compile(r"(:\d+){1,2}$")
_HTML_HEAD = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


def read(data: bytes, name: str, memo: Memo | None = None, *, converter: str = "builtin") -> Converted:
    """The Markdown of a document file, normalised. ``name`` (a file name or path) tells the format by its suffix.

    With ``memo`` a conversion of PDF, DOCX or EPUB is made once per content. ``converter`` is ``builtin`` or
    ``docling`` (PDF, DOCX and HTML by the docling library). Raises ``InputError`` (without ``where``) for data that are
    damaged, encrypted, too large or not of the format, ``SetupError`` where docling is not installed.
    """
    suffix = PurePosixPath(name).suffix.lower()
    _check(data, suffix)
    key = _key(data, suffix, converter) if memo else ""
    kept = memo.get(key) if memo and key else None
    if isinstance(kept, dict):
        hidden = tuple(Hidden(**entry) for entry in kept["hidden"])
        return Converted(kept["text"], kept["title"], tuple(kept["pages"]), hidden)
    converted = normalise(_reader(suffix, name, converter)(data), tidy=suffix != ".txt")
    if memo and key:
        memo.put(key, asdict(converted))
    return converted


def document(converted: Converted, leaf: str, source: str, *, flags: tuple[Flag, ...] = ()) -> Document:
    """The Document of a conversion. ``source`` is ``repo@ref:path``, ``path``, an address, or ``path:line:column``.

    The title is the file's own, else the first heading of level 1, else the file's name (for a text that stands in the
    ``qna.yaml`` the leaf's). ``id`` is the hash of the converted text.
    """
    inline = _PLACE.search(source)
    name = PurePosixPath(leaf).name if inline else PurePosixPath(source.rpartition(":")[2]).stem
    headings = (block.title for block in blocks(converted.text) if block.level == 1 and block.title)
    return Document(
        id=digest_text(converted.text),
        leaf=leaf,
        source=source,
        title=converted.title or next(headings, name),
        text=converted.text,
        pages=converted.pages,
        flags=flags,
    )


def normalise(converted: Converted, *, tidy: bool = True) -> Converted:
    """``converted`` with clean text, one line end at its end, and page starts where they now stand.

    ``tidy`` also drops blanks at line ends and repeated blank lines outside code blocks.
    """
    text, pages = _clean_pages(converted.text, converted.pages)
    if tidy:
        text, pages = _tidy(text, pages)
    body = text.lstrip("\n")
    before = len(text) - len(body)
    body = body.rstrip("\n") + "\n" if body.strip() else ""
    pages = tuple(min(max(page - before, 0), len(body)) for page in pages)
    title = " ".join(clean(converted.title).split())
    return Converted(body, title, pages, converted.hidden)


def _reader(suffix: str, name: str, converter: str) -> Reader:
    if converter == "docling" and suffix in (*HTML, *BINARY) and suffix != ".epub":
        from ilab.documents import docling

        return lambda data: docling.read(data, name)
    if suffix in MARKDOWN:
        return read_markdown
    if suffix == ".txt":
        return read_plain
    if suffix in HTML:
        from ilab.documents.html import reader as html

        return html.read
    if suffix == ".pdf":
        from ilab.documents.pdf import process as pdf_process

        return pdf_process.read
    if suffix == ".docx":
        from ilab.documents.office import docx

        return docx.read
    from ilab.documents.office import epub

    return epub.read


def _check(data: bytes, suffix: str) -> None:
    """Refuses data that are plainly not what the suffix says."""
    if suffix not in KINDS:
        hint = f"these are read: {', '.join(KINDS)}; convert the file"
        raise InputError(f"cannot read documents of the kind `{suffix or 'without a suffix'}`", hint=hint)
    if not data and suffix in BINARY:
        raise InputError("is empty")
    head = data[:_LOOKED_AT]
    found, name = next(
        ((kind, name) for magic, kind, name in _MAGIC if head.startswith(magic)), _other_kind(head, suffix)
    )
    right = {".pdf": b"%PDF-" in head, ".docx": head[:2] == b"PK", ".epub": head[:2] == b"PK"}
    if right.get(suffix, not name):
        return
    hint = "give the file its right name, or save it again in that format"
    if found in KINDS:
        hint = f"if that is right, rename it to end in {found}"
    elif found == ".doc":
        hint = "save it as .docx, without a password"
    raise InputError(f"is named {suffix} but is {name or 'something else'}", hint=hint)


def _other_kind(head: bytes, suffix: str) -> tuple[str, str]:
    """The kind of data without a magic number, where the suffix promises one."""
    if suffix in BINARY and _HTML_HEAD.search(head):
        return ".html", "a web page"
    return "", ""


def _key(data: bytes, suffix: str, converter: str) -> str:
    """The memo's key of a conversion, or ``""`` for a format that is read as fast as the memo."""
    if converter == "docling" and suffix in (*HTML, *BINARY) and suffix != ".epub":
        from ilab.documents import docling

        return f"document{suffix}/docling-{docling.installed()}/{sha256(data).hexdigest()}"
    if suffix not in _KEPT:
        return ""
    own, library = _KEPT[suffix]
    return f"document{suffix}/{own}/{library}-{version(library)}/{sha256(data).hexdigest()}"


def _clean_pages(text: str, pages: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """``clean`` page by page, so that the page starts are known afterwards."""
    ends = [*pages, len(text)]
    pieces = [clean(text[: ends[0]])]
    starts = []
    length = len(pieces[0])
    for start, end in pairwise(ends):
        starts.append(length)
        pieces.append(clean(text[start:end]))
        length += len(pieces[-1])
    return "".join(pieces), tuple(starts)


def _tidy(text: str, pages: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """Drop blanks at line ends and repeated blank lines outside code blocks."""
    kept: list[str] = []
    moved: list[int] = []
    fence = ""
    read_to = written = 0  # where the line begins, before and after
    for line in text.split("\n"):
        shown = line if fence else line.rstrip()
        while len(moved) < len(pages) and pages[len(moved)] <= read_to + len(line):
            moved.append(written + min(pages[len(moved)] - read_to, len(shown)))
        if fence or shown or (kept and kept[-1]):
            kept.append(shown)
            written += len(shown) + 1
        fence = ("" if closes(line, fence) else fence) if fence else fence_mark(shown)
        read_to += len(line) + 1
    return "\n".join(kept), tuple(moved)
