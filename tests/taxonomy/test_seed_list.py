"""Drafts are added to a file without touching a byte of what its author wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.errors import InputError
from ilab.taxonomy.seed_list import Draft, read_unfinished, shown, with_drafts

TEXT = "The ferry sails.\n\n# Not a comment\n\n  - not an entry\n\ttab: and colon\n\n| a | b |"
DRAFTS = [
    Draft(TEXT, (("What: sails?", "the ferry"), ("How many?", "14"), ("Why #1?", "no")), "from a.md, A: b # c"),
    Draft("Second text.", (("a b c?", "d"), ("e?", "'f'"), ("g?", '"h" - ' + "long " * 40 + "end")), "from b.md"),
]
HEAD = "version: 3\ncreated_by: me  # by me\n"
SEED = """\
{dash}- context: >-
{dash}    folded text
{dash}    # no comment either
{dash}  questions_and_answers:
{dash}    - {{question: 'a?',   answer: b}}
"""
FORM = "  - context:\n    # write here\n    questions_and_answers:\n      - question:\n        answer: ''\n"


def added(tmp_path: Path, text: str, drafts: list[Draft] | None = None) -> str:
    path = tmp_path / "qna.yaml"
    path.write_bytes(text.encode())
    return with_drafts(read_unfinished(path, "qna.yaml"), DRAFTS if drafts is None else drafts)


def seeds(text: str) -> list[dict[str, object]]:
    """By PyYAML, not by our reader."""
    found: list[dict[str, object]] = yaml.safe_load(text)["seed_examples"]
    return found


def as_yaml(draft: Draft) -> dict[str, object]:
    pairs = [{"question": question, "answer": answer} for question, answer in draft.pairs]
    return {"context": draft.context + "\n", "questions_and_answers": pairs, "draft": True}


@pytest.mark.parametrize("dash", ["", "  ", "    "], ids=["flush", "two", "four"])
@pytest.mark.parametrize(
    "tail",
    [
        "",
        "\n",
        "\n# the end\n\n",
        "document:\n  path: a.md\n",
        "\n# about documents\ndocument: {path: a.md}\n",
        "...\n",
    ],
)
def test_behind_the_last_entry(tmp_path: Path, dash: str, tail: str) -> None:
    before = HEAD + "seed_examples:\n\n" + SEED.format(dash=dash) + "\n" + SEED.format(dash=dash).replace("b}", "c}")
    text = added(tmp_path, before + tail)
    assert text.startswith(before)
    assert text.endswith(tail)
    assert seeds(text)[2:] == [as_yaml(draft) for draft in DRAFTS]
    assert seeds(text)[:2] == seeds(before)


def test_every_new_line_is_an_addition(tmp_path: Path) -> None:
    before = (
        HEAD + "seed_examples:\n" + SEED.format(dash="  ") + "    # of the entry\n  # of what follows\ndocument: {}\n"
    )
    text = added(tmp_path, before)
    new = shown(DRAFTS) + "\n"
    assert text.replace(new, "") == before
    assert new.count("draft: true  # from ") == 2
    assert text.index("# of the entry") < text.index(new) < text.index("# of what follows")


def test_a_form_makes_room_and_other_entries_stay(tmp_path: Path) -> None:
    half = "  - context: begun\n    questions_and_answers:\n      - question:\n        answer:\n"
    text = added(tmp_path, f"{HEAD}seed_examples:\n{FORM}  # kept\n{half}{FORM}document:\n", DRAFTS[1:])
    assert [seed["context"] for seed in seeds(text)] == ["begun", "Second text.\n"]
    assert "# kept" in text
    assert "# write here" not in text
    assert read_unfinished(tmp_path / "qna.yaml", "qna.yaml").seeds[0].context == "begun"


@pytest.mark.parametrize(
    "start", ["seed_examples:", "seed_examples: []  # none", "seed_examples: null", "seed_examples: ~"]
)
def test_the_first_entries(tmp_path: Path, start: str) -> None:
    text = added(tmp_path, f"{HEAD}{start}\ndocument: x\n")
    assert seeds(text) == [as_yaml(draft) for draft in DRAFTS]
    assert ("# none" in text) == ("# none" in start)
    assert text.endswith("\ndocument: x\n")


def test_a_list_that_is_not_there_yet(tmp_path: Path) -> None:
    text = added(tmp_path, f"{HEAD}document: x")
    assert text.startswith(f"{HEAD}document: x\n\nseed_examples:\n  - context: |\n")
    assert seeds(text) == [as_yaml(draft) for draft in DRAFTS]


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    before = (HEAD + "seed_examples:\n" + SEED.format(dash="  ")).replace("\n", "\r\n")
    text = added(tmp_path, before)
    assert text.startswith(before)
    assert text.replace("\r\n", "").count("\n") == 0
    assert seeds(text)[1:] == [as_yaml(draft) for draft in DRAFTS]


@pytest.mark.parametrize(
    "text",
    [
        "{version: 3, seed_examples: []}",
        "seed_examples: [{context: a}]",
        "seed_examples:\n  [{context: a}]",
        "seed_examples: text",
        "seed_examples: {context: a}",
        "a: &x [1]\nseed_examples: *x",
    ],
)
def test_what_lines_cannot_be_added_to_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="nothing can be added") as caught:
        added(tmp_path, text)
    assert "dashes" in caught.value.hint


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "text"])
def test_what_is_no_leaf_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="is no leaf"):
        added(tmp_path, text)


def test_what_stands_there_is_read(tmp_path: Path) -> None:
    pairs = "    questions_and_answers:\n      - {question: a?, answer: b}\n      - {question: c?, answer: d, draft: true}\n"
    quoted = "  - context: z\n    draft: 'true'\n"
    text = f"seed_examples:\n  - context: x\n{pairs}  - context: y\n    draft: true\n{FORM}{quoted}  - question: q\n    answer: 1\n"
    (tmp_path / "qna.yaml").write_text(text)
    leaf = read_unfinished(tmp_path / "qna.yaml", "qna.yaml")
    assert [(seed.context, seed.draft) for seed in leaf.seeds] == [
        ("x", True),
        ("y", True),
        ("z", False),
        ("", False),
    ]
    assert leaf.seeds[0].pairs == (("a?", "b"), ("c?", "d"))
    assert leaf.seeds[3].pairs == (("q", "1"),)
    assert [seed.line for seed in leaf.drafts] == [2, 6]


LINE = st.text(
    st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"], blacklist_characters="\ufeff\ufffe\uffff"), min_size=1
)
ONE_LINE = LINE.map(lambda text: " ".join(text.split())).filter(bool)


@settings(max_examples=60, deadline=None)
@given(
    context=st.lists(ONE_LINE, min_size=1, max_size=4).map("\n".join),
    pairs=st.lists(st.tuples(ONE_LINE, ONE_LINE), min_size=1, max_size=3),
    note=ONE_LINE,
    dash=st.sampled_from(["", " ", "  "]),
)
def test_whatever_a_document_says(
    tmp_path_factory: pytest.TempPathFactory, context: str, pairs: list[tuple[str, str]], note: str, dash: str
) -> None:
    draft = Draft(context, tuple(pairs), note)
    before = HEAD + "seed_examples:\n" + SEED.format(dash=dash)
    text = added(tmp_path_factory.mktemp("leaf"), before + "document: {}\n", [draft])
    assert text.startswith(before)
    assert seeds(text)[1] == as_yaml(draft)
