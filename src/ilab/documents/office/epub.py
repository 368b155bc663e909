"""EPUB books (2 and 3): the chapters in reading order, each an HTML page converted as a whole.

``META-INF/container.xml`` names the package file, whose manifest lists the members and whose spine gives the order.
Navigation, covers and what is not in the linear order are left out. Pictures and styles are not read. A book with
content protection is refused; obfuscated fonts are none. EPUB 3.3, sections 4.2.6 (container), 5.6 and 5.7 (package).
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from lxml import etree

from ilab.documents.converted import Converted, Hidden
from ilab.documents.html.reader import to_markdown
from ilab.documents.office.archive import Archive, resolved
from ilab.errors import InputError

MAX_CHAPTERS = 5_000
_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_FONT_METHODS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_SKIPPED = frozenset({"cover", "toc", "title-page", "titlepage", "landmarks", "loi", "lot"})


def read(data: bytes) -> Converted:
    """The text of a book. Raises ``InputError`` for files that are damaged, protected, or no EPUB."""
    archive = Archive(data)
    if _CONTAINER not in archive.names:
        raise InputError("is a ZIP archive, but no EPUB book", hint="give the file its right name")
    _refuse_protection(archive)
    path = _package_path(archive)
    package = archive.xml(path)
    texts: list[str] = []
    hidden: list[Hidden] = []
    for name in _chapters(archive, package, path):
        page = to_markdown(archive.read(name), whole=True)
        if page.text.strip():
            texts.append(page.text.strip("\n"))
        hidden += [Hidden(found.kind, f"{name}, {found.place}", found.text) for found in page.hidden]
    if not texts:
        raise InputError("holds no text")
    return Converted("\n\n".join(texts) + "\n", _title(package), (), tuple(hidden))


def _refuse_protection(archive: Archive) -> None:
    if _ENCRYPTION not in archive.names:
        return
    for method in _named(archive.xml(_ENCRYPTION), "EncryptionMethod"):
        if method.get("Algorithm") not in _FONT_METHODS:
            raise InputError("is protected against copying (DRM)", hint="use an edition without protection")


def _package_path(archive: Archive) -> str:
    for entry in _named(archive.xml(_CONTAINER), "rootfile"):
        path = unquote(entry.get("full-path") or "")
        if path in archive.names:
            return path
    raise InputError("names no package file", hint="it is damaged; get it anew")


def _chapters(archive: Archive, package: etree._Element, path: str) -> Iterator[str]:
    """The members that hold the text, in reading order, each once."""
    items = {entry.get("id"): entry for entry in _named(package, "item")}
    skipped = {
        resolved(path, unquote(entry.get("href") or ""))
        for entry in _named(package, "reference")
        if (entry.get("type") or "").lower() in _SKIPPED
    }
    found: set[str] = set()
    names = frozenset(archive.names)
    for entry in _named(package, "itemref"):
        item = items.get(entry.get("idref"))
        if item is None or entry.get("linear") == "no" or item.get("media-type") not in _PAGES:
            continue
        name = resolved(path, unquote(item.get("href") or ""))
        if "nav" in (item.get("properties") or "").split() or name in skipped or name in found or name not in names:
            continue
        found.add(name)
        if len(found) > MAX_CHAPTERS:
            raise InputError(f"has more than {MAX_CHAPTERS} chapters")
        yield name


def _title(package: etree._Element) -> str:
    for entry in _named(package, "title"):
        title = " ".join("".join(str(part) for part in entry.itertext()).split())
        if title:
            return title[:300]
    return ""


def _named(root: etree._Element, name: str) -> Iterator[etree._Element]:
    """The elements below ``root`` with a local name, whatever their namespace."""
    return root.iter(f"{{*}}{name}")
