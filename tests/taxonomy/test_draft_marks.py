"""Drafts do not count until a person removes their mark; old versions are read and told."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.data import Leaf
from ilab.taxonomy.layout import find_layout
from ilab.taxonomy.lint import LintWarning, lint
from ilab.taxonomy.read import read_leaves

PAIRS = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(3)]
SKILL = {
    "version": 3,
    "created_by": "t",
    "task_description": "Do it.",
    "seed_examples": [{"question": f"q{n}", "answer": f"a{n}"} for n in range(5)],
}
KNOWLEDGE = {
    "version": 3,
    "created_by": "t",
    "domain": "d",
    "document_outline": "o",
    "document": {"path": "a.md"},
    "seed_examples": [{"context": f"c{n}", "questions_and_answers": PAIRS} for n in range(5)],
}
DRAFT = {"draft": True}
HINT = "read the drafts, correct them, then remove their `draft: true` lines"


def read(root: Path, content: dict[str, Any] | str) -> tuple[list[Leaf], list[str], list[LintWarning]]:
    """Leaves, errors and notes of a taxonomy of one leaf."""
    name = "knowledge" if "document" in content else "compositional_skills"
    path = root / name / "a" / "qna.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    notes: list[LintWarning] = []
    leaves, problems = read_leaves(find_layout(root), notes)
    return list(leaves), [str(problem) for problem in problems], notes


def with_seeds(base: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    return {**base, "seed_examples": [*base["seed_examples"], *more]}


def test_drafts_are_no_part_of_the_leaf(tmp_path: Path) -> None:
    (plain,), _, notes = read(tmp_path, SKILL)
    assert notes == []
    more = {"question": "q9", "answer": "a9", "context": "c9"} | DRAFT
    (leaf,), problems, notes = read(tmp_path, with_seeds(SKILL, more, {"question": "x", "answer": "y"} | DRAFT))
    assert problems == []
    assert (leaf.seeds, leaf.digest, leaf.kind) == (plain.seeds, plain.digest, "freeform")
    assert [(note.code, note.message, str(note.place)) for note in notes] == [
        ("draft", "2 drafts wait to be read", "compositional_skills/a/qna.yaml:15:3")
    ]
    assert "remove its `draft: true` line" in notes[0].hint


def test_a_mark_that_says_no_is_none(tmp_path: Path) -> None:
    content = copy.deepcopy(SKILL)
    content["seed_examples"][0]["draft"] = False
    (leaf,), problems, notes = read(tmp_path, content)
    assert (len(leaf.seeds), problems, notes) == (5, [], [])


@pytest.mark.parametrize("spelling", ["true", "True", "TRUE"])
def test_yamls_spellings_of_true(tmp_path: Path, spelling: str) -> None:
    text = yaml.safe_dump(SKILL, sort_keys=False) + f"- question: x\n  answer: y\n  draft: {spelling}\n"
    (leaf,), problems, notes = read(tmp_path, text)
    assert (len(leaf.seeds), problems, len(notes)) == (5, [], 1)


@pytest.mark.parametrize("wrong", ["'true'", "yes", "1", "", "[true]"])
def test_another_mark_is_refused_and_not_trained_on(tmp_path: Path, wrong: str) -> None:
    text = yaml.safe_dump(SKILL, sort_keys=False) + f"- question: x\n  answer: y\n  draft: {wrong}\n"
    leaves, problems, _ = read(tmp_path, text)
    assert leaves == []
    column = 10 if wrong else 9
    assert f"compositional_skills/a/qna.yaml:17:{column}: `seed_examples[5].draft` " in problems[0]
    assert "must be `true` or `false`" in problems[0]


def test_drafts_among_the_pairs(tmp_path: Path) -> None:
    content = copy.deepcopy(KNOWLEDGE)
    content["seed_examples"][1]["questions_and_answers"] = [*PAIRS, {"question": "x", "answer": "y"} | DRAFT]
    content["seed_examples"].append({"context": "c9", "questions_and_answers": [PAIRS[0] | DRAFT]} | DRAFT)
    (plain,), _, _ = read(tmp_path, KNOWLEDGE)
    (leaf,), problems, notes = read(tmp_path, content)
    assert problems == []
    assert [len(seed.pairs) for seed in leaf.seeds] == [3] * 5
    assert leaf.digest == plain.digest
    assert [note.message for note in notes] == ["2 drafts wait to be read"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            {**SKILL, "seed_examples": [*SKILL["seed_examples"][:2], *({**seed, "draft": True} for seed in SKILL["seed_examples"][2:])]},
            f"`seed_examples` needs at least 5 seed examples that are no drafts and has 2 (3 drafts)\n  {HINT}",
        ),
        (
            {**SKILL, "seed_examples": [SKILL["seed_examples"][0], SKILL["seed_examples"][1] | DRAFT]},
            f"`seed_examples` needs at least 5 seed examples that are no drafts and has 1 (1 draft)\n  {HINT}, and add 3 more",
        ),
        (
            with_seeds({**KNOWLEDGE, "seed_examples": KNOWLEDGE["seed_examples"][:4]}, {"context": "c", "questions_and_answers": [*PAIRS[:2], PAIRS[2] | DRAFT]}),
            "`seed_examples[4].questions_and_answers` needs at least 3 question-answer pairs that are no drafts and has 2 (1 draft)",
        ),
        (
            {"version": 1, "created_by": "t", "task_description": "", "seed_examples": [PAIRS[0] | DRAFT]},
            "needs at least 1 seed example that is no draft and has 0 (1 draft)",
        ),
    ],
)  # fmt: skip
def test_drafts_do_not_make_up_the_number(tmp_path: Path, content: dict[str, Any], told: str) -> None:
    leaves, problems, notes = read(tmp_path, content)
    assert leaves == [] and len(problems) == 1
    assert told in problems[0]
    assert "draft" in [note.code for note in notes]


def test_the_form_of_drafts_is_checked(tmp_path: Path) -> None:
    _, problems, _ = read(tmp_path, with_seeds(SKILL, {"question": "x"} | DRAFT))
    assert problems == [
        "compositional_skills/a/qna.yaml:15:3: `seed_examples[5]` has no `answer`\n  add a line `answer: …`"
    ]


@pytest.mark.parametrize(
    ("version", "place", "message"),
    [
        ("version: 1\n", "1:10", "version 1; `ilab taxonomy upgrade` rewrites it to version 3"),
        ("version: 2\n", "1:10", "version 2; `ilab taxonomy upgrade` rewrites it to version 3"),
        ("", "1:1", "version 1; `ilab taxonomy upgrade` rewrites it to version 3"),
        ("version: 3\n", "", ""),
    ],
)
def test_old_versions_are_read_and_told(tmp_path: Path, version: str, place: str, message: str) -> None:
    rest = {key: value for key, value in SKILL.items() if key != "version"}
    (leaf,), problems, notes = read(tmp_path, version + yaml.safe_dump(rest, sort_keys=False))
    assert problems == []
    assert leaf.version == int(version[9:] or 1)
    told = [(str(note.place).removeprefix("compositional_skills/a/qna.yaml:"), note.message) for note in notes]
    assert told == ([(place, message)] if place else [])


def test_notes_stand_among_the_warnings_in_the_order_of_the_file(tmp_path: Path) -> None:
    content = with_seeds({**SKILL, "version": 2}, {"question": "x", "answer": "y"} | DRAFT)
    leaves, _, notes = read(tmp_path, content)
    assert [(found.code, found.place.line) for found in lint(leaves, notes=notes)] == [
        ("no-attribution", 1),
        ("old-version", 1),
        ("draft", 15),
    ]


def test_knowledge_whose_version_was_forgotten_is_one_fault(tmp_path: Path) -> None:
    _, problems, _ = read(tmp_path, {key: value for key, value in KNOWLEDGE.items() if key != "version"})
    assert problems == [
        "knowledge/a/qna.yaml:1:1: has no `version`, and a `document_outline` as version 3 has it\n"
        "  write `version: 3` as its first line"
    ]
