"""The parts of a Word file, read through the archive's guard and cleaned for mammoth.

What nobody sees leaves the body and is told: hidden and deleted text, white text where nothing is shaded, text under 1
point. What mammoth does not know becomes plain: text boxes are paragraphs, formulas their letters. What is not text
goes: pictures, embedded objects, links that do not lead to the web. ECMA-376-1, sections 17.3 (text), 17.7 (styles),
17.13.5 (tracked changes).
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator

from lxml import etree

from ilab.documents.converted import Hidden
from ilab.documents.office.archive import Archive, resolved
from ilab.documents.office.docx_styles import Styles, child, local, value, values
from ilab.errors import InputError

HEADING, TITLE = "IlabHeading", "IlabTitle"  # styles that paragraphs get by their outline level
MAX_ELEMENTS = 200_000  # of one part after cleaning: about two thousand pages
MAX_NOTES = 5_000  # references; mammoth takes time with their square
_MOST_HIDDEN = 100
_WIDEST = 63  # columns that a cell may span, as in Word itself
_GONE = frozenset(
    {
        *("drawing", "pict", "object", "control", "altChunk", "rt", "bookmarkStart", "bookmarkEnd"),
        *("commentReference", "commentRangeStart", "commentRangeEnd"),
        *("moveFrom", "moveFromRangeStart", "moveFromRangeEnd"),
        *("proofErr", "sectPr", "tblGrid", "tblPr", "lastRenderedPageBreak"),
    }
)
_KEPT = {  # of the properties: the others are layout, and each is a cost to mammoth
    "rPr": frozenset({"del", "rStyle", "b", "i", "strike", "vertAlign"}),
    "pPr": frozenset({"pStyle", "numPr", "rPr"}),
    "tcPr": frozenset({"gridSpan", "vMerge"}),
    "trPr": frozenset({"tblHeader"}),
}
_DEEPEST_LIST = 4  # mammoth knows five levels
_WEB = re.compile(r"(?:https?|mailto):", re.IGNORECASE)
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_LINK = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"
_MAIN = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
_XML_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_TYPES = b"""<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="xml" ContentType="application/xml"/></Types>"""


class Package:
    """A Word file. ``hidden`` is filled by :meth:`cleaned`."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._hidden: list[Hidden] = []
        self._document = self._find_document()
        self._parts = dict(_by_kind(self._relations(self._document), self._document))
        styles = self._part("styles", "word/styles.xml")
        self.styles = Styles(archive.xml(styles) if styles else None)

    @property
    def hidden(self) -> tuple[Hidden, ...]:
        return tuple(self._hidden)

    def title(self) -> str:
        """The title in the file's properties, or ``""``."""
        if "docProps/core.xml" not in self.archive.names:
            return ""
        for entry in self.archive.xml("docProps/core.xml").iter("{*}title"):
            return " ".join((entry.text or "").split())[:300]
        return ""

    def cleaned(self) -> bytes:
        """A Word file with nothing but the visible text, for mammoth. Raises ``InputError``."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
            made.writestr("[Content_Types].xml", _TYPES)
            made.writestr("_rels/.rels", _relations({"main": ("word/document.xml", _MAIN, False)}))
            self._add(made, self._document, "document")
            for name in ("footnotes", "endnotes"):
                part = self._part(name, f"word/{name}.xml")
                if part:
                    self._add(made, part, name)
            for name in ("styles", "numbering"):
                part = self._part(name, f"word/{name}.xml")
                if part:
                    root = self.archive.xml(part)
                    _refuse_too_many(root)
                    made.writestr(f"word/{name}.xml", etree.tostring(root))
        return out.getvalue()

    def _add(self, made: zipfile.ZipFile, part: str, name: str) -> None:
        """Clean a part with text and write it with its links."""
        links = {
            key: target
            for key, (kind, target, external) in self._relations(part).items()
            if external and kind == "hyperlink" and _WEB.match(target)
        }
        root = self.archive.xml(part)
        self._hidden += _Cleaning(root, self.styles, links, "" if name == "document" else f"{name}, ").run()
        del self._hidden[_MOST_HIDDEN:]
        made.writestr(f"word/{name}.xml", etree.tostring(root))
        found = {key: (target, _LINK, True) for key, target in links.items()}
        made.writestr(f"word/_rels/{name}.xml.rels", _relations(found))

    def _find_document(self) -> str:
        found = dict(_by_kind(self._relations(""), ""))
        for path in (found.get("officeDocument", ""), "word/document.xml"):
            if path in self.archive.names:
                return path
        raise InputError("is a ZIP archive, but no Word file", hint="give the file its right name")

    def _part(self, kind: str, usual: str) -> str:
        """The member that holds a part, or ``""``."""
        return next((path for path in (self._parts.get(kind, ""), usual) if path in self.archive.names), "")

    def _relations(self, part: str) -> dict[str, tuple[str, str, bool]]:
        """Kind, target and whether it lies outside of every relation of a member, by its id."""
        folder, _, name = part.rpartition("/")
        path = f"{folder}/_rels/{name}.rels" if folder else f"_rels/{name}.rels"
        if path not in self.archive.names:
            return {}
        return {
            entry.get("Id") or "": (
                (entry.get("Type") or "").rpartition("/")[2],
                entry.get("Target") or "",
                entry.get("TargetMode") == "External",
            )
            for entry in self.archive.xml(path).iter("{*}Relationship")
        }


class _Cleaning:
    """Takes out of one part what nobody sees and what is no text."""

    def __init__(self, root: etree._Element, styles: Styles, links: dict[str, str], prefix: str) -> None:
        self.root = root
        self.styles = styles
        self.links = links
        self.prefix = prefix
        self.found: list[Hidden] = []

    def run(self) -> list[Hidden]:
        self._lift_text_boxes()
        self._plain_formulas()
        self._take_hidden()
        for element in list(self.root.iter("{*}p")):
            self._mark_heading(element)
        for element in list(self.root.iter(etree.Element)):
            self._tame(element)
        _refuse_too_many(self.root)
        return self.found

    def _lift_text_boxes(self) -> None:
        """Text boxes become paragraphs behind the one that holds them; of two forms of a box the newer counts."""
        for element in list(self.root.iter("{*}Fallback")):
            parent = element.getparent()
            if parent is not None and any(True for choice in parent.iter("{*}Choice") for _ in choice.iter("{*}p")):
                _remove(element)
        for box in list(self.root.iter("{*}txbxContent")):
            holder = next((up for up in box.iterancestors() if local(up) == "p"), None)
            if holder is not None:
                for paragraph in reversed([entry for entry in box if local(entry) in ("p", "tbl")]):
                    holder.addnext(paragraph)

    def _plain_formulas(self) -> None:
        """Formulas (OMML) become runs of their letters."""
        for formula in list(self.root.iter("{*}oMath")):
            text = "".join(part.text or "" for part in formula.iter("{*}t"))
            paragraph = next((up for up in formula.iterancestors() if local(up) == "p"), None)
            if paragraph is None or paragraph.nsmap.get("w") is None:
                continue
            space = etree.QName(paragraph).namespace
            run = etree.Element(f"{{{space}}}r")
            letters = etree.SubElement(run, f"{{{space}}}t", {_XML_SPACE: "preserve"})
            letters.text = text
            run.tail = formula.tail
            parent = formula.getparent()
            if parent is not None:
                parent.replace(formula, run)
        for holder in list(self.root.iter("{*}oMathPara", "{*}ruby", "{*}rubyBase")):
            _unwrap(holder)

    def _take_hidden(self) -> None:
        """Remove deleted and invisible text and tell it, the text of a paragraph together."""
        number = 0
        for element in list(self.root.iter("{*}p", "{*}tr", "{*}del", "{*}moveFrom", "{*}r")):
            kind = local(element)
            if kind == "p":
                number += 1
            elif kind == "r" and element.getparent() is not None:
                why = self.styles.unseen(element)
                if why:
                    self._tell(number, why, "".join(_letters(element)))
                    _remove(element)
            elif kind == "tr" and child(child(element, "trPr"), "del") is not None:
                self._tell(number, "deleted", " ".join(_letters(element)))
                _remove(element)
            elif kind in ("del", "moveFrom"):
                self._tell(number, "deleted", "".join(_letters(element)))
                if any(local(entry) == "r" for entry in element):
                    _remove(element)

    def _tell(self, number: int, why: str, text: str) -> None:
        if not text.strip():
            return
        place = f"{self.prefix}paragraph {number} ({why})"
        if self.found and self.found[-1].place == place:
            self.found[-1] = Hidden("hidden-text", place, (self.found[-1].text + text)[:2000])
        elif len(self.found) < _MOST_HIDDEN:
            self.found.append(Hidden("hidden-text", place, text.strip()[:2000]))

    def _mark_heading(self, paragraph: etree._Element) -> None:
        """Give a paragraph with an outline level the style that mammoth makes a heading of."""
        level = self.styles.outline_level(paragraph)
        name = f"{HEADING}{level}" if level else TITLE if self.styles.is_title(paragraph) else ""
        if not name:
            return
        space = etree.QName(paragraph).namespace
        properties = child(paragraph, "pPr")
        if properties is None:
            properties = etree.Element(f"{{{space}}}pPr")
            paragraph.insert(0, properties)
        for old in values(properties, "pStyle", "numPr"):
            properties.remove(old)
        etree.SubElement(properties, f"{{{space}}}pStyle", {f"{{{space}}}val": name})

    def _tame(self, element: etree._Element) -> None:
        """Remove what is no text, and what mammoth would stumble over."""
        kind = local(element)
        if kind in _KEPT:
            for entry in list(element):
                if local(entry) not in _KEPT[kind]:
                    element.remove(entry)
        elif kind == "ilvl":
            level = value(element, "val")
            known = level in [str(number) for number in range(_DEEPEST_LIST)]
            element.set(f"{{{etree.QName(element).namespace}}}val", level if known else str(_DEEPEST_LIST))
        elif kind in _GONE or (kind == "sym" and not re.fullmatch(r"[0-9A-Fa-f]{2,6}", value(element, "char"))):
            _remove(element)
        elif kind == "gridSpan":
            span = value(element, "val")
            space = etree.QName(element).namespace
            wide = min(int(span), _WIDEST) if span.isdecimal() and len(span) < 9 else 1
            element.set(f"{{{space}}}val", str(max(wide, 1)))
        elif kind == "hyperlink":
            kept = [name for name in element.attrib if local_name(str(name)) == "id"]
            for name in list(element.attrib):
                if name not in kept or element.get(name) not in self.links:
                    del element.attrib[name]
        elif kind == "instrText" and "HYPERLINK" in (element.text or "") and not _WEB.search(element.text or ""):
            element.text = ""


def _refuse_too_many(root: etree._Element) -> None:
    if sum(1 for _ in root.iter()) > MAX_ELEMENTS:
        raise InputError(f"holds more than {MAX_ELEMENTS} pieces of text and layout", hint="divide the document")
    if sum(1 for _ in root.iter("{*}footnoteReference", "{*}endnoteReference")) > MAX_NOTES:
        raise InputError(f"refers to notes more than {MAX_NOTES} times", hint="divide the document")


def local_name(name: str) -> str:
    """An attribute's name without its namespace."""
    return name.rpartition("}")[2]


def _letters(element: etree._Element) -> Iterator[str]:
    for part in element.iter("{*}t", "{*}delText", "{*}tab"):
        yield part.text or " "


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _unwrap(element: etree._Element) -> None:
    """Put an element's children in its place."""
    for entry in list(element):
        element.addprevious(entry)
    _remove(element)


def _by_kind(relations: dict[str, tuple[str, str, bool]], part: str) -> Iterator[tuple[str, str]]:
    for kind, target, external in relations.values():
        if not external:
            yield kind, resolved(part, target)


def _relations(entries: dict[str, tuple[str, str, bool]]) -> bytes:
    """A relations part: target, type and whether external by id."""
    root = etree.Element(f"{{{_RELATIONS}}}Relationships")
    for key, (target, kind, external) in entries.items():
        entry = etree.SubElement(root, f"{{{_RELATIONS}}}Relationship", {"Id": key, "Type": kind, "Target": target})
        if external:
            entry.set("TargetMode", "External")
    return etree.tostring(root)
