"""From a tree of HTML elements to blocks, in one walk without recursion.

Why not markdownify: it recurses (a page of a thousand nested elements ends it), escapes by rules that cannot see
what stands around a character, and loses structure in cells and code. Here every open element is a frame on a stack,
and text is collected in *boxes*: the page, a quotation, a list, a table, and two that take everything as text: a flat
one (heading, cell) and a verbatim one (code).

Lists and quotations deeper than eight are written as if they were not nested: readers of Markdown have limits too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lxml.etree import _Element, iterwalk

from ilab.documents.html.blocks import Block, Code, Heading, List, Paragraph, Quote, Rule, trimmed
from ilab.documents.html.elements import (
    NO_TEXT,
    alternative,
    code_language,
    is_block,
    is_note_reference,
    math_source,
    name_of,
    own_text,
    verbatim,
)
from ilab.documents.html.hidden import Unseen
from ilab.documents.html.inline import cell, heading, image, paragraph
from ilab.documents.html.main import classes, is_admonition, is_furniture
from ilab.documents.html.runs import PLAIN, Link, Run, Style
from ilab.documents.html.tables import Grid, layout_tables

MAX_DEPTH = 8
_STYLES: dict[str, Style] = {
    **dict.fromkeys(("b", "strong", "summary", "dt"), Style(strong=True)),
    **dict.fromkeys(("i", "em", "cite", "var", "dfn"), Style(em=True)),
    **dict.fromkeys(("s", "strike", "del"), Style(strike=True)),
    **dict.fromkeys(("code", "kbd", "samp", "tt"), Style(code=True)),
}
_VERBATIM = frozenset({"pre", "listing", "xmp", "plaintext"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_LISTS = frozenset({"ul", "ol", "menu", "dir", "dl"})
_TITLES = ("admonition-title", "admonition-heading", "admonitionheading", "markdown-alert-title", "callout-title")

Resolve = Callable[[str], str]
"""The absolute form of an address; ``""`` for one that no reader could follow."""


@dataclass
class _Box:
    """Where blocks and text go. ``items`` are lists of blocks: one, or one for each item of a list."""

    kind: Literal["page", "quote", "list", "flat", "verbatim", "table"]
    element: _Element
    items: list[list[Block]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of the items of an ordered list
    grid: Grid = field(default_factory=Grid)
    in_paragraph: bool = False
    described: bool = False  # the last term of a definition list has its description

    @property
    def nests(self) -> bool:
        """Whether blocks may stand here."""
        return self.kind in ("page", "quote", "list")

    def add(self, block: Block) -> None:
        if not self.items:
            self.begin_item("")
        if not (isinstance(block, Rule) and self.items[-1][-1:] == [block]):  # two rules are one
            self.items[-1].append(block)

    def begin_item(self, value: str) -> None:
        """Begin an item, with the number ``value`` if that is one."""
        if self.kind == "list" and self.element.tag == "ol":
            first = self.element.get("start") or "" if not self.numbers else ""
            given = re.fullmatch(r"\s*(\d{1,9})\s*", value or first)
            following = self.numbers[-1] + 1 if self.numbers else 1
            self.numbers.append(int(given[1]) if given else min(following, 999_999_999))
        self.items.append([])


@dataclass(frozen=True)
class _Frame:
    """An open element, and what its end puts back."""

    element: _Element
    name: str
    style: Style
    box: _Box | None


def blocks(root: _Element, unseen: Unseen, resolve: Resolve, *, whole: bool) -> tuple[Block, ...]:
    """The blocks of ``root``, without what is ``unseen`` and, unless ``whole``, without the site's furniture."""
    writer = _Writer(unseen, resolve, layout_tables(root, unseen, whole=whole), [_Box("page", root)])
    skipped: _Element | None = None
    walk = iterwalk(root, events=("start", "end"))
    for event, element in walk:
        name = name_of(element)
        if event == "end":
            if element is not skipped:
                writer.end()
            if element is not root:
                writer.tail(element)
        elif element is not root and (name == "math" or writer.leaves_out(element, name, whole=whole)):
            if not writer.leaves_out(element, name, whole=whole):
                writer.text(math_source(element))
            skipped = element
            walk.skip_subtree()
        else:
            writer.start(element, name)
    return trimmed(writer.boxes[0].items[0] if writer.boxes[0].items else [])


@dataclass
class _Writer:
    unseen: Unseen
    resolve: Resolve
    layout: frozenset[_Element]
    boxes: list[_Box]
    style: Style = PLAIN
    frames: list[_Frame] = field(default_factory=list)

    def leaves_out(self, element: _Element, name: str, *, whole: bool) -> bool:
        if name in NO_TEXT or name in ("select", "textarea") or element in self.unseen.gone:
            return True
        return not whole and is_furniture(element, name)

    def text(self, text: str | None) -> None:
        if text:
            self.boxes[-1].runs.append(Run(text, self.style))

    def tail(self, element: _Element) -> None:
        """The text behind ``element`` belongs to the element around it."""
        if element.tail and self.frames and self.frames[-1].element not in self.unseen.mute:
            self.text(element.tail)

    def start(self, element: _Element, name: str) -> None:
        before = self.style
        if is_block(element, name):
            self._boundary(name)
        self.style = self._style(element, name)
        box = self._box(element, name)
        if box:
            self.boxes.append(box)
        self.frames.append(_Frame(element, name, before, box))
        self._enter(element, name)
        if element not in self.unseen.mute:
            self.text(own_text(element, name))

    def end(self) -> None:
        frame = self.frames.pop()
        if frame.name == "q":
            self.text("”")
        if is_block(frame.element, frame.name):
            self._boundary(frame.name)
        if frame.name == "p":
            self.boxes[-1].in_paragraph = False
        self.style = frame.style
        if frame.box:
            self._close(self.boxes.pop(), frame.name)

    def _style(self, element: _Element, name: str) -> Style:
        """The style inside ``element``; in code only links count."""
        style = self.style
        if name == "a":
            target = self._target(element)
            return style._replace(link=Link(target)) if target else style
        added = _STYLES.get(name)
        if added is None and not any(word.startswith(_TITLES) for word in classes(element)):
            return style
        added = added or Style(strong=True)
        if style.code:
            return style
        return Style(
            style.link,
            style.strong or added.strong,
            style.em or added.em,
            style.strike or added.strike,
            style.code or added.code,
        )

    def _target(self, link: _Element) -> str:
        """Where a link leads, if that is worth keeping: not to a footnote, nor from a heading to itself."""
        address = (link.get("href") or "").strip()
        from_heading = address.startswith("#") and bool(self.frames) and self.frames[-1].name in _HEADINGS
        if from_heading or is_note_reference(link):
            return ""
        return self.resolve(address) if address else ""

    def _box(self, element: _Element, name: str) -> _Box | None:
        """The box that ``element`` opens, if it does."""
        outer = self.boxes[-1]
        if outer.kind == "table":
            return _Box("flat", element) if name in ("td", "th", "caption") else None
        if not outer.nests:
            return None
        if name in _HEADINGS:
            return _Box("flat", element)
        if name in _VERBATIM:
            return _Box("verbatim", element)
        if name == "table":
            return None if element in self.layout else _Box("table", element)
        if sum(box.kind in ("quote", "list") for box in self.boxes) >= MAX_DEPTH:
            return None
        if name in _LISTS:
            return _Box("list", element)
        return _Box("quote", element) if name == "blockquote" or is_admonition(element) else None

    def _enter(self, element: _Element, name: str) -> None:
        """What the beginning of ``element`` adds by itself."""
        box = self.boxes[-1]
        if name == "br":
            self._break()
        elif name == "img":
            self._image(element)
        elif name == "hr" and box.nests:
            box.add(Rule())
        elif name == "p":
            box.in_paragraph = True
        elif name == "q":
            self.text("“")
        elif name == "tr" and box.kind == "table":
            box.grid.row()
        elif box.kind == "list" and name in ("li", "dt", "dd"):
            self._item(box, element, name)
        elif name == "input" and element.get("type") == "checkbox" and box.kind == "list":
            box.runs.append(Run("[x] " if element.get("checked") is not None else "[ ] "))
        elif name == "i" and element.get("title") and "icon" in (element.get("class") or "") and box.nests:
            box.runs.append(Run(element.get("title") or "", Style(strong=True)))  # Asciidoctor's "Note", "Warning"

    def _item(self, box: _Box, element: _Element, name: str) -> None:
        """A list item; in a list of definitions, terms and what describes them are one."""
        if name == "li":
            box.begin_item(element.get("value") or "")
        elif name == "dt" and (box.described or not box.items):
            box.begin_item("")
        box.described = name == "dd"

    def _break(self) -> None:
        box = self.boxes[-1]
        if box.kind == "verbatim":
            self.text("\n")
            return
        before = next((run for run in reversed(box.runs) if run.kind != "text" or run.text.strip()), None)
        if before and before.kind == "break":  # an empty line is as good as a new paragraph
            self._boundary("br")
        else:
            box.runs.append(Run("", self.style, "break"))

    def _image(self, element: _Element) -> None:
        words, address = alternative(element)
        if words and self.boxes[-1].kind != "verbatim":
            url = self.resolve(address) if address else ""
            self.boxes[-1].runs.append(Run(image(words, url), self.style, "image") if url else Run(words, self.style))

    def _boundary(self, name: str) -> None:
        """A block begins or ends here: what was collected is a paragraph."""
        box = self.boxes[-1]
        if box.kind == "flat":
            box.runs.append(Run(" "))
        elif box.kind == "verbatim":
            if name not in ("td", "th") and box.runs and box.runs[-1].text[-1] != "\n":
                box.runs.append(Run("\n"))
        elif box.runs:
            text = paragraph(box.runs)
            box.runs.clear()
            if text and box.kind == "table":
                box.grid.loose.append(text)
            elif text:
                box.add(Paragraph(text, spaced=box.in_paragraph))

    def _close(self, box: _Box, name: str) -> None:
        """Add what ``box`` has become to the box around it."""
        outer = self.boxes[-1]
        if box.kind == "flat":
            self._close_flat(box, name, outer)
        elif box.kind == "verbatim":
            text = verbatim(run.text for run in box.runs)
            if text:
                outer.add(Code(text, code_language(box.element)))
        elif box.kind == "table":
            for text in box.grid.loose:
                outer.add(Paragraph(text))
            table = box.grid.table()
            if table:
                outer.add(table)
        elif box.kind == "quote":
            inside = trimmed(box.items[0] if box.items else [])
            if inside:
                outer.add(Quote(inside))
        else:
            self._close_list(box, outer)

    def _close_flat(self, box: _Box, name: str, outer: _Box) -> None:
        if name in _HEADINGS:
            bold = all(run.style.strong for run in box.runs if run.kind == "text" and run.text.strip())
            runs = [run._replace(style=run.style._replace(strong=False)) for run in box.runs] if bold else box.runs
            text = heading(runs)
            if text:
                outer.add(Heading(int(name[1]), text))
        elif name == "caption":
            outer.grid.loose.append(paragraph(box.runs))
        else:
            outer.grid.cell(cell(box.runs), box.element)

    def _close_list(self, box: _Box, outer: _Box) -> None:
        items = [trimmed(item) for item in box.items]
        kept = [at for at, item in enumerate(items) if item]
        if kept:
            outer.add(List(tuple(items[at] for at in kept), tuple(box.numbers[at] for at in kept if box.numbers)))
