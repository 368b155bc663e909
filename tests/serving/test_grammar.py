"""What a grammar lets through is JSON of the schema; what is JSON of the schema is let through."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from ilab.serving.grammar import Grammar, _Letter, json_grammar, schema_grammar

PERSON = {
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["a", 'b"c', 3, None]}, "minItems": 1, "maxItems": 3},
        "home": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]},
    },
    "required": ["name", "home"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"in": {"$ref": "#/$defs/place"}}, "required": []}},
}
SCHEMAS: list[Any] = [
    PERSON,
    {"type": "array", "items": {"type": ["number", "boolean"]}},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"const": {"k": [1, "ä"]}},
    {"type": "string", "minLength": 2, "maxLength": 3},
    {"type": "array", "maxItems": 0},
    {"type": "object", "required": ["x"], "properties": {"y": {"type": "null"}}},
    True,
]


def walk(grammar: Grammar, random_: random.Random) -> str:
    """A random text of the grammar."""
    states, text = grammar.start(), ""
    while True:
        letters = [one.node for one in states if one is not None and isinstance(one.node, _Letter)]
        if None in states and (not letters or random_.random() < 0.5 or len(text) > 300):
            return text
        closing = [node for node in letters if not node.but and node.letters in ('"', "}", "]")]
        node = random_.choice(closing if closing and random_.random() < 0.4 + len(text) / 200 else letters)
        letter = random_.choice("xé東 7") if node.but else random_.choice(node.letters)
        states, text = grammar.after(states, letter), text + letter
        assert states


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:30])
def test_what_is_let_through_is_of_the_schema(schema: Any) -> None:
    grammar, random_ = schema_grammar(schema), random.Random(7)
    for _ in range(60):
        jsonschema.validate(json.loads(walk(grammar, random_)), schema)


def let_through(grammar: Grammar, text: str) -> bool:
    return grammar.complete(grammar.after(grammar.start(), text))


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"name": "Ada", "home": None}, True),
        ({"name": "Ada", "age": -3, "tags": ["a", 'b"c', None], "home": {"in": {}}}, True),
        ({"name": "Ada"}, False),
        ({"name": "Adalie", "home": None}, False),
        ({"name": "Ada", "age": 1.5, "home": None}, False),
        ({"name": "Ada", "tags": [], "home": None}, False),
        ({"name": "Ada", "home": None, "more": 1}, False),
    ],
)
def test_what_is_of_the_schema_is_let_through(value: Any, fits: bool) -> None:
    for indent in (None, 2):
        assert let_through(schema_grammar(PERSON), json.dumps(value, indent=indent)) is fits


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"a": [1, -0.5e+3, true, null, "\\u00e4\\n"], "b": {}}', True),
        ("{}", True),
        ("[]", False),
        ('{"a": 01}', False),
        ('{"a": "line\nend"}', False),
        ('{"a": 1,}', False),
        ('{"a": "\\x"}', False),
        ("{" + '"a":{' * 3000 + "}" * 3001, True),  # deep, and no recursion
    ],
)
def test_any_object(text: str, fits: bool) -> None:
    assert let_through(json_grammar(), text) is fits


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "pattern": "^a"}, "'pattern' beside string"),
        ({"oneOf": [{}]}, "'oneOf' beside a schema without type"),
        ({"type": "integer", "minimum": 3}, "'minimum'"),
        ({"type": "array", "minItems": 5, "maxItems": 2}, "minItems and maxItems"),
        ({"type": "array", "maxItems": 10**9}, "from 0 to 1000"),
        ({"$ref": "http://example.org/x"}, "into the schema itself"),
        ({"$ref": "#/$defs/gone"}, "is not there"),
        ({"type": "thing"}, "known are string"),
        ({"type": "object", "properties": {"a": 5}}, "/properties/a is no schema"),
        ({"enum": []}, "wants a list"),
    ],
)
def test_what_is_not_held_to_is_refused(schema: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        schema_grammar(schema)


def test_a_schema_that_is_nothing_but_itself_ends() -> None:
    grammar = schema_grammar({"$ref": "#"})
    assert not grammar.after(grammar.start(), "{")
