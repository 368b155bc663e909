"""CSS selectors of tags, classes, ids and attributes, joined by blanks and ``>``, found in one walk over the page.

Not by XPath: thirty nested elements and fifty thousand paragraphs, and ``main p`` takes libxml2 half a minute, because
it sees every paragraph once for each element around it. Here every element hands down which beginnings of the selector
are matched above it. Pseudo-classes and siblings (``:``, ``+``, ``~``) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxml.etree import _Element, iterwalk

from ilab.documents.html.elements import name_of
from ilab.errors import InputError

_NAME = r"(?:[\w-]|\\.)+"
_COMPOUND = re.compile(rf"(?P<tag>\*|{_NAME})?(?P<rest>(?:[.#]{_NAME}|\[[^\[\]]*\])*)")
_PART = re.compile(rf"(?P<sign>[.#])(?P<name>{_NAME})|\[(?P<inside>[^\[\]]*)\]")
_ATTRIBUTE = re.compile(r"\s*(?P<name>[\w:-]+)\s*(?:(?P<test>[~|^$*]?=)\s*(?P<value>\"[^\"]*\"|'[^']*'|[\w-]+)\s*)?")
_JOINT = re.compile(r"\s*(?P<sign>[>,])\s*|\s+(?!$)")
_MAX_LENGTH = 500


@dataclass(frozen=True)
class _Attribute:
    name: str
    test: str
    value: str

    def matches(self, element: _Element) -> bool:
        """Selectors Level 3, section 6.3: an empty value of ``~=``, ``^=``, ``$=`` and ``*=`` matches nothing."""
        given = element.get(self.name)
        if given is None or not self.test:
            return given is not None
        if self.test in ("=", "|="):
            return given == self.value or (self.test == "|=" and given.startswith(self.value + "-"))
        if self.test == "~=":
            return self.value in given.split()
        starts, ends = given.startswith(self.value), given.endswith(self.value)
        return bool(self.value) and {"^=": starts, "$=": ends, "*=": self.value in given}[self.test]


@dataclass(frozen=True)
class _Compound:
    """What one element must be. ``child``: its parent, not any ancestor, must match what stands in front."""

    tag: str
    classes: frozenset[str]
    attributes: tuple[_Attribute, ...]
    child: bool = False

    def matches(self, element: _Element) -> bool:
        if self.tag and self.tag != name_of(element):
            return False
        if self.classes and not self.classes <= set((element.get("class") or "").split()):
            return False
        return all(attribute.matches(element) for attribute in self.attributes)


@dataclass(frozen=True)
class Selector:
    """Alternatives, each a chain of compounds."""

    chains: tuple[tuple[_Compound, ...], ...]

    def outermost(self, root: _Element) -> list[_Element]:
        """What matches in and below ``root``, in order, without elements inside others that match."""
        found: list[_Element] = []
        stack = [((0,) * len(self.chains), (0,) * len(self.chains))]  # beginnings matched above, and at the parent
        skipped: _Element | None = None
        walk = iterwalk(root, events=("start", "end"))
        for event, element in walk:
            if event == "end":
                if element is not skipped:
                    stack.pop()
                continue
            above, parent = stack[-1]
            here = tuple(map(_matched, self.chains, [element] * len(self.chains), above, parent))
            if any(bits >> (len(chain) - 1) for bits, chain in zip(here, self.chains, strict=True)):
                found.append(element)
                skipped = element
                walk.skip_subtree()
            else:
                stack.append((tuple(one | other for one, other in zip(above, here, strict=True)), here))
        return found


def _matched(chain: tuple[_Compound, ...], element: _Element, above: int, parent: int) -> int:
    """Bit ``n`` tells whether the first ``n + 1`` compounds of ``chain`` are matched with ``element`` as the last."""
    bits = 0
    for at, compound in enumerate(chain):
        before = (parent if compound.child else above) >> (at - 1) & 1 if at else 1
        if before and compound.matches(element):
            bits |= 1 << at
    return bits


def parse(text: str) -> Selector:
    """The selector written as ``text``. Raises ``InputError`` for what is none, or uses more than this module does."""
    chains: list[tuple[_Compound, ...]] = []
    chain: list[_Compound] = []
    for compound, sign in _compounds(text):
        chain.append(compound)
        if sign == ",":
            chains.append(tuple(chain))
            chain = []
    return Selector((*chains, tuple(chain)))


def _compounds(text: str) -> Iterator[tuple[_Compound, str]]:
    """Each compound with the sign behind it."""
    at, sign, text = 0, "", text.strip()
    while at < len(text) or sign or not text:
        found = _COMPOUND.match(text, at)
        if not found or not found[0] or len(text) > _MAX_LENGTH:
            raise _refused(text)
        joint = _JOINT.match(text, found.end())
        if joint is None and found.end() < len(text):
            raise _refused(text)
        compound = _compound(text, found, child=sign == ">")
        at, sign = (joint.end(), joint["sign"] or "") if joint else (len(text), "")
        yield compound, sign


def _compound(text: str, found: re.Match[str], *, child: bool) -> _Compound:
    classes: set[str] = set()
    attributes: list[_Attribute] = []
    for part in _PART.finditer(found["rest"]):
        name = _plain(part["name"] or "")
        if part["sign"] == ".":
            classes.add(name)
        elif part["sign"] == "#":
            attributes.append(_Attribute("id", "=", name))
        else:
            inside = _ATTRIBUTE.fullmatch(part["inside"])
            if not inside:
                raise _refused(text)
            value = inside["value"] or ""
            value = value[1:-1] if value[:1] in ("'", '"') else value
            attributes.append(_Attribute(inside["name"].lower(), inside["test"] or "", value))
    tag = _plain(found["tag"] or "").lower()
    return _Compound("" if tag == "*" else tag, frozenset(classes), tuple(attributes), child)


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _refused(text: str) -> InputError:
    return InputError(
        f"{text!r} is no CSS selector of tags, classes, ids and attributes",
        hint='Write one like "main article", "#content", "div.text > section" or "[role=main]".',
    )
