"""Which texts an answer may be: JSON, or JSON of a schema, as a grammar that is followed letter by letter.

A grammar is a graph of nodes. Where a text stands in it is a set of *states*; a state is a letter's node and, as a
linked list, what must come after it. All ways to read the text so far are followed at once, so nothing is ever taken
back (as in Thompson's matcher, CACM 11(6), 1968, with a stack in place of a state). Keywords of JSON Schema that are
not held to here are refused, never ignored, but for those that only describe.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 1000  # items of a list and letters of a string that a schema may count
SPACES = 20  # blanks behind a line end
_DESCRIBING = frozenset(
    ("$schema", "$id", "$defs", "definitions", "$comment", "title", "description", "default", "examples", "deprecated")
)
_KNOWN = {
    "string": {"minLength", "maxLength"},
    "number": set[str](),
    "integer": set[str](),
    "boolean": set[str](),
    "null": set[str](),
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
}


@dataclass(frozen=True, eq=False)
class _Letter:
    """One letter of ``letters``; with ``but``, one that is none of them and no control character."""

    letters: str
    but: bool = False

    def takes(self, letter: str) -> bool:
        return (letter not in self.letters and letter >= " ") if self.but else letter in self.letters


@dataclass(frozen=True, eq=False)
class _All:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, eq=False)
class _Any:
    options: tuple[_Node, ...]


@dataclass(frozen=True, eq=False)
class _Many:
    """Any number of times; ``inner`` is never empty."""

    inner: _Node


@dataclass(frozen=True, eq=False)
class _Later:
    """A node that is made when it is reached, so that grammars can contain themselves."""

    make: Callable[[], _Node]


_Node = _Letter | _All | _Any | _Many | _Later


class _Stack:
    """A node and what comes after it. Stacks grow as long as a text is deep, so nothing here recurses into them."""

    __slots__ = ("_hash", "node", "rest")

    def __init__(self, node: _Node, rest: _Stack | None) -> None:
        self.node, self.rest = node, rest
        self._hash: int = hash((id(node), rest._hash if rest else 0))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        one: _Stack | None = self
        while isinstance(other, _Stack) and one is not None and one is not other:
            if one._hash != other._hash or one.node is not other.node:
                return False
            one, other = one.rest, other.rest
        return one is other


States = frozenset[_Stack | None]  # each begins with a letter; None: the text may end here


class Grammar:
    """Follows texts through the node ``start``."""

    def __init__(self, start: _Node) -> None:
        self._start = start

    def start(self) -> States:
        """Where the empty text stands."""
        return _reached([_Stack(self._start, None)])

    def after(self, states: States, text: str) -> States:
        """Where ``text`` leads from ``states``; empty where nothing goes on so."""
        for letter in text:
            read = [one for one in states if one and isinstance(one.node, _Letter) and one.node.takes(letter)]
            follow = [one.rest for one in read]
            states = _reached(follow)
            if not states:
                break
        return states

    def complete(self, states: States) -> bool:
        """Whether the text may end here."""
        return None in states


def _reached(stacks: Sequence[_Stack | None]) -> States:
    """The states that ``stacks`` stand for, with nothing but letters in front."""
    found: set[_Stack | None] = set()
    seen: set[_Stack | None] = set()
    waiting = list(stacks)
    while waiting:
        stack = waiting.pop()
        if stack in seen:
            continue
        seen.add(stack)
        if stack is None or isinstance(stack.node, _Letter):
            found.add(stack)
            continue
        node, rest = stack.node, stack.rest
        match node:
            case _All():
                for part in reversed(node.parts):
                    rest = _Stack(part, rest)
                waiting.append(rest)
            case _Any():
                waiting += [_Stack(option, rest) for option in node.options]
            case _Many():
                waiting += [rest, _Stack(node.inner, stack)]
            case _Later():
                waiting.append(_Stack(node.make(), rest))
    return frozenset(found)


def _text(text: str) -> _Node:
    return _All(tuple(_Letter(letter) for letter in text))


def _maybe(node: _Node) -> _Node:
    return _Any((_NOTHING, node))


def _up_to(node: _Node, count: int) -> _Node:
    """At most ``count`` times."""
    chain: _Node = _NOTHING
    for _ in range(count):
        chain = _maybe(_All((node, chain)))
    return chain


_NOTHING = _All(())
_SPACE = _Any((_NOTHING, _Letter(" "), _All((_Letter("\n"), _up_to(_Letter(" "), SPACES)))))
_DIGIT, _HEX = _Letter("0123456789"), _Letter("0123456789abcdefABCDEF")
_DIGITS = _All((_DIGIT, _Many(_DIGIT)))
_ESCAPED = _All((_Letter("\\"), _Any((_Letter('"\\/bfnrt'), _All((_Letter("u"), _HEX, _HEX, _HEX, _HEX))))))
_IN_STRING = _Any((_Letter('"\\', but=True), _ESCAPED))
_QUOTE = _Letter('"')
_STRING = _All((_QUOTE, _Many(_IN_STRING), _QUOTE))
_INTEGER = _All((_maybe(_Letter("-")), _Any((_Letter("0"), _All((_Letter("123456789"), _Many(_DIGIT)))))))
_EXPONENT = _All((_Letter("eE"), _maybe(_Letter("+-")), _DIGITS))
_NUMBER = _All((_INTEGER, _maybe(_All((_Letter("."), _DIGITS))), _maybe(_EXPONENT)))
_BOOLEAN = _Any((_text("true"), _text("false")))
_COMMA = _All((_SPACE, _Letter(","), _SPACE))
_COLON = _All((_SPACE, _Letter(":"), _SPACE))


def _listed(item: _Node, opening: str, closing: str) -> _Node:
    """``item`` any number of times, with commas, between brackets."""
    items = _maybe(_All((item, _Many(_All((_COMMA, item))))))
    return _All((_Letter(opening), _SPACE, items, _SPACE, _Letter(closing)))


def _any_value() -> _Node:
    return _VALUE


_OBJECT = _listed(_All((_STRING, _COLON, _Later(_any_value))), "{", "}")
_ARRAY = _listed(_Later(_any_value), "[", "]")
_VALUE = _Any((_OBJECT, _ARRAY, _STRING, _NUMBER, _BOOLEAN, _text("null")))


def json_grammar() -> Grammar:
    """Any JSON object."""
    return Grammar(_OBJECT)


def schema_grammar(schema: Mapping[str, Any] | bool) -> Grammar:
    """JSON that ``schema`` describes, its properties in the order of the schema.

    Raises ``ValueError`` for a schema that makes no sense, and for keywords that are not held to here.
    """
    try:
        return Grammar(_Compiler(schema).node(schema, ""))
    except RecursionError as error:
        raise ValueError("the schema is nested too deeply") from error


@dataclass
class _Compiler:
    """Makes nodes of the schema ``root``. ``where`` is always the path of what is looked at."""

    root: Any
    _refs: dict[str, _Node] = field(default_factory=dict)

    def node(self, schema: Any, where: str) -> _Node:
        if schema is True or schema == {}:
            return _VALUE
        if not isinstance(schema, Mapping):
            raise ValueError(f"{where or 'the schema'} is no schema")
        said = {name for name in schema if name not in _DESCRIBING}
        for name in ("const", "enum", "$ref", "anyOf"):
            if name in said:
                self._alone(said - {name, "type"}, name, where)
                return self._special(name, schema[name], where)
        types = schema.get("type", ["object" if "properties" in said else "array" if "items" in said else ""])
        types = [types] if isinstance(types, str) else types
        if types == [""]:
            self._alone(said, "a schema without type", where)
            return _VALUE
        if not isinstance(types, list) or not types or not all(kind in _KNOWN for kind in types):
            raise ValueError(f"{where}/type: known are {', '.join(_KNOWN)}")
        known = {"type"}.union(*(_KNOWN[kind] for kind in types))
        self._alone(said - known, " or ".join(types), where)
        return _Any(tuple(self._typed(kind, schema, where) for kind in types))

    def _alone(self, others: set[str], name: str, where: str) -> None:
        if others:
            raise ValueError(f"{where or '/'}: {min(others)!r} beside {name} is not held to here; leave it out")

    def _special(self, name: str, value: Any, where: str) -> _Node:
        if name == "const":
            return _literal(value)
        if name == "$ref":
            return self._reference(value, where)
        if not isinstance(value, list) or not value:
            raise ValueError(f"{where}/{name} wants a list")
        if name == "enum":
            return _Any(tuple(_literal(one) for one in value))
        return _Any(tuple(self.node(one, f"{where}/anyOf/{index}") for index, one in enumerate(value)))

    def _reference(self, path: Any, where: str) -> _Node:
        if not isinstance(path, str) or not path.startswith("#"):
            raise ValueError(f"{where}/$ref: only references into the schema itself (#/$defs/…) are followed")
        target = self.root
        for part in path.removeprefix("#").split("/")[1:]:
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        if not isinstance(target, Mapping | bool):
            raise ValueError(f"{where}/$ref: {path} is not there")
        if path not in self._refs:
            self._refs[path] = _Later(lambda: made)
            made = self.node(target, path)
        return self._refs[path]

    def _typed(self, kind: str, schema: Mapping[str, Any], where: str) -> _Node:
        match kind:
            case "object":
                return self._object(schema, where)
            case "array":
                return self._array(schema, where)
            case "string":
                least, most = _bounds(schema, "Length", where)
                if not least and most is None:
                    return _STRING
                rest = _Many(_IN_STRING) if most is None else _up_to(_IN_STRING, most - least)
                return _All((_QUOTE, *[_IN_STRING] * least, rest, _QUOTE))
        plain: dict[str, _Node] = {"number": _NUMBER, "integer": _INTEGER, "boolean": _BOOLEAN, "null": _text("null")}
        return plain[kind]

    def _array(self, schema: Mapping[str, Any], where: str) -> _Node:
        item = self.node(schema.get("items", True), f"{where}/items")
        least, most = _bounds(schema, "Items", where)
        if not least and most is None:
            return _listed(item, "[", "]")
        more = _All((_COMMA, item))
        rest = _Many(more) if most is None else _up_to(more, most - max(least, 1))
        some = _All((item, *[more] * (least - 1), rest)) if most != 0 else _NOTHING
        return _All((_Letter("["), _SPACE, some if least else _maybe(some), _SPACE, _Letter("]")))

    def _object(self, schema: Mapping[str, Any], where: str) -> _Node:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", True)
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            raise ValueError(f"{where}: properties wants an object, required a list")
        wanted = {**properties, **{name: others for name in required if name not in properties}}
        if not wanted and others is not False:
            value = self.node(others, f"{where}/additionalProperties")
            return _listed(_All((_STRING, _COLON, value)), "{", "}")
        pairs = [
            (_All((_literal(name), _COLON, self.node(value, f"{where}/properties/{name}"))), name in required)
            for name, value in wanted.items()
        ]
        first: _Node = _NOTHING  # what may follow before anything was written, and afterwards
        later: _Node = _NOTHING
        for pair, needed in reversed(pairs):
            opening, going = _All((pair, later)), _All((_COMMA, pair, later))
            first, later = (opening, going) if needed else (_Any((opening, first)), _Any((going, later)))
        return _All((_Letter("{"), _SPACE, first, _SPACE, _Letter("}")))


def _literal(value: Any) -> _Node:
    """``value`` as JSON. What is not ASCII may be escaped: tokens may hold but a part of such a letter."""
    letters = json.dumps(value, ensure_ascii=False)
    return _All(
        tuple(
            _Letter(letter) if letter.isascii() else _Any((_Letter(letter), _text(json.dumps(letter)[1:-1])))
            for letter in letters
        )
    )


def _bounds(schema: Mapping[str, Any], name: str, where: str) -> tuple[int, int | None]:
    least, most = schema.get(f"min{name}", 0), schema.get(f"max{name}")
    whole = all(isinstance(n, int) and 0 <= n <= MOST for n in _given(least, most))
    if not whole or (most is not None and most < least):
        raise ValueError(f"{where}: min{name} and max{name} are whole numbers from 0 to {MOST}, in this order")
    return least, most


def _given(*values: Any) -> Iterator[Any]:
    return (value for value in values if value is not None)
