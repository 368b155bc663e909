"""Baselines without a model: found when the document says it, indifferent to the options' order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.data import Chunk, Item
from ilab.evaluation.answers import plain, token_f1
from ilab.evaluation.baseline import choices_only, open_book

TEXT = (
    "The tower is built of pink granite. The lens was made in Bristol. It was first lit in 1871.\n\n"
    "| Part | Year |\n| bell | 1902 |"
)


def chunk(leaf: str = "knowledge/a", text: str = TEXT) -> Chunk:
    return Chunk(id="1", leaf=leaf, document="d", source="s", heading=(), span=(0, len(text)), text=text, tokens=9)


def item(question: str, options: tuple[str, ...], gold: str, leaf: str = "knowledge/a", kind: str = "mcq") -> Item:
    return Item(
        id=question, leaf=leaf, split="test", kind=kind, question=question, options=options, gold=gold, cluster="c"
    )


def test_open_book_finds_what_stands_in_one_sentence():
    items = [
        item("Of what is the tower built?", ("Bristol", "pink granite", "brick"), "pink granite"),
        item("Where was the lens made?", ("pink granite", "London", "Bristol"), "Bristol"),
        item("In what year was the bell made?", ("1871", "1902", "1890"), "1902"),
    ]
    assert open_book(items, [chunk()]) == {"knowledge/a": 1.0}
    misled = item("Who made the lens?", ("Hale", "Bristol"), "Hale")
    assert open_book([*items, misled], [chunk()]) == {"knowledge/a": 0.75}


def test_open_book_reads_only_the_leafs_own_chunks():
    question = item("Of what is the tower built?", ("brick", "pink granite"), "pink granite")
    assert open_book([question], [chunk("knowledge/other")]) == {"knowledge/a": None}


def test_choices_only_sees_the_question_alone():
    leaking = item("Which bell rings at the bell tower?", ("the tower bell", "a horn"), "the tower bell")
    silent = item("What is it made of?", ("granite", "brick", "slate", "glass"), "glass", leaf="knowledge/b")
    assert choices_only([leaking, silent]) == {"knowledge/a": 1.0, "knowledge/b": 0.25}


def test_other_kinds_have_no_baseline():
    exact = item("q", (), "gold", leaf="skills/a", kind="exact")
    assert open_book([exact], [chunk("skills/a")]) == {"skills/a": None}
    assert choices_only([exact]) == {"skills/a": None}
    assert open_book([], []) == {} == choices_only([])


def test_order_of_options_is_irrelevant():
    options = ("pink granite", "granite", "pink", "brick")
    for turned in itertools.permutations(options):
        one = item("Of what is the tower built?", turned, "granite")
        assert open_book([one], [chunk()]) == {"knowledge/a": pytest.approx(1 / 3)}  # three options stand there in full


@given(st.text(), st.text())
def test_token_f1_is_symmetric_and_within_bounds(one: str, other: str):
    assert token_f1(one, other) == pytest.approx(token_f1(other, one))
    assert 0 <= token_f1(one, other) <= 1 and token_f1(one, one) == 1


def test_token_f1_by_hand():
    assert token_f1("the red stone", "red stone tower") == pytest.approx(2 / 3)
    assert token_f1("Red, stone!", "red stone") == 1.0 and token_f1("blue", "red") == 0.0
    assert plain("  a \n b ") == "a b"
