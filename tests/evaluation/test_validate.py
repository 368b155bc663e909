"""What is found wrong with held-out questions, and multiple choice read from a teacher's text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ilab.data import Chunk, Item, Message
from ilab.errors import InputError
from ilab.evaluation import validate as names
from ilab.evaluation.item_files import read_item_files, read_passages, read_questions
from ilab.evaluation.mcq_text import Read, Unread, read_mcq
from ilab.evaluation.solving import read_letter, solver
from ilab.evaluation.validate import gold_positions, validate

TEXT = "Tavrin Lock was built in 1874 by Ada Brook. It is 14 metres wide.\n\nThe kiln burns oak."


def item(number: int, question: str = "", gold: str = "1874", **more: Any) -> Item:
    fields: dict[str, Any] = {"options": ("1874", "1901", "1655", "1732"), "kind": "mcq", **more}
    question = question or f"When was lock {number} built?"
    return Item(
        id=f"i{number}", leaf="items", split="test", question=question, gold=gold, cluster=f"c{number}", **fields
    )


def reasons(items: Sequence[Item], **more: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for flaw in validate(items, **more).flaws:
        found.setdefault(flaw.item, set()).add(flaw.reason)
    return found


def passage(text: str = TEXT) -> Chunk:
    return Chunk(id="p", leaf="items", document="d", source="s", heading=(), span=(0, 1), text=text, tokens=1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (item(1, " "), names.EMPTY),
        (item(1, gold=""), names.NO_GOLD),
        (item(1, gold="1999"), names.NOT_AMONG),
        (item(1, options=("1874",)), names.TOO_FEW),
        (item(1, options=("1874", " ")), names.EMPTY_OPTION),
        (item(1, options=("1874", "oak", "Oak ")), names.SAME_OPTIONS),
        (item(1, options=("1874", "in 1874 or so", "x")), names.CONTAINED),
    ],
)
def test_what_is_wrong_with_a_question_by_itself(bad: Item, reason: str) -> None:
    good = item(2)
    found = validate([bad, good])
    assert reason in {flaw.reason for flaw in found.flaws if flaw.item == "i1"}
    assert not [flaw for flaw in found.flaws if flaw.item == "i2"]
    assert found.failed is (reason in names.ERRORS)
    assert (found.items, found.sound) == (2, 1)
    assert found.reasons[reason] == 1


def test_the_same_question_twice_is_one_unless_its_context_differs() -> None:
    asked = [
        item(1, "When was it built?"),
        item(2, "when was it  built"),
        item(3, "When was it built?", context="The kiln."),
    ]
    assert reasons(asked) == {"i2": {names.DUPLICATE}}
    assert reasons(asked[::-1]) == {"i2": {names.DUPLICATE}}  # whatever the order


def test_training_rows_are_found_word_for_word_and_nearly() -> None:
    long = "In which year of the nineteenth century was the old lock of Tavrin on the northern canal built"
    items = [item(1, "When was it built?"), item(2, f"{long}?"), item(3, "Who built the weir of Elmsund?"), item(4)]
    trained = ["when was it BUILT", f"{long} exactly?", "Who painted the weir of Elmsund?"]
    found = reasons(items, trained=trained)
    assert found == {"i1": {names.TRAINED}, "i2": {names.NEAR_TRAINED}}
    assert not validate([items[1]], trained=trained).failed  # nearly is for a person to decide


def test_words_stand_in_for_a_model() -> None:
    items = [
        item(1, "When was Tavrin Lock built?"),
        item(2, "Who built it?", gold="Nobody Else", options=("Nobody Else", "Ada Brook", "x y", "z w")),
        item(3, "Is it the oak kiln or a coal one?", gold="oak kiln", options=("oak kiln", "steel", "brass", "copper")),
        item(4, "What does it burn?", gold="oak", options=(), kind="exact"),
        item(5, "How tall is it?", gold="unknown", kind="free", options=(), unanswerable=True),
    ]
    assert reasons(items, chunks=[passage()]) == {"i2": {names.UNSUPPORTED}, "i3": {names.GUESSABLE}}
    elsewhere = [passage().model_copy(update={"leaf": "other"})]
    fact = item(1).model_copy(update={"leaf": "knowledge/lock"})
    assert reasons([fact, item(2)], chunks=elsewhere) == {"i1": {names.NO_PASSAGE}}  # a skill needs no document


def test_positions_are_called_skewed_only_where_chance_would_not_do() -> None:
    wrong = ("1901", "1655", "1732")
    even = [item(n, options=(*wrong[: n % 4], "1874", *wrong[n % 4 :])) for n in range(40)]
    first = [item(n) for n in range(40)]
    assert [found.skewed for found in gold_positions(even)] == [False]
    [skewed] = gold_positions(first)
    assert skewed.skewed and skewed.counts == (40, 0, 0, 0)
    assert [found.skewed for found in gold_positions(first[:4])] == [False]  # four say nothing
    assert validate([]).items == 0


class Answers:
    """A subject that answers by a rule from the prompt's text."""

    name = "told"

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def answer(self, conversations: Sequence[Sequence[Message]], **_: Any) -> list[str | None]:
        return [self.rule(conversation[-1].content) for conversation in conversations]


def reads(prompt: str) -> str | None:
    """Finds the year in the text, by whatever letter it has, and knows nothing else."""
    line = next((line for line in prompt.splitlines() if line.endswith(". 1874")), "")
    if "Tavrin" in prompt.partition("Answer from this text")[0] and "Answer from" in prompt and line:
        return f"{line[0]}."
    return "It is oak" if "kiln" in prompt.partition("Answer from this text")[0] and "burn" in prompt else "?"


def test_a_model_that_reads_passes_sound_questions_and_one_that_always_says_a_does_not() -> None:
    items = [
        item(1, "When was Tavrin Lock built?"),
        item(2, "What does it burn?", gold="oak", options=(), kind="exact"),
    ]
    found = validate(items, [passage()], solve=solver(Answers(reads)))
    assert (found.flaws, found.solved) == ((), {"with": 1.0, "without": 0.0})
    stubborn = validate(items[:1], [passage()], solve=solver(Answers(lambda _: "A")))
    assert [flaw.reason for flaw in stubborn.flaws] == [names.UNANSWERED]
    knows = validate(
        items[:1],
        [passage()],
        solve=solver(Answers(lambda p: next(line[0] for line in p.splitlines() if line.endswith("1874")))),
    )
    assert [flaw.reason for flaw in knows.flaws] == [names.KNOWN]
    silent = validate(items, [passage()], solve=solver(Answers(lambda _: None)))
    assert (silent.flaws, silent.solved) == (
        (),
        {"with": None, "without": None},
    )  # nobody said anything: nothing is known


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), (" (C).", "C"), ("The answer is D", "D"), ("E", None), ("?", None), ("Because", None)],
)
def test_a_letter_is_read_where_it_stands_alone(answer: str, letter: str | None) -> None:
    assert read_letter(answer, 4) == letter


FOUR = ("oak", "coal", "gas", "oil")


@pytest.mark.parametrize(
    ("text", "answer", "gold"),
    [
        ("What burns?\nA) oak\nB) coal\nC) gas\nD) oil", "B)", 1),
        ("What burns?\nA)oak\nB)coal\nC)gas\nD)oil", "C)gas", 2),
        ("What burns?\n(A) oak\n(B) coal\n(C) gas\n(D) oil", "(D)", 3),
        ("What burns?\na. oak\nb. coal\nc. gas\nd. oil", "The correct answer is d. oil", 3),
        ("What burns? A) oak B) coal C) gas D) oil", "D", 3),
        ("What burns (not vitamin A) of course)?\nA) oak\nB) coal\nC) gas\nD) oil", "oak", 0),
        ("What burns, A) or B)? A) oak B) coal C) gas D) oil", "Answer: B", 1),
        ("What burns?\nA) oak\nB) coal\nC) gas\nD) oil", "A Coal", None),
        ("What burns?\nA) oak\nB) coal\nC) gas\nD) oil", "E", None),
        ("What burns?\nA) oak\nB) coal\nC) gas\nD) oil", "B) oil", None),
        ("What burns?\nA) oak\nB) coal\nC) gas", "B", None),
        ("What burns?\nA) oak\nB)\nC) gas\nD) oil", "A", None),
        ("A) oak\nB) coal\nC) gas\nD) oil", "A", None),
        ("What burns? oak, coal, gas or oil", "A", None),
    ],
)
def test_multiple_choice_as_teachers_write_it(text: str, answer: str, gold: int | None) -> None:
    """Check 12: read, or left out with a reason; never the wrong option."""
    read = read_mcq(text, answer)
    if gold is None:
        assert isinstance(read, Unread) and read.reason
    else:
        assert isinstance(read, Read)
        assert (read.options, read.gold) == (FOUR, gold)
        assert read.question.startswith("What burns")


def test_questions_are_read_from_rows_an_eval_yaml_and_tasks(tmp_path: Path) -> None:
    rows = [
        {"question": "Q1", "options": ["a", "b"], "answer": "b"},
        {"question": "Q2", "choices": ["a", "b"], "answer": 1},
        {"question": "Q3", "choices": ["a", "b"], "answer": "B", "leaf": "knowledge/x"},
        {"question": "Q4", "answer": "short"},
        {"question": "Q5", "options": ["a", "b"], "answer": "none of them"},
        {"nothing": 1},
    ]
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    items, left_out = read_item_files(path)
    assert [one.gold for one in items] == ["b", "b", "b", "short", "none of them"]
    assert [one.kind for one in items] == ["mcq"] * 3 + ["exact", "mcq"]
    assert left_out == {"a row has no question": 1}
    assert reasons(items)[items[4].id] == {names.NOT_AMONG}
    (tmp_path / "eval.yaml").write_text(
        "version: 1\nitems:\n- {split: dev, question: Q, answer: A}\n", encoding="utf-8"
    )
    assert [one.split for one in read_item_files(tmp_path / "eval.yaml")[0]] == ["dev"]
    (tmp_path / "eval.yaml").write_text("items: 3", encoding="utf-8")
    with pytest.raises(InputError, match="list of `items`"):
        read_item_files(tmp_path / "eval.yaml")
    (tmp_path / "bad.jsonl").write_text('{"question": "Q", "answer": "x", "kind": "essay"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="kind"):
        read_item_files(tmp_path / "bad.jsonl")
    (tmp_path / "d.md").write_text(TEXT, encoding="utf-8")
    assert [(chunk.leaf, chunk.text[:5]) for chunk in read_passages([tmp_path / "d.md"], {"x", "y"})] == [
        ("x", "Tavri"), ("x", "The k"), ("y", "Tavri"), ("y", "The k"),
    ]  # fmt: skip
    talk = {"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}
    path.write_text(json.dumps(talk) + "\n" + json.dumps({"instruction": "I"}) + "\n", encoding="utf-8")
    assert read_questions(path) == ["U", "I"]
