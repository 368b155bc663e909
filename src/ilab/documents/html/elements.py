"""What single elements of HTML mean: blocks, the language of code, the words of images and formulas."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from functools import lru_cache

from lxml.etree import _Element

from ilab.documents.html.style import declarations

_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "dir", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr",
    "html", "legend", "li", "listing", "main", "menu", "nav", "ol", "optgroup", "option", "p", "plaintext", "pre",
    "search", "section", "summary", "table", "caption", "thead", "tbody", "tfoot", "tr", "td", "th", "ul", "xmp",
})  # fmt: skip
NO_TEXT = frozenset({
    "head", "script", "style", "template", "noscript", "title", "meta", "link", "iframe", "object", "embed", "applet",
    "audio", "video", "canvas", "svg", "datalist", "noframes", "frameset", "area", "param", "source", "track",
})  # fmt: skip
"""Elements whose content a browser never shows as text of the page."""
_BLOCK_DISPLAYS = frozenset({"block", "flex", "grid", "table", "list-item", "table-row", "table-cell", "flow-root"})
_RAISED = str.maketrans("0123456789+-−=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ")
_LOWERED = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
_LANGUAGE = re.compile(
    r"(?:^|\s)(?:language|lang|highlight-source|highlight|brush|src)(?:-|:\s?)([a-z0-9+#._-]{1,30})(?=$|[\s;])"
)
_NO_LANGUAGE = frozenset({"default", "none", "notranslate", "text", "plaintext", "plain", "wrapper", "box", "block"})


def name_of(element: _Element) -> str:
    """The tag without an XML prefix, lower case; ``""`` for what is no element."""
    tag = element.tag
    return _name(tag) if isinstance(tag, str) else ""


@lru_cache(maxsize=1024)
def _name(tag: str) -> str:
    return tag.rpartition(":")[2].rpartition("}")[2].lower()


def text_of(element: _Element) -> str:
    """All text in and below ``element``, as it stands in the page."""
    return "".join(str(piece) for piece in element.itertext())


def is_block(element: _Element, name: str) -> bool:
    """Whether ``element`` begins and ends a line of its own."""
    if name in _BLOCKS:
        return True
    style = element.get("style")
    return style is not None and declarations(style).get("display") in _BLOCK_DISPLAYS


def is_note_reference(link: _Element) -> bool:
    """Whether ``<a>`` is the mark of a footnote in the text."""
    if not (link.get("href") or "").startswith("#"):
        return False
    parent = link.getparent()
    return (
        link.get("role") == "doc-noteref"
        or link.get("data-footnote-ref") is not None
        or "footnote" in (link.get("class") or "").lower()
        or (parent is not None and parent.tag == "sup")
    )


def own_text(element: _Element, name: str) -> str | None:
    """The text in front of the first child, with real superscripts and subscripts where Unicode has all of them (10²,
    H₂O), and the number of a footnote in brackets."""
    text = element.text
    if not text or len(element):
        return text
    if name == "a" and text.strip().isdecimal() and is_note_reference(element):
        return f"[{text.strip()}]"
    table = _RAISED if name == "sup" else _LOWERED if name == "sub" else None
    return text.translate(table) if table and all(ord(char) in table for char in text.strip()) else text


def code_language(pre: _Element) -> str:
    """The language a code block declares, on itself, on the ``<code>`` in it, or on the boxes around it."""
    inner = [child for child in itertools.islice(pre, 1) if child.tag == "code"]
    for element in (*inner, pre, *itertools.islice(pre.iterancestors("div", "figure", "span"), 3)):
        for name in ("data-lang", "data-language"):
            given = (element.get(name) or "").lower()
            if re.fullmatch(r"[a-z0-9+#._-]{1,30}", given) and given not in _NO_LANGUAGE:
                return given
        found = _LANGUAGE.search((element.get("class") or "").lower())
        if found and found[1] not in _NO_LANGUAGE:
            return found[1]
    return ""


def verbatim(texts: Iterable[str]) -> str:
    """The text of a code block, without the line end that HTML allows behind ``<pre>`` and those at its end; ``""``
    when there is nothing to see."""
    text = re.sub(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]", "\n", "".join(texts)).replace("\xa0", " ")
    return text.removeprefix("\n").rstrip("\n") if text.strip() else ""


def alternative(image: _Element) -> tuple[str, str]:
    """The words of an image, ``""`` for decoration, and its address, ``""`` for data inside the page."""
    words = " ".join((image.get("alt") or image.get("title") or "").split())
    for name in ("src", "data-src"):
        address = (image.get(name) or "").strip()
        if address and not address.lower().startswith("data:"):
            return words, address
    return words, ""


def math_source(math: _Element) -> str:
    """A formula: its TeX source if the page has it, else its words."""
    source = math.get("alttext")
    for note in math.iter("annotation"):
        if note.get("encoding") == "application/x-tex":
            source = text_of(note)
    if source:
        mark = "$$" if math.get("display") == "block" else "$"
        return f"{mark}{' '.join(source.split())}{mark}"
    return " ".join(text_of(math).split())
