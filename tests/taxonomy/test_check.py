"""The schema files: only keywords that the checker reads, and every fault at its place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ilab.taxonomy
from ilab.errors import InputError
from ilab.taxonomy.check import check
from ilab.taxonomy.yamlnodes import compose

SCHEMAS = sorted((Path(ilab.taxonomy.__file__).parent / "schema").glob("*.json"))
READ = {"type", "required", "properties", "additionalProperties", "items", "minItems", "uniqueItems", "minLength"}
READ |= {"enum", "const", "if", "then", "else", "$ref", "$defs"}
NOTES = {"$schema", "title", "description"}


def rules(value: Any) -> Iterator[dict[str, Any]]:
    """Every subschema of a schema."""
    yield value
    for key in ("items", "if", "then", "else"):
        if key in value:
            yield from rules(value[key])
    for key in ("properties", "$defs"):
        for inner in value.get(key, {}).values():
            yield from rules(inner)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_schemas_use_only_what_is_checked_and_refer_to_what_exists(path: Path) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    for rule in rules(schema):
        assert set(rule) <= READ | NOTES
        assert set(rule.get("required", ())) <= set(rule.get("properties", rule.get("required", ())))
        if "$ref" in rule:
            assert rule["$ref"].removeprefix("#/$defs/") in schema["$defs"]


def test_three_schemas_are_shipped() -> None:
    assert [path.stem for path in SCHEMAS] == ["eval", "knowledge", "skill"]


def test_a_misspelt_key_is_one_fault_not_two() -> None:
    problems: list[InputError] = []
    node = compose("items:\n  - splitt: dev\n    question: Q\n    answer: A\n", "eval.yaml", problems)
    assert node is not None
    check(node, "eval", "eval.yaml", problems)
    assert [str(problem) for problem in problems] == [
        "eval.yaml:2: `items[0].splitt` is not a known key\n  did you mean `split`?"
    ]
