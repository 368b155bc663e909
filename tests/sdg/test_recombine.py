"""Recombination of skill seeds: what is found, what is drawn, and that hostile text changes nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.sdg.recombine import Seed, analyse, recombine

NOTES = [
    Seed("Note: bring pears to Norhaven on Tuesday", None, "ITEM: pears | TO: Norhaven | DAY: Tuesday"),
    Seed("Please send ripe plums to Old Vell by Friday!", None, "ITEM: ripe plums | TO: Old Vell | DAY: Friday"),
    Seed("Write a record.", "On Monday, Osk wants oats.", "ITEM: oats | TO: Osk | DAY: Monday"),
]
HOSTILE = [
    "a+b",
    "(x",
    "{y}",
    r"\d",
    "[z]*",
    "$5^",
    "naïve",
    "東京",
    "{0}",
    "%s",
    "pears",
    "two words",
    "-q-",
]


def stands(value: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def fields(answer: str) -> list[str]:
    return [part.split(": ", 1)[1] for part in answer.split(" | ")]


def test_slots_and_frames_are_found() -> None:
    found = analyse(NOTES)
    assert (found.slots, found.frames, found.reason) == (3, 3, None)


def test_all_combinations_are_different_and_answered_by_their_question() -> None:
    found = recombine(NOTES, 1000, 0)
    assert len(found) == 3 * 3**3
    assert len({(c.frame, c.values) for c in found}) == len(found)
    assert len({(c.question, c.context, c.answer) for c in found}) == len(found)
    for combination in found:
        whole = f"{combination.question}\n{combination.context or ''}"
        for slot, value in enumerate(fields(combination.answer)):
            assert stands(value, whole)
            assert value == fields(NOTES[combination.values[slot]].answer)[slot]
        assert (combination.context is None) == (NOTES[combination.frame].context is None)


def test_the_seeds_themselves_are_among_the_combinations() -> None:
    found = {(c.question, c.context, c.answer) for c in recombine(NOTES, 1000, 3)}
    assert {(s.question, s.context, s.answer) for s in NOTES} <= found


def test_drawing_depends_on_the_seed_only() -> None:
    assert recombine(NOTES, 10, 7) == recombine(NOTES, 10, 7)
    assert recombine(NOTES, 10, 7) != recombine(NOTES, 10, 8)
    assert recombine(NOTES, 0, 7) == recombine(NOTES, -1, 7) == []


def test_a_seed_whose_value_stands_twice_or_nowhere_is_left_out() -> None:
    twice = Seed("figs, yes figs, to Harl on Sunday", None, "ITEM: figs | TO: Harl | DAY: Sunday")
    nowhere = Seed("figs to Harl tomorrow", None, "ITEM: figs | TO: Harl | DAY: Sunday")
    inside = Seed("figs to Harlem on Sunday", None, "ITEM: figs | TO: Harl | DAY: Sunday")
    overlapping = Seed("figs to Sunday Harl", None, "ITEM: figs | TO: Sunday Harl | DAY: Sunday")
    found = analyse([*NOTES, twice, nowhere, inside, overlapping])
    assert (found.slots, found.frames) == (3, 3)
    assert {c.frame for c in recombine([*NOTES, twice, nowhere, inside], 50, 0)} == {0, 1, 2}


def test_values_are_exchanged_at_once_not_one_after_another() -> None:
    seeds = [Seed("swap one two", None, "<one/two>"), Seed("swap two one", None, "<two/one>")]
    for combination in recombine(seeds, 100, 0):
        left, right = combination.answer[1:-1].split("/")
        assert combination.question == f"swap {left} {right}"


def test_large_products_are_not_enumerated() -> None:
    names = "abcdefghijklmnopqrstuvwxyz"

    def seed(n: int) -> Seed:
        values = [f"{letter}{n}" for letter in names]
        answer = " ; ".join(f"{a.upper()}={v}" for a, v in zip(names, values, strict=True))
        return Seed(" ".join(values), None, answer)

    seeds = [seed(n) for n in range(40)]
    found = recombine(seeds, 25, 1)
    assert analyse(seeds).slots == 26
    assert len({(c.frame, c.values) for c in found}) == 25


@pytest.mark.parametrize(
    ("seeds", "word"),
    [
        ([], "fewer than two"),
        (NOTES[:1], "fewer than two"),
        ([Seed("a", None, "yes"), Seed("b", None, "yes")], "the same"),
        ([Seed("Synonym of big?", None, "large"), Seed("Synonym of small?", None, "tiny")], "free text"),
        ([Seed("a", None, ""), Seed("b", None, "x: 1")], "free text"),
        (
            [
                Seed("Why?", None, "The cat sat on the mat, as cats do."),
                Seed("How?", None, "Nobody knows why it rains so often in autumn."),
            ],
            "free text",
        ),
        ([Seed("one", None, "N: 1 | M: 7"), Seed("two", None, "N: 2 | M: 8")], "no example"),
        ([Seed("1 7", None, "N: 1 | M: 7"), Seed("two", None, "N: 2 | M: 8")], "only one example"),
    ],
)
def test_the_reason_is_a_sentence(seeds: list[Seed], word: str) -> None:
    reason = analyse(seeds).reason
    assert reason is not None
    assert word in reason
    assert reason.endswith(".")
    assert recombine(seeds, 10, 0) == []


@given(st.lists(st.tuples(*[st.sampled_from(HOSTILE)] * 2), min_size=2, max_size=5), st.integers(0, 99))
def test_hostile_values_are_copied_as_they_are(rows: list[tuple[str, str]], seed: int) -> None:
    seeds = [Seed(f"take {a} , give {b} !", "none", f"TAKE: {a} | GIVE: {b}") for a, b in rows]
    analysis = analyse(seeds)
    found = recombine(seeds, 40, seed)
    assert bool(found) == (analysis.reason is None)
    for combination in found:
        for slot, source in enumerate(combination.values):
            assert 0 <= source < len(rows), slot
        read = re.fullmatch(r"TAKE: (.*) \| GIVE: (.*)", combination.answer)
        assert read is not None
        assert combination.question == f"take {read.group(1)} , give {read.group(2)} !"


@given(st.lists(st.builds(Seed, st.text(), st.none() | st.text(), st.text()), max_size=5), st.integers(0, 20))
def test_any_text_is_handled(seeds: list[Seed], limit: int) -> None:
    found = recombine(seeds, limit, 0)
    assert len(found) <= limit
    assert found == recombine(seeds, limit, 0)
    assert len({(c.frame, c.values) for c in found}) == len(found)
