"""Checks a YAML tree against a JSON Schema file, with the place of every fault and the nearest known key.

    schema/*.json ──once──▶ one closure per subschema ──▶ fits(node, path, report)

The files in ``schema/`` are the documentation of the format (JSON Schema 2020-12). Of its keywords exactly those
that they use are read: type, required, properties, additionalProperties, items, minItems, contains, minContains,
uniqueItems, minLength, enum, const, not, if/then/else and ``$ref`` into ``$defs`` (without cycles). One difference:
any scalar is a string, so ``answer: 5`` is the text "5", and blank text counts as empty.

A closure tells whether a node fits. With a report it also tells every reason; without one it stops at the first,
which is how ``if``, ``not`` and ``contains`` ask. ``contains`` is what counts: entries that are no drafts.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeAlias

from ilab.errors import InputError
from ilab.taxonomy.yamlfaults import MOST_FAULTS, Placed, problem
from ilab.taxonomy.yamlnodes import MappingNode, Node, ScalarNode, SequenceNode

Rule: TypeAlias = dict[str, Any]
At: TypeAlias = "tuple[At, str | int] | None"  # the way to a node, last step first
Fits: TypeAlias = "Callable[[Node, At, Report | None], bool]"

_MOST_SHOWN = 80
_TYPES: dict[str, tuple[str, str]] = {  # how a type is called, and how it is written
    "object": ("a mapping (`key: value` lines)", "write `key: value` lines below it, without `- `"),
    "array": ("a list (`- ` lines)", "begin each of its entries with `- `"),
    "string": ("text", "write one text; in quotes, or below a `|`, it may hold anything"),
    "integer": ("a whole number", "write digits alone"),
    "boolean": ("`true` or `false`", "write `true`, or remove the line"),
}
_CLASSES = {"object": MappingNode, "array": SequenceNode, "string": ScalarNode}
_INSTEAD: dict[str, tuple[tuple[str, ...], str]] = {  # key of another kind or version -> what it is meant for, hint
    "questions_and_answers": (
        ("question", "answer"),
        "only knowledge of version 3 has several pairs under one context; write one `question` and `answer` here",
    ),
    "question": (("questions_and_answers",), "put it into `questions_and_answers`: three pairs or more a context"),
    "answer": (("questions_and_answers",), "put it into `questions_and_answers`: three pairs or more a context"),
    "task_description": (("document_outline",), "knowledge of version 3 has a `document_outline` instead"),
    "document_outline": ((), "it belongs to knowledge of version 3: write `version: 3`"),
    "context": ((), "in knowledge it belongs to version 3: write `version: 3`"),
    "domain": ((), "only knowledge has it; remove the line"),
}


class Report:
    """Collects the faults of one file, and not more of them than a person can read."""

    def __init__(self, file: str, problems: list[InputError]) -> None:
        self.file = file
        self.problems = problems

    def add(self, node: Placed, at: At, message: str, hint: str = "") -> Literal[False]:
        """One fault of ``node``, which stands at the path ``at`` (``seed_examples[2].answer``)."""
        if not self.full:
            name = f"`{_path(at)}`" if at else "the file"
            self.problems.append(problem(self.file, node, f"{name} {message}", hint))
        return False

    @property
    def full(self) -> bool:
        """Whether there are so many that no more are told."""
        return len(self.problems) >= MOST_FAULTS


def check(node: Node, schema: str, file: str, problems: list[InputError]) -> None:
    """Add every fault of ``node`` under ``schema/<schema>.json`` to ``problems``."""
    _schema(schema)(node, None, Report(file, problems))


def plain(node: Node) -> Any:
    """The tree as lists, dicts and stripped strings."""
    if isinstance(node, ScalarNode):
        return node.text.strip()
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return {key: plain(entry.value) for key, entry in node.entries.items()}


@cache
def _schema(name: str) -> Fits:
    text = resources.files("ilab.taxonomy").joinpath("schema", f"{name}.json").read_text(encoding="utf-8")
    rules: Rule = json.loads(text)
    return _Compiler(rules.get("$defs", {})).fits(rules)


class _Compiler:
    """Turns the subschemas of one schema into closures, each definition once."""

    def __init__(self, definitions: Rule) -> None:
        self._definitions = definitions
        self._compiled: dict[str, Fits] = {}

    def fits(self, rule: Rule) -> Fits:
        parts = []
        if "$ref" in rule:
            parts.append(self._definition(rule["$ref"].rpartition("/")[2]))
        if "if" in rule:
            parts.append(_conditional(*(self.fits(rule.get(word, {})) for word in ("if", "then", "else"))))
        if "not" in rule:
            parts.append(_negation(self.fits(rule["not"])))
        if "minLength" in rule:
            parts.append(_filled)
        if "enum" in rule or "const" in rule:
            parts.append(_chosen([*rule.get("enum", ()), *([rule["const"]] if "const" in rule else ())]))
        if rule.keys() & {"properties", "required", "additionalProperties"}:
            parts.append(self._mapping(rule))
        if rule.keys() & {"items", "minItems", "uniqueItems", "contains"}:
            parts += self._sequence(rule)
        kinds = rule.get("type", [])
        return _typed([kinds] if isinstance(kinds, str) else kinds, parts, rule.get("examples", ()))

    def _definition(self, name: str) -> Fits:
        if name not in self._compiled:
            self._compiled[name] = self.fits(self._definitions[name])
        return self._compiled[name]

    def _mapping(self, rule: Rule) -> Fits:
        known = {key: self.fits(inner) for key, inner in rule.get("properties", {}).items()}
        required = tuple(rule.get("required", ()))
        closed = rule.get("additionalProperties") is False

        def fits(node: Node, at: At, report: Report | None) -> bool:
            if not isinstance(node, MappingNode):
                return True
            good, entries = True, node.entries
            for key, entry in entries.items():
                inner = known.get(key)
                if inner is not None:
                    good = inner(entry.value, (at, key), report) and good
                elif closed:
                    good = False
                if report is None and not good:
                    return False
            missing = [key for key in required if key not in entries]
            if report is None or (good and not missing):
                return not missing
            return _keys(node, at, report, (list(known) if closed else list(entries), missing)) and good

        return fits

    def _sequence(self, rule: Rule) -> list[Fits]:
        inner = self.fits(rule["items"]) if "items" in rule else None
        parts = []
        if "contains" in rule:
            parts.append(_enough(self.fits(rule["contains"]), rule.get("minContains", 1), rule.get("title", "entries")))
        if "minItems" in rule:
            parts.append(_enough(_anything, rule["minItems"], rule.get("title", "entries")))
        if inner is not None:
            parts.append(_each(inner))
        if rule.get("uniqueItems"):
            parts.append(_different)
        return parts


def _anything(node: Node, at: At, report: Report | None) -> bool:
    return True


def _typed(kinds: list[str], parts: list[Fits], examples: Sequence[Any]) -> Fits:
    """The type first, for the other keywords say nothing useful of a node of another type."""
    whole = {_CLASSES[kind] for kind in kinds if kind in _CLASSES}

    def typed(node: Node, at: At, report: Report | None) -> bool:
        if kinds and type(node) not in whole and not _is_written_as(node, kinds):
            if report is None:
                return False
            word, hint = _TYPES[kinds[0]]
            hint = f"for example: {json.dumps(examples[0])}" if examples else hint
            empty = isinstance(node, ScalarNode) and not node.text.strip()
            return report.add(node, at, f"is empty; it must be {word}" if empty else f"must be {word}", hint)
        good = True
        for part in parts:
            if not part(node, at, report):
                if report is None:
                    return False
                good = False
        return good

    return typed if kinds or len(parts) != 1 else parts[0]


def _is_written_as(node: Node, kinds: list[str]) -> bool:
    """Whether a scalar is a whole number or a truth value, where such are wanted."""
    if not isinstance(node, ScalarNode):
        return False
    integer = "integer" in kinds and node.text.removeprefix("-").isdecimal()
    return integer or ("boolean" in kinds and node.plain and node.text.lower() in ("true", "false"))


def _conditional(condition: Fits, then: Fits, other: Fits) -> Fits:
    def fits(node: Node, at: At, report: Report | None) -> bool:
        return (then if condition(node, at, None) else other)(node, at, report)

    return fits


def _negation(refused: Fits) -> Fits:
    def fits(node: Node, at: At, report: Report | None) -> bool:
        return not refused(node, at, None) or (report is not None and report.add(node, at, "is not allowed here"))

    return fits


def _filled(node: Node, at: At, report: Report | None) -> bool:
    if not isinstance(node, ScalarNode) or (node.text and not node.text.isspace()):
        return True
    return report is not None and report.add(node, at, "is empty", "write the text, or remove the whole entry")


def _chosen(values: list[Any]) -> Fits:
    """``enum`` and ``const``: compared as text, but ``true`` only as itself."""
    allowed = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
    boolean = any(isinstance(value, bool) for value in values)

    def fits(node: Node, at: At, report: Report | None) -> bool:
        written = node.text if isinstance(node, ScalarNode) and (node.plain or not boolean) else None
        if written is not None and (written.lower() if boolean else written) in allowed:
            return True
        if report is None:
            return False
        near = difflib.get_close_matches((written or "")[:_MOST_SHOWN], allowed, 1)
        told = f", not `{written[:_MOST_SHOWN]}`" if written else ""
        message = f"must be {' or '.join(f'`{value}`' for value in allowed)}{told}"
        return report.add(node, at, message, f"did you mean `{near[0]}`?" if near else "")

    return fits


def _keys(node: MappingNode, at: At, report: Report, keys: tuple[list[str], list[str]]) -> bool:
    """Faults about the keys themselves. ``keys`` are the known ones and the required ones that are missing."""
    known, missing = keys
    good = True
    for key, entry in node.entries.items():
        if key in known:
            continue
        if report.full:
            return False
        meant, hint = _meant(key, known, node)
        missing = [name for name in missing if name not in meant]
        good = report.add(entry.key, (at, key), "is not a known key", hint)
    for key in missing:
        good = report.add(node, at, f"has no `{key}`", f"add a line `{key}: …`")
    return good


def _meant(key: str, known: list[str], node: MappingNode) -> tuple[tuple[str, ...], str]:
    """Which keys the author means by an unknown one, and a hint."""
    meant, hint = _INSTEAD.get(key, ((), ""))
    if hint and all(name in known for name in meant):
        return meant, hint
    near = difflib.get_close_matches(key[:_MOST_SHOWN], [name for name in known if name not in node.entries], 1)
    return tuple(near), f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"


def _enough(counts: Fits, least: int, nouns: str) -> Fits:
    """``minItems`` and ``contains``: at least ``least`` entries that count."""
    noun, no_drafts = nouns, "that are no drafts"
    if least == 1:
        noun, no_drafts = ("entry" if nouns == "entries" else nouns.removesuffix("s")), "that is no draft"

    def fits(node: Node, at: At, report: Report | None) -> bool:
        if not isinstance(node, SequenceNode):
            return True
        count = sum(counts(item, None, None) for item in node.items)
        if count >= least or report is None:
            return count >= least
        drafts = len(node.items) - count
        if not drafts:
            return report.add(node, at, f"needs at least {least} {noun} and has {count}", f"add {least - count} more")
        told = f"needs at least {least} {noun} {no_drafts} and has {count}"
        hint = "read the drafts, correct them, then remove their `draft: true` lines"
        more = f", and add {least - count - drafts} more" if count + drafts < least else ""
        return report.add(node, at, f"{told} ({drafts} draft{'s' if drafts > 1 else ''})", hint + more)

    return fits


def _each(inner: Fits) -> Fits:
    def fits(node: Node, at: At, report: Report | None) -> bool:
        good = True
        for index, item in enumerate(node.items if isinstance(node, SequenceNode) else ()):
            good = inner(item, (at, index), report) and good
            if report is None and not good:
                return False
        return good

    return fits


def _different(node: Node, at: At, report: Report | None) -> bool:
    """``uniqueItems``."""
    if not isinstance(node, SequenceNode):
        return True
    seen: dict[Hashable, int] = {}
    good, whole = True, len({_part(item) for item in node.items}) < len(node.items)
    for index, item in enumerate(node.items if whole else ()):
        first = seen.setdefault(_identity(item), index)
        if first == index:
            continue
        if report is None:
            return False
        message = f"is the same as the entry at line {node.items[first].line}"
        good = report.add(item, (at, index), message, "change or remove it")
    return good


def _part(node: Node) -> Hashable:
    """A part of a node's identity that is quickly had: entries that differ in it need no further look."""
    while isinstance(node, MappingNode) and node.entries:
        node = node.entries[min(node.entries)].value
    return node.text.strip() if isinstance(node, ScalarNode) else None


def _identity(node: Node) -> Hashable:
    """What makes two nodes the same: their stripped texts, and not the order of keys."""
    if isinstance(node, ScalarNode):
        return node.text.strip()
    if isinstance(node, SequenceNode):
        return tuple([_identity(item) for item in node.items])
    return frozenset([(key, _identity(entry.value)) for key, entry in node.entries.items()])


def _path(at: At) -> str:
    """``seed_examples[2].answer``"""
    if at is None:
        return ""
    before, step = at
    if isinstance(step, int):
        return f"{_path(before)}[{step}]"
    return f"{_path(before)}.{step[:_MOST_SHOWN]}".removeprefix(".")
