"""The little of CSS that decides whether text can be seen: declarations, lengths, colours, simple rules of a page.

Rules whose selector is one compound of tag, classes and id (``p``, ``.a.b``, ``div#x``) are followed, in CSS's order
of weight; others, and rules under a condition (``@media``), are not, for whether they apply depends on what a
reader does or uses. Style sheets in other files are never fetched.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

MAX_CSS = 256 * 1024  # characters of one page's style elements that are read
MAX_RULES = 5_000
_MAX_ALIKE = 200  # rules that share a name
_MAX_VALUE = 120

Colour = tuple[int, int, int]
Declarations = Mapping[str, str]
NOTHING: Declarations = MappingProxyType({})

_OF_INTEREST = frozenset({
    "display", "visibility", "opacity", "font", "font-size", "color", "background", "background-color",
    "background-image", "position", "left", "right", "top", "bottom", "text-indent", "margin-left", "margin-top",
    "clip", "clip-path", "width", "height", "overflow", "transform",
})  # fmt: skip
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_COMPOUND = re.compile(r"(\*|[A-Za-z][A-Za-z0-9]*)?((?:[.#][\w-]+)*)")
_LENGTH = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))([a-z]*|%)")
_PIXELS = {
    "": 1.0,
    "px": 1.0,
    "pt": 4 / 3,
    "em": 16.0,
    "rem": 16.0,
    "ex": 8.0,
    "ch": 8.0,
    "%": 10.0,
    "vw": 10.0,
    "vh": 10.0,
}
_NAMED: dict[str, Colour] = {
    "white": (255, 255, 255), "black": (0, 0, 0), "red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255),
    "yellow": (255, 255, 0), "aqua": (0, 255, 255), "cyan": (0, 255, 255), "fuchsia": (255, 0, 255),
    "magenta": (255, 0, 255), "silver": (192, 192, 192), "gray": (128, 128, 128), "grey": (128, 128, 128),
    "maroon": (128, 0, 0), "olive": (128, 128, 0), "green": (0, 128, 0), "purple": (128, 0, 128), "teal": (0, 128, 128),
    "navy": (0, 0, 128), "snow": (255, 250, 250), "ivory": (255, 255, 240), "whitesmoke": (245, 245, 245),
    "ghostwhite": (248, 248, 255), "orange": (255, 165, 0), "lightgray": (211, 211, 211), "lightgrey": (211, 211, 211),
}  # fmt: skip


@lru_cache(maxsize=4096)
def declarations(style: str) -> Declarations:
    """Property to value, lower case, of a ``style`` attribute or the body of a rule; only what can hide text."""
    found: dict[str, str] = {}
    for part in _COMMENT.sub("", style).split(";"):
        name, _, value = part.partition(":")
        name = name.strip().lower()
        value = value.lower().replace("!important", "").strip()
        if name in _OF_INTEREST and value and len(value) <= _MAX_VALUE:
            found[name] = value
    return MappingProxyType(found)


def pixels(value: str) -> float | None:
    """A length in pixels, relative units by rule of thumb; ``None`` for what is no length (``auto``, ``calc()``)."""
    found = _LENGTH.fullmatch(value)
    if not found or found[2] not in _PIXELS:
        return None
    return float(found[1]) * _PIXELS[found[2]]


def colour(value: str) -> Colour | str | None:
    """The first colour in ``value``: red, green, blue; ``transparent``; ``None`` when none is understood."""
    for word in re.findall(r"#[0-9a-f]{3,8}|rgba?\([^)]*\)|[a-z]+", value):
        if word in _NAMED:
            return _NAMED[word]
        if word == "transparent":
            return "transparent"
        if word[0] == "#" and len(word) in (4, 5, 7, 9):
            digits = word[1:] if len(word) > 5 else "".join(digit * 2 for digit in word[1:])
            return "transparent" if digits[6:] == "00" else _rgb([int(digits[at : at + 2], 16) for at in (0, 2, 4)])
        if word.startswith("rgb"):
            parts = [part for part in re.split(r"[,\s/]+", word[word.index("(") + 1 : -1]) if part]
            return _from_function(parts)
    return None


def _rgb(parts: list[int]) -> Colour:
    return (min(parts[0], 255), min(parts[1], 255), min(parts[2], 255))


def _from_function(parts: list[str]) -> Colour | str | None:
    """The arguments of ``rgb()`` or ``rgba()``."""
    numbers = [_LENGTH.fullmatch(part) for part in parts[:4]]
    if len(numbers) < 3 or not all(found and found[2] in ("", "%") for found in numbers):
        return None
    values = [float(found[1]) * (2.55 if found[2] == "%" else 1) for found in numbers if found]
    return "transparent" if values[3:] == [0.0] else _rgb([int(abs(value)) for value in values[:3]])


def alike(one: Colour, other: Colour) -> bool:
    """Whether no eye tells the two apart."""
    return all(abs(a - b) <= 8 for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class _Rule:
    tag: str
    needs: frozenset[str]  # ``.class`` and ``#id``
    weight: tuple[int, int, int, int]  # ids, classes, tags, position
    says: Declarations


@dataclass
class StyleSheet:
    """The rules of a page's ``<style>`` elements, found by one of their names. ``paints``: some rule, applicable or
    not, sets a background, so that a page is not known to be white."""

    rules: dict[str, list[_Rule]] = field(default_factory=lambda: defaultdict(list))
    paints: bool = False
    count: int = 0
    _known: dict[tuple[str, frozenset[str]], Declarations] = field(default_factory=dict)

    def read(self, css: str) -> None:
        """Add the rules of ``css``, as far as the limits allow."""
        for prelude, body in _rules(_COMMENT.sub(" ", css[:MAX_CSS])):
            says = declarations(body)
            self.paints = self.paints or any(name.startswith("background") for name in says)
            for selector in prelude.split(",") if says else ():
                found = _COMPOUND.fullmatch(selector.strip())
                if found and found[0] and self.count < MAX_RULES:
                    self._add((found[1] or "").lower(), frozenset(re.findall(r"[.#][\w-]+", found[2])), says)

    def _add(self, tag: str, needs: frozenset[str], says: Declarations) -> None:
        ids = sum(name[0] == "#" for name in needs)
        tag = "" if tag == "*" else tag
        self.count += 1
        rule = _Rule(tag, needs, (ids, len(needs) - ids, bool(tag), self.count), says)
        others = self.rules[min(needs) if needs else tag]
        if len(others) < _MAX_ALIKE:
            others.append(rule)

    def says(self, tag: str, names: frozenset[str]) -> Declarations:
        """What the rules say of an element with this tag and these ``.class`` and ``#id`` names."""
        if (tag, names) not in self._known:
            found = [
                rule
                for name in ("", tag, *names)
                for rule in self.rules.get(name, ())
                if rule.tag in ("", tag) and rule.needs <= names
            ]
            merged: dict[str, str] = {}
            for rule in sorted(found, key=lambda rule: rule.weight):
                merged.update(rule.says)
            self._known[tag, names] = merged
        return self._known[tag, names]


def _rules(css: str) -> Iterator[tuple[str, str]]:
    """Selector and body of every rule that stands under no condition."""
    at = 0
    while (brace := css.find("{", at)) >= 0:
        prelude = css[at:brace].rpartition(";")[2].strip()
        end = css.find("}", brace)
        if end < 0:
            return
        if prelude.startswith("@"):
            at = _block_end(css, brace)
            continue
        yield prelude, css[brace + 1 : end]
        at = end + 1


def _block_end(css: str, brace: int) -> int:
    depth = 0
    for found in re.compile("[{}]").finditer(css, brace):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.end()
    return len(css)
