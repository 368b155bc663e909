"""What a Word file's styles say of a paragraph or run: its outline level, and whether it can be seen.

A property stands at the run, else at its character style, else at its paragraph's style, else at the styles these are
based on. ECMA-376-1, section 17.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from lxml import etree

_DEEPEST = 20  # styles based on styles
_HEADINGS = {f"heading {level}": level for level in range(1, 10)}
_OFF = ("0", "false", "off")
_PROPERTIES = 50
_SMALLEST = 2  # half points
_PAPER = ("", "auto", "FFFFFF")


class Styles:
    """The styles of a file, by id. A file may have none."""

    def __init__(self, root: etree._Element | None) -> None:
        self._styles: dict[str, etree._Element] = {}
        for style in root.iter("{*}style") if root is not None else ():
            self._styles.setdefault(value(style, "styleId"), style)

    def outline_level(self, paragraph: etree._Element) -> int:
        """1 to 9 for a heading, else 0."""
        properties = child(paragraph, "pPr")
        for holder, style in [(properties, None), *self._chain(properties, "pStyle")]:
            found = child(holder, "outlineLvl")
            if found is not None:
                level = value(found, "val")
                return int(level) + 1 if level in list("012345678") else 0
            name = value(child(style, "name"), "val").lower()
            if name in _HEADINGS:
                return _HEADINGS[name]
        return 0

    def is_title(self, paragraph: etree._Element) -> bool:
        """Whether a paragraph is the document's title."""
        chain = self._chain(child(paragraph, "pPr"), "pStyle")
        return any(value(child(style, "name"), "val").lower() == "title" for _, style in chain)

    def unseen(self, run: etree._Element) -> str:
        """Why nobody sees a run's text, else ``""``."""
        vanish = self._property(run, "vanish")
        if vanish is not None and value(vanish, "val") not in _OFF:
            return "hidden"
        size = value(self._property(run, "sz"), "val")
        if size.isdecimal() and len(size) < 9 and int(size) < _SMALLEST:
            return "smaller than a point"
        colour = value(self._property(run, "color"), "val").upper()
        if colour == "FFFFFF" and not self._is_shaded(run):
            return "white on white"
        return ""

    def _property(self, run: etree._Element, name: str) -> etree._Element | None:
        """The nearest element ``name`` among the run properties that hold for a run."""
        own = child(run, "rPr")
        paragraph = next((up for up in run.iterancestors() if local(up) == "p"), None)
        holders = [own, *(child(style, "rPr") for _, style in self._chain(own, "rStyle"))]
        holders += [child(style, "rPr") for _, style in self._chain(child(paragraph, "pPr"), "pStyle")]
        return next((found for holder in holders if (found := child(holder, name)) is not None), None)

    def _is_shaded(self, run: etree._Element) -> bool:
        """Whether something other than white paper lies under a run, or may: a table's style can shade its rows."""
        if self._property(run, "highlight") is not None:
            return True
        shades = [self._property(run, "shd")]
        for up in run.iterancestors():
            kind = local(up)
            if kind == "tbl" and child(child(up, "tblPr"), "tblStyle") is not None:
                return True
            if kind == "document" and child(up, "background") is not None:
                return True
            shades.append(child(child(up, f"{kind}Pr"), "shd"))
            if kind == "p":
                shades += [child(holder, "shd") for holder, _ in self._chain(child(up, "pPr"), "pStyle")]
        return any(shade is not None and value(shade, "fill").upper() not in _PAPER for shade in shades)

    def _chain(
        self, properties: etree._Element | None, name: str
    ) -> Iterator[tuple[etree._Element | None, etree._Element]]:
        """Paragraph properties and style of the style named in ``properties``, and of those it is based on."""
        key = value(child(properties, name), "val")
        for _ in range(_DEEPEST):
            style = self._styles.get(key)
            if style is None:
                return
            yield child(style, "pPr"), style
            key = value(child(style, "basedOn"), "val")


def local(element: etree._Element) -> str:
    """An element's name without its namespace; ``""`` for an entity."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def child(element: etree._Element | None, name: str) -> etree._Element | None:
    """The child with a local name, if it is among the first: properties come first, and there are not so many."""
    first = islice(element, _PROPERTIES) if element is not None else ()
    return next((entry for entry in first if local(entry) == name), None)


def values(element: etree._Element, *names: str) -> list[etree._Element]:
    """The children with one of the local names."""
    return [entry for entry in element if local(entry) in names]


def value(element: etree._Element | None, name: str) -> str:
    """An attribute by its local name, ``""`` where there is none."""
    if element is None:
        return ""
    return next((str(text) for key, text in element.attrib.items() if str(key).rpartition("}")[2] == name), "")
