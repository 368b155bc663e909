"""Word files (DOCX): headings, lists, tables and footnotes, by mammoth.

    archive ──docx_parts──▶ the body without what nobody sees ──mammoth──▶ HTML ──html.to_markdown──▶ Markdown

mammoth gets an archive made anew in memory: body, notes, styles and lists, nothing else. No picture, macro, embedded
file or external address is in it. Headings are what Word's outline says they are, whatever a style's name is.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any
from xml.parsers.expat import ExpatError

import lxml.html
import mammoth

from ilab.documents.converted import Converted
from ilab.documents.html.reader import to_markdown
from ilab.documents.office.archive import Archive
from ilab.documents.office.docx_parts import HEADING, TITLE, Package
from ilab.errors import InputError

_STYLES = "\n".join(
    [
        *(f"p.{HEADING}{level} => h{min(level, 6)}:fresh" for level in range(1, 10)),
        f"p.{TITLE} => h1:fresh",
        "p[style-name='Source Code'] => pre:separator('\\n')",
        "p[style-name='HTML Preformatted'] => pre:separator('\\n')",
        "r[style-name='Verbatim Char'] => code",
        "r[style-name='HTML Code'] => code",
        "p[style-name='Quote'] => blockquote > p:fresh",
        "p[style-name='Intense Quote'] => blockquote > p:fresh",
    ]
)
# mammoth does not say what it raises: these come from XML that no Word program writes.
_FOREIGN = (LookupError, ValueError, TypeError, AttributeError, OSError, RecursionError, ExpatError, zipfile.BadZipFile)
_NOTE = re.compile(r"^\\\[\^(?=\d+\]: )", re.MULTILINE)
_JUNK_TITLE = re.compile(r"(?:document|dokument|untitled|word document)?\s*\d*$", re.IGNORECASE)


def read(data: bytes) -> Converted:
    """The text of a Word file. Raises ``InputError`` for files that are damaged, protected, or no DOCX."""
    archive = Archive(data)
    package = Package(archive)
    body = package.cleaned()
    try:
        html = mammoth.convert_to_html(
            io.BytesIO(body), style_map=_STYLES, include_embedded_style_map=False, convert_image=lambda image: []
        ).value
    except _FOREIGN as error:
        hint = "save it again as .docx"
        raise InputError(
            f"is damaged: its XML is not that of a Word file ({type(error).__name__})", hint=hint
        ) from error
    page = to_markdown(_finished(html), whole=True)
    title = package.title()
    return Converted(_NOTE.sub("[^", page.text), "" if _JUNK_TITLE.match(title) else title, (), package.hidden)


def _finished(html: str) -> str:
    """mammoth's HTML with notes as ``[^1]`` in the text and ``[^1]: …`` below it, without links inside the file, and
    with the first row of each table as its header: Word has no other."""
    if not html.strip():
        return "<html><body></body></html>"
    root: Any = lxml.html.document_fromstring(f"<html><body>{html}</body></html>")
    numbers: dict[str, str] = {}
    for link in list(root.iter("a")):
        href = link.get("href") or ""
        if re.match(r"#(?:foot|end)note-ref-", href):
            link.drop_tree()
        elif re.match(r"#(?:foot|end)note-", href):
            number = numbers.setdefault(href[1:], str(len(numbers) + 1))
            sup = link.getparent()
            target = sup if sup is not None and sup.tag == "sup" and len(sup) == 1 else link
            span = lxml.html.Element("span")
            span.text = f"[^{number}]"
            span.tail = target.tail
            parent = target.getparent()
            if parent is not None:
                parent.replace(target, span)
        elif not re.match(r"(?:https?|mailto):", href, re.IGNORECASE):
            link.drop_tag()
    for table in root.iter("table"):
        row = next(table.iter("tr"), None)
        for cell in row if row is not None and not any(True for _ in table.iter("th")) else ():
            cell.tag = "th"
    for item in list(root.iter("li")):
        if item.get("id") in numbers:
            _set_note(item, numbers[item.get("id") or ""])
    return str(lxml.html.tostring(root, encoding="unicode"))


def _set_note(item: Any, number: str) -> None:
    """Make a paragraph ``[^1]: …`` of a note in the list at the end."""
    holder = item.getparent()
    first = next(item.iter("p"), item)
    first.text = f"[^{number}]: {(first.text or '').lstrip()}"
    item.drop_tag()
    if holder is not None and holder.tag == "ol" and not any(child.tag == "li" for child in holder):
        holder.drop_tag()
