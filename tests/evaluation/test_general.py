"""The general suite: how a table becomes questions, and what is refused with its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ilab.errors import IlabError, InputError
from ilab.evaluation.asking import prompt
from ilab.evaluation.general import BUILTIN, find_general, read_general, with_shots
from ilab.evaluation.leaf import item_key


def table(folder: Path, *rows: Any, name: str = "general.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def row(answer: Any, *options: str, **more: Any) -> dict[str, Any]:
    return {"question": "Which one?", "choices": list(options or ("red", "green", "blue")), "answer": answer, **more}


def test_our_own_set_is_whole_and_independent_of_the_place() -> None:
    found = find_general(BUILTIN, Path("/nowhere"))
    items = read_general(Path((found.details or {})["path"]))
    assert len(items) > 100 and len({item.id for item in items}) == len(items)
    assert len({item.leaf for item in items}) > 5
    assert all(item.gold in item.options and item.leaf.startswith("general/") for item in items)
    assert all(item.origin == "general" and item.split == "test" and item.cluster == item.id for item in items)


@pytest.mark.parametrize(
    ("answer", "options", "gold"),
    [
        ("green", (), "green"),
        ("B", (), "green"),
        ("b", (), "green"),
        (1, (), "green"),
        ("1", (), "green"),
        ("A", ("B", "A"), "A"),  # a text goes before a letter
        (0, ("4", "2", "0", "6"), "4"),  # a number of a data set goes by place, also where an option is that number
        ("0", ("4", "2", "0", "6"), "0"),  # a cell of text by its text
        (7, ("5", "7"), "7"),  # no place, so a text
        (" green ", (), "green"),
    ],
)
def test_the_answer_is_a_text_a_letter_or_a_place(tmp_path: Path, answer: Any, options: Any, gold: str) -> None:
    assert read_general(table(tmp_path, row(answer, *options)))[0].gold == gold


@pytest.mark.parametrize("answer", ["yellow", "D", 3, -1, "-1", "", None, "ß", "²", True, 1.0, ["red"], "AB", "Ⅱ"])
def test_an_answer_that_is_no_option_is_named_with_its_row(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(InputError, match="none of the options") as error:
        read_general(table(tmp_path, row("red"), row(answer, question="Other?")))
    assert str(error.value.where).endswith("general.jsonl, row 2")


@pytest.mark.parametrize(
    "changes",
    [
        {"question": ""},
        {"question": None},
        {"choices": None},
        {"choices": ["red"]},
        {"choices": ["red", " red "]},
        {"choices": {"a": "red", "b": "green"}},
        {"choices": 7},
        {"choices": ["red", ""]},
    ],
)
def test_what_is_no_question_is_named_with_its_row(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not a question") as error:
        read_general(table(tmp_path, {**row("red"), **changes}))
    assert "row 1" in str(error.value.where) and "columns: question" in str(error.value.hint)


def test_csv_cells_hold_options_apart_by_bars(tmp_path: Path) -> None:
    path = tmp_path / "general.csv"
    path.write_text('question,options,answer,subject\n"One, or two?",one | two,B,a/b\n=1+1?,2|3,2,\n', encoding="utf-8")
    first, second = read_general(path)
    assert (first.question, first.options, first.gold, first.leaf) == (
        "One, or two?",
        ("one", "two"),
        "two",
        "general/a b",
    )
    assert second.question == "=1+1?" and second.leaf == "general/all"


def test_a_question_that_stands_twice_counts_once_and_order_is_no_identity(tmp_path: Path) -> None:
    rows = [row("red"), row("red"), row("green", question="Other?")]
    items = read_general(table(tmp_path, *rows))
    assert len(items) == 2
    turned = read_general(table(tmp_path, *reversed(rows), name="turned.jsonl"))
    assert {item.id for item in turned} == {item.id for item in items}


def test_identity_is_what_is_asked(tmp_path: Path) -> None:
    same = [
        find_general(table(tmp_path, row("red"), name=name).name, tmp_path).digest for name in ("a.jsonl", "b.jsonl")
    ]
    other = find_general(table(tmp_path, row("blue"), name="c.jsonl").name, tmp_path).digest
    assert same[0] == same[1] != other


@pytest.mark.parametrize(
    ("name", "content"), [("e.jsonl", b""), ("b.csv", b"\x00\xff\xfe"), ("n.jsonl", b"{]"), ("t.exe", b"MZ")]
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IlabError):
        read_general(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file of questions: gone\.csv") as error:
        find_general("gone.csv", tmp_path)
    assert error.value.where == "eval_general"


def test_solved_questions_of_the_same_subject_stand_before_each() -> None:
    items = read_general(Path((find_general(BUILTIN, Path("/nowhere")).details or {})["path"]))
    assert with_shots(items, 0) == items
    shown = with_shots(items, 5)
    assert [one.id for one in shown] == [one.id for one in items]
    for item in shown:
        assert item.shots is not None and len(item.shots) == 5
        assert item.question not in [question for question, _ in item.shots]
    turns = prompt(shown[0])
    assert [turn.role for turn in turns] == ["user", "assistant"] * 5 + ["user"]
    assert item_key("model", shown[0], "") != item_key("model", items[0], "")
