"""Which text of a page nobody sees, by what the page itself says: attributes, ``style``, simple rules in ``<style>``.

An element is *gone* when it and all it holds are unseen (``hidden``, ``display: none``, no opacity, off the page,
clipped away), and *mute* when only its own text is (invisible, zero size, the colour of what is behind it): a child can
undo that. Closed ``<details>`` and the panels of a tab bar show on a click: they are seen. A page is taken to be white
only if no style sheet could have painted it.

What is told: unseen text of at least three words, at most twenty places of a page, the longest first. Menus, dialogs,
tooltips and texts for screen readers are hidden on nearly every site and nobody's trick: they are left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import cast

from lxml.etree import _Element, iterwalk

from ilab.documents.converted import Hidden
from ilab.documents.html.elements import NO_TEXT, name_of
from ilab.documents.html.style import NOTHING, Colour, Declarations, StyleSheet, alike, colour, declarations, pixels

MAX_TOLD = 20
_MAX_TEXT = 10_000  # characters of one hidden text that are told
_INTERFACE_TAGS = frozenset({"nav", "header", "footer", "aside", "dialog", "menu", "button", "select", "textarea"})
_INTERFACE_ROLES = frozenset({
    "navigation", "menu", "menubar", "menuitem", "dialog", "alertdialog", "alert", "tooltip", "search", "status",
})  # fmt: skip
_INTERFACE_NAMES = re.compile(
    r"(?<![a-z])(?:menu|nav|navbar|dropdown|tooltip|popover|popup|modal|dialog|overlay|toast|banner|cookies?|consent|"
    r"search|login|share|lightbox|drawer|sidebar|copy|toggle|loading|spinner|skip|toc)(?![a-z])"
)
_FOR_SCREEN_READERS = re.compile(r"(?<![a-z])(?:sr-only|visually-?hidden|screen-?reader(?:-text)?|assistive)(?![a-z])")
_A_FEW_WORDS = 12  # as much as a text for screen readers may have before it is told


@dataclass(frozen=True)
class Unseen:
    """``gone`` elements, ``mute`` ones, and what a person should be told of their text."""

    gone: frozenset[_Element] = frozenset()
    mute: frozenset[_Element] = frozenset()
    told: tuple[Hidden, ...] = ()


@dataclass(frozen=True)
class _Look:
    """What an element hands on to its children."""

    visible: bool = True
    zero: bool = False
    ink: Colour | str | None = None
    paper: Colour | None = None
    interface: bool = False

    @property
    def unseen(self) -> bool:
        if not self.visible or self.zero or self.ink == "transparent":
            return True
        return isinstance(self.ink, tuple) and self.paper is not None and alike(self.ink, self.paper)


@dataclass
class _Page:
    """What is known of the whole page while its elements are looked at."""

    sheet: StyleSheet = field(default_factory=StyleSheet)
    tabs: bool = False
    gone: set[_Element] = field(default_factory=set)
    mute: set[_Element] = field(default_factory=set)
    texts: list[tuple[int, str]] = field(default_factory=list)


def unseen(root: _Element) -> Unseen:
    """Look at every element below ``root`` once."""
    page = _Page()
    outside_sheet = False
    for element in root.iter("style", "link"):
        if element.tag == "style":
            page.sheet.read(element.text or "")
        outside_sheet = outside_sheet or "stylesheet" in (element.get("rel") or "").lower()
    page.tabs = any(element.get("role") == "tab" for element in root.iter())
    white = not outside_sheet and not page.sheet.paints
    looks = [_Look(paper=(255, 255, 255) if white else None)]
    skipped: _Element | None = None
    walk = iterwalk(root, events=("start", "end"))
    for event, element in walk:
        if event == "end":
            if element is not skipped:
                looks.pop()
            continue
        name = name_of(element)
        if name in NO_TEXT:
            skipped = element
            walk.skip_subtree()
            continue
        says = _says(page, element, name)
        if _is_gone(page, element, name, says):
            page.gone.add(element)
            _note(page, element, _text(element), looks[-1].interface or _is_interface(element, name))
            skipped = element
            walk.skip_subtree()
            continue
        look = _look(looks[-1], element, name, says)
        looks.append(look)
        if look.unseen:
            page.mute.add(element)
            _note(page, element, " ".join(_own_text(element).split()), look.interface)
    return Unseen(frozenset(page.gone), frozenset(page.mute), _told(page.texts))


def _note(page: _Page, element: _Element, text: str, interface: bool) -> None:
    words = len(text.split(None, _A_FEW_WORDS))
    if words >= 3 and not interface and not (words <= _A_FEW_WORDS and is_for_screen_readers(element)):
        line = cast("int | None", element.sourceline)
        page.texts.append((line or 0, text))


def _told(texts: list[tuple[int, str]]) -> tuple[Hidden, ...]:
    longest = sorted(texts, key=lambda item: (-len(item[1]), item))[:MAX_TOLD]
    return tuple(Hidden("hidden-text", f"line {line}", text[:_MAX_TEXT]) for line, text in longest)


def _own_text(element: _Element) -> str:
    return " ".join([element.text or "", *(child.tail or "" for child in element)])


def _text(element: _Element) -> str:
    """All text a gone element holds, words apart."""
    return " ".join(" ".join(_texts(element)).split())


def _texts(element: _Element) -> Iterator[str]:
    walk = iterwalk(element, events=("start", "end"))
    for event, child in walk:
        if event == "end":
            yield (child.tail or "") if child is not element else ""
        elif name_of(child) in NO_TEXT:
            walk.skip_subtree()
        else:
            yield child.text or ""


def _says(page: _Page, element: _Element, name: str) -> Declarations:
    """The declarations that apply to ``element``: the page's rules, then its own ``style``."""
    ruled = NOTHING
    if page.sheet.rules:
        names = {f".{word}" for word in (element.get("class") or "").split()}
        identity = element.get("id")
        ruled = page.sheet.says(name, frozenset(names | {f"#{identity}"} if identity else names))
    style = element.get("style")
    if not style:
        return ruled
    return {**ruled, **declarations(style)} if ruled else declarations(style)


def _is_interface(element: _Element, name: str, *, by_name: bool = True) -> bool:
    """Whether this is a menu, a dialog and the like. Names count for unseen elements alone: ``<body class="menu">``
    is the page."""
    if name in _INTERFACE_TAGS or element.get("role") in _INTERFACE_ROLES:
        return True
    return by_name and _INTERFACE_NAMES.search(f"{element.get('class')} {element.get('id')}".lower()) is not None


def is_for_screen_readers(element: _Element) -> bool:
    """Whether the element's classes say that its text is for screen readers alone (the rule is in another file)."""
    words = element.get("class")
    return words is not None and _FOR_SCREEN_READERS.search(words.lower()) is not None


def _is_gone(page: _Page, element: _Element, name: str, says: Declarations) -> bool:
    hidden = element.get("hidden")
    if hidden is None and not says and name != "dialog":
        return False
    if element.get("role") == "tabpanel" and page.tabs:
        return False
    if hidden is not None and hidden.lower() != "until-found" and says.get("display", "none") == "none":
        return True
    if name == "dialog" and element.get("open") is None:
        return True
    return says.get("display") == "none" or _is_transparent(says) or _is_off_page(says) or _is_clipped(says)


def _is_transparent(says: Declarations) -> bool:
    opacity = pixels(says.get("opacity", ""))
    if opacity is None:
        return False
    return opacity / (1000 if says["opacity"].endswith("%") else 1) < 0.05


def _is_off_page(says: Declarations) -> bool:
    away = ["text-indent", "margin-left", "margin-top"]
    if says.get("position") in ("absolute", "fixed"):
        away += ["left", "top", "right", "bottom"]
    if any((pixels(says[name]) or 0) <= -500 for name in away if name in says):
        return True
    moved = re.search(r"translate(?:x|y|3d)?\(\s*(-\d{1,9}\.?\d{0,9}[a-z%]{0,4})", says.get("transform", ""))
    return bool(moved and (pixels(moved[1]) or 0) <= -5000) or "scale(0)" in says.get("transform", "")


def _is_clipped(says: Declarations) -> bool:
    clip = re.sub(r"[\s,]+|px", " ", says.get("clip", ""))
    if re.match(r"rect\( *(?:[01] +){3}[01] *\)", clip):
        return True
    inset = re.match(r"inset\(\s*(\d{1,3})%", says.get("clip-path", ""))
    if (inset and int(inset[1]) >= 50) or says.get("clip-path", "").startswith("circle(0"):
        return True
    if says.get("overflow") not in ("hidden", "clip"):
        return False
    sizes = [pixels(says[name]) for name in ("width", "height") if name in says]
    return any(size is not None and size <= 1 for size in sizes)


def _look(parent: _Look, element: _Element, name: str, says: Declarations) -> _Look:
    """What ``element`` looks like inside ``parent``."""
    look = parent
    if "visibility" in says:
        look = replace(look, visible=says["visibility"] not in ("hidden", "collapse"))
    size = says.get("font-size") or ("0" if re.match(r"0(?:px|pt|em|rem|%)?[\s/]", says.get("font", "")) else "")
    if size:
        look = replace(look, zero=_is_tiny(size, parent.zero))
    if "background-image" in says or "url(" in says.get("background", "") or "gradient" in says.get("background", ""):
        look = replace(look, paper=None)
    painted = says.get("background-color") or says.get("background") or (element.get("bgcolor") or "").lower()
    paper = colour(painted) if painted else None
    if isinstance(paper, tuple):
        look = replace(look, paper=paper)
    elif painted and paper is None and painted not in ("none", "inherit", "initial"):
        look = replace(look, paper=None)  # a colour we do not know
    written = says.get("color") or (element.get("color") or "").lower()  # <font color>
    if written and written not in ("inherit", "currentcolor"):
        look = replace(look, ink=colour(written))
    if not look.interface and _is_interface(element, name, by_name=look.unseen):
        look = replace(look, interface=True)
    return look


def _is_tiny(size: str, parent_is: bool) -> bool:
    """Whether text of this size cannot be read. A share of nothing is nothing."""
    length = pixels(size)
    if length is None:
        return parent_is and size not in ("medium", "small", "large", "initial")
    relative = size.endswith(("em", "%")) and not size.endswith("rem")
    if size.endswith("%"):
        length *= 0.016  # 100 % are 16 pixels
    return (relative and parent_is) or length < 2
