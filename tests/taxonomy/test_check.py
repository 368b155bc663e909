"""The schema files: only keywords that the checker reads, the verdicts of another validator, faults at their place."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import ilab.taxonomy
from ilab.errors import InputError
from ilab.taxonomy.check import check
from ilab.taxonomy.yamlfaults import MOST_FAULTS
from ilab.taxonomy.yamlnodes import MappingNode, Node, ScalarNode, SequenceNode, compose

SCHEMAS = sorted((Path(ilab.taxonomy.__file__).parent / "schema").glob("*.json"))
READ = {"type", "required", "properties", "additionalProperties", "items", "minItems", "uniqueItems", "minLength"}
READ |= {"enum", "const", "not", "contains", "minContains", "if", "then", "else", "$ref", "$defs"}
NOTES = {"$schema", "title", "description", "examples"}
DATA = Path(__file__).parents[3] / "shared" / "data"

PAIR = {"question": "Q?", "answer": "A"}
PAIRS = [{"question": f"Q{n}?", "answer": f"A{n}"} for n in range(3)]
SKILL = {
    "version": 3,
    "created_by": "t",
    "task_description": "Do it.",
    "seed_examples": [{"question": f"Q{n}?", "answer": f"A{n}", "context": f"C{n}"} for n in range(5)],
}
KNOWLEDGE = {
    "version": 3,
    "created_by": "t",
    "domain": "kilns",
    "document_outline": "Kilns.",
    "seed_examples": [{"context": f"C{n}", "questions_and_answers": PAIRS} for n in range(5)],
    "document": {"repo": "https://example.org/r.git", "commit": "main", "patterns": ["*.md", "x.md"]},
}
OLD_KNOWLEDGE = {
    "created_by": "t",
    "domain": "kilns",
    "task_description": "Teach.",
    "seed_examples": [{"question": f"Q{n}?", "answer": f"A{n}"} for n in range(5)],
    "document": {"path": "kiln.md"},
}
EVAL = {
    "version": 1,
    "created_by": "t",
    "items": [
        {"split": "dev", "kind": "mcq", "question": "Q?", "options": ["A", "B"], "answer": "A", "about": "x"},
        {"split": "test", "question": "Q2?", "context": None, "answer": "A"},
    ],
}


def rules(value: Any) -> Iterator[dict[str, Any]]:
    """Every subschema of a schema."""
    yield value
    for key in ("items", "contains", "not", "if", "then", "else"):
        if key in value:
            yield from rules(value[key])
    for key in ("properties", "$defs"):
        for inner in value.get(key, {}).values():
            yield from rules(inner)


def faults(text: str, schema: str) -> list[str]:
    problems: list[InputError] = []
    node = compose(text, "f", problems)
    assert node is not None
    check(node, schema, "f", problems)
    return [str(problem) for problem in problems]


def written(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def other_verdict(node: Node, schema: str) -> bool:
    """What the jsonschema package says of the same tree, its scalars read as the checker's docstring says."""

    def value(node: Node, key: str = "") -> Any:
        if isinstance(node, MappingNode):
            return {name: value(entry.value, name) for name, entry in node.entries.items()}
        if isinstance(node, SequenceNode):
            return [value(item) for item in node.items]
        assert isinstance(node, ScalarNode)
        if key == "version" and node.text.lstrip("-").isdecimal():
            return int(node.text)
        if key == "draft" and node.plain and node.text in ("true", "false"):
            return node.text == "true"
        return node.text.strip()

    rules = json.loads(next(path for path in SCHEMAS if path.stem == schema).read_text(encoding="utf-8"))
    valid: bool = jsonschema.Draft202012Validator(rules).is_valid(value(node))
    return valid


def agree(value: Any, schema: str) -> bool:
    """The common verdict of both validators."""
    text = written(value)
    node = compose(text, "f", [])
    assert node is not None
    mine = faults(text, schema) == []
    assert mine == other_verdict(node, schema), text
    return mine


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_schemas_use_only_what_is_checked_and_refer_to_what_exists(path: Path) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    for rule in rules(schema):
        assert set(rule) <= READ | NOTES
        assert set(rule.get("required", ())) <= set(rule.get("properties", rule.get("required", ())))
        if "$ref" in rule:
            assert rule["$ref"].removeprefix("#/$defs/") in schema["$defs"]


def test_three_schemas_are_shipped() -> None:
    assert [path.stem for path in SCHEMAS] == ["eval", "knowledge", "skill"]


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (SKILL, "skill"),
        (SKILL | {"version": 2}, "skill"),
        ({**SKILL, "version": 1, "seed_examples": [PAIR], "task_description": None}, "skill"),
        (KNOWLEDGE, "knowledge"),
        (OLD_KNOWLEDGE, "knowledge"),
        (OLD_KNOWLEDGE | {"version": 2}, "knowledge"),
        (KNOWLEDGE | {"document": {"path": ["a.md", "b"]}}, "knowledge"),
        (KNOWLEDGE | {"document": [{"path": "a"}, {"url": "https://e.org"}, {"text": "x"}]}, "knowledge"),
        (EVAL, "eval"),
    ],
)
def test_what_both_validators_accept_and_what_becomes_of_it_when_it_is_broken(value: Any, schema: str) -> None:
    """Every value removed, emptied, doubled or replaced by another type, one at a time, and some at random."""
    assert agree(value, schema)
    broken = list(mutants(value))
    assert len(broken) > 30
    verdicts = [agree(mutant, schema) for mutant in broken]
    assert verdicts.count(False) > len(verdicts) / 2
    chance = random.Random(7)
    for _ in range(30):
        mutant = value
        for _ in range(chance.randint(2, 3)):
            mutant = chance.choice(list(mutants(mutant)) or [value])
        agree(mutant, schema)


def mutants(value: Any) -> Iterator[Any]:
    """Copies of ``value`` with one change each."""
    for way in list(ways(value)):
        for change in ("remove", "rename", "double", "", "  ", "true", 7, [], {}, ["x"], {"a": "b"}, True, PAIR):
            mutant = copy.deepcopy(value)
            inner = mutant
            for step in way[:-1]:
                inner = inner[step]
            if change == "remove":
                del inner[way[-1]]
            elif change == "rename":
                if not isinstance(inner, dict):
                    continue
                inner["draft" if "question" in inner or "context" in inner else "x"] = inner.pop(way[-1])
            elif change == "double":
                if not isinstance(inner, list):
                    continue
                inner.append(inner[way[-1]])
            else:
                inner[way[-1]] = change
            yield mutant


def ways(value: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside ``value``; of lists to the first entry."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in inner:
        yield (key,)
        yield from ((key, *rest) for rest in ways(item))


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")
def test_both_validators_accept_the_public_taxonomy() -> None:
    files = sorted((DATA / "instructlab-taxonomy").rglob("qna.yaml"))
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        node, schema = compose(text, "f", []), "knowledge" if "\ndocument:" in text else "skill"
        assert node is not None
        assert other_verdict(node, schema) and faults(text, schema) == []


def test_a_misspelt_key_is_one_fault_not_two() -> None:
    told = faults("items:\n  - splitt: dev\n    question: Q\n    answer: A\n", "eval")
    assert told == ["f:2:5: `items[0].splitt` is not a known key\n  did you mean `split`?"]


@pytest.mark.parametrize(
    ("text", "schema", "told"),
    [
        (
            "created_by: t\ntask_description: d\nseed_examples:\n  question: Q\n  answer: A\n",
            "skill",
            ["f:4:3: `seed_examples` must be a list (`- ` lines)\n  begin each of its entries with `- `"],
        ),
        (
            "created_by: t\ntask_description: d\nseed_examples:\n",
            "skill",
            ["f:3:15: `seed_examples` is empty; it must be a list (`- ` lines)\n  begin each of its entries with `- `"],
        ),
        (
            "created_by: t\ntask_description: d\nseed_examples:\n  - question: [a, b]\n    answer: A\n",
            "skill",
            [
                "f:4:15: `seed_examples[0].question` must be text\n"
                "  write one text; in quotes, or below a `|`, it may hold anything"
            ],
        ),
        (
            "created_by: t\ntask_description: d\nseed_examples:\n  - context: c\n    questions_and_answers: []\n",
            "skill",
            [
                "f:5:5: `seed_examples[0].questions_and_answers` is not a known key\n"
                "  only knowledge of version 3 has several pairs under one context; write one `question` and `answer` here"
            ],
        ),
        (
            "created_by: t\ntask_description: d\ndomain: x\nseed_examples:\n  - {question: Q, answer: A, draft: maybe}\n",
            "skill",
            [
                "f:5:37: `seed_examples[0].draft` must be `true` or `false`\n  write `true`, or remove the line",
                "f:3:1: `domain` is not a known key\n  only knowledge has it; remove the line",
            ],
        ),
        ("- a\n", "skill", ["f:1:1: the file must be a mapping (`key: value` lines)\n  write `key: value` lines below it, without `- `"]),
        ("a", "skill", ["f:1:1: the file must be a mapping (`key: value` lines)\n  write `key: value` lines below it, without `- `"]),
    ],
)  # fmt: skip
def test_what_people_really_do(text: str, schema: str, told: list[str]) -> None:
    assert faults(text, schema) == told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"document": "kiln.md"}, '`document` must be a mapping (`key: value` lines)\n  for example: {"path": "manual.md"}'),
        ({"document": []}, "`document` needs at least 1 entry and has 0\n  add 1 more"),
        ({"document": {"url": "https://e.org", "path": "x"}}, "`document.url` is not a known key\n  known here: path"),
        ({"document": [{"path": "a"}, {"path": "a"}]}, "`document[1]` is the same as the entry at line"),
        ({"document": {"text": ""}}, "`document.text` is empty"),
        ({"task_description": "d"}, "`task_description` is not a known key\n  knowledge of version 3 has a `document_outline`"),
        ({"version": 2}, "`document_outline` is not a known key\n  it belongs to knowledge of version 3: write `version: 3`"),
    ],
)  # fmt: skip
def test_hints_about_knowledge(change: dict[str, Any], told: str) -> None:
    assert told in "\n".join(faults(written(KNOWLEDGE | change), "knowledge"))


def test_equal_entries_are_told_whatever_their_order_of_keys() -> None:
    text = "created_by: t\ntask_description: d\nversion: 3\nseed_examples:\n"
    text += "".join(f"  - {{question: Q{n}, answer: A}}\n" for n in range(4))
    assert "same as the entry at line 5" in faults(text + "  - {answer: 'A ', question: Q0}\n", "skill")[0]
    assert faults(text + "  - {answer: A, question: Q00}\n", "skill") == []
    aliased = text.replace("- {question: Q0", "- &one {question: Q0") + "  - *one\n"
    assert "same as the entry at line 5" in faults(aliased, "skill")[0]


def test_no_more_faults_are_told_than_a_person_reads() -> None:
    assert len(faults("".join(f"key{n}: x\n" for n in range(50_000)), "skill")) == MOST_FAULTS
