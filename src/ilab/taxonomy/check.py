"""Checks a YAML tree against a JSON Schema file, with the line of every fault and the nearest known key.

The files in ``schema/`` are the documentation of the format (JSON Schema 2020-12). Of its keywords exactly those
that they use are read here: type, required, properties, additionalProperties, items, minItems, uniqueItems,
minLength, enum, const, if/then/else and ``$ref`` into ``$defs``. One difference: any scalar is a string, so
``answer: 5`` is the text "5", and blank text counts as empty.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

from ilab.errors import InputError
from ilab.taxonomy.yamlnodes import MappingNode, Node, ScalarNode, SequenceNode, problem

Rule = dict[str, Any]
_TYPE_WORDS = {
    "object": "a mapping (`key: value` lines)",
    "array": "a list (`- ` lines)",
    "string": "text",
    "integer": "a whole number",
}


def check(node: Node, schema: str, file: str, problems: list[InputError]) -> None:
    """Add every fault of ``node`` under ``schema/<schema>.json`` to ``problems``."""
    rules = _schema(schema)
    _Checker(rules.get("$defs", {}), file, problems).visit(node, rules, "")


@cache
def _schema(name: str) -> Rule:
    text = resources.files("ilab.taxonomy").joinpath("schema", f"{name}.json").read_text(encoding="utf-8")
    rules: Rule = json.loads(text)
    return rules


class _Checker:
    def __init__(self, definitions: Rule, file: str, problems: list[InputError]) -> None:
        self.definitions = definitions
        self.file = file
        self.problems = problems

    def visit(self, node: Node, rule: Rule, at: str) -> None:
        """Check ``node``, which stands at the path ``at`` (``.seed_examples[2].answer``)."""
        if "$ref" in rule:
            self.visit(node, self.definitions[rule["$ref"].rpartition("/")[2]], at)
        if "if" in rule:
            trial: list[InputError] = []
            _Checker(self.definitions, self.file, trial).visit(node, rule["if"], at)
            self.visit(node, rule.get("else" if trial else "then", {}), at)
        if not self._type_fits(node, rule):
            types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
            self._add(node, at, f"must be {_TYPE_WORDS[types[0]]}")
        elif isinstance(node, MappingNode):
            self._mapping(node, rule, at)
        elif isinstance(node, SequenceNode):
            self._sequence(node, rule, at)
        else:
            self._scalar(node, rule, at)

    def _add(self, node: Node, at: str, message: str, hint: str = "") -> None:
        name = f"`{at.removeprefix('.')}`" if at else "the file"
        self.problems.append(problem(self.file, node.line, f"{name} {message}", hint))

    def _type_fits(self, node: Node, rule: Rule) -> bool:
        types = rule.get("type", [])
        types = types if isinstance(types, list) else [types]
        if isinstance(node, ScalarNode):
            integer = "integer" in types and node.text.lstrip("-").isdecimal()
            return not types or "string" in types or integer
        return not types or ("object" if isinstance(node, MappingNode) else "array") in types

    def _mapping(self, node: MappingNode, rule: Rule, at: str) -> None:
        known: Rule = rule.get("properties", {})
        missing = [key for key in rule.get("required", ()) if key not in node.entries]
        for key, entry in node.entries.items():
            if key in known:
                self.visit(entry.value, known[key], f"{at}.{key}")
            elif rule.get("additionalProperties") is False:
                near = difflib.get_close_matches(key[:80], [name for name in known if name not in node.entries], 1)
                hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
                missing = [name for name in missing if name not in near]
                self._add(entry.key, f"{at}.{key[:80]}", "is not a known key", hint)
        for key in missing:
            self._add(node, at, f"has no `{key}`", f"add a line `{key}: …`")

    def _sequence(self, node: SequenceNode, rule: Rule, at: str) -> None:
        least = rule.get("minItems", 0)
        if len(node.items) < least:
            count = len(node.items)
            self._add(node, at, f"needs at least {least} entries and has {count}", f"add {least - count} more")
        seen: dict[str, int] = {}
        for index, item in enumerate(node.items):
            self.visit(item, rule.get("items", {}), f"{at}[{index}]")
            if rule.get("uniqueItems"):
                first = seen.setdefault(json.dumps(plain(item), sort_keys=True), index)
                if first != index:
                    message = f"is the same as the entry at line {node.items[first].line}"
                    self._add(item, f"{at}[{index}]", message, "change or remove it")

    def _scalar(self, node: ScalarNode, rule: Rule, at: str) -> None:
        allowed = [str(value) for value in (*rule.get("enum", ()), *([rule["const"]] if "const" in rule else ()))]
        if allowed and node.text not in allowed:
            near = difflib.get_close_matches(node.text[:80], allowed, 1)
            hint = f"did you mean `{near[0]}`?" if near else ""
            self._add(
                node, at, f"must be {' or '.join(f'`{value}`' for value in allowed)}, not `{node.text[:80]}`", hint
            )
        if rule.get("minLength") and not node.text.strip():
            self._add(node, at, "is empty", "write the text, or remove the whole entry")


def plain(node: Node) -> Any:
    """The tree as lists, dicts and stripped strings."""
    if isinstance(node, ScalarNode):
        return node.text.strip()
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return {key: plain(entry.value) for key, entry in node.entries.items()}
