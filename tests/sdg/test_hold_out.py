"""Held-out items: people's first, rules for leaves without, and never a wording that trains."""

from __future__ import annotations

from ilab.data import Chunk, Item, Leaf, Place, QuestionAnswer, SeedExample
from ilab.sdg.decontaminate import decontaminate
from ilab.sdg.extractive import extract
from ilab.sdg.hold_out import hold_out

PLACE = Place(file="qna.yaml", line=1)
TEXT = "\n\n".join(
    f"The {name} of Mill House is {height} metres tall. The {name} was built by {builder} in {year}."
    for name, height, builder, year in [
        ("tower", 31, "Ada Brook", 1911),
        ("chimney", 18, "Otto Lind", 1924),
        ("gate", 4, "Mary Holm", 1932),
        ("stable", 6, "Jan Dahl", 1940),
        ("barn", 9, "Eva Moss", 1951),
    ]
)


def leaf(path: str, kind: str = "knowledge", items: tuple[Item, ...] = ()) -> Leaf:
    pairs = [
        ("Put tea at 9 in the list.", "9: tea"),
        ("Note milk for 12, please.", "12: milk"),
        ("At 7, bread.", "7: bread"),
    ]
    seeds = tuple(
        SeedExample(pairs=(QuestionAnswer(question=question, answer=answer, place=PLACE),), place=PLACE)
        for question, answer in pairs
    )
    return Leaf(path=path, kind=kind, version=3, created_by="x", seeds=seeds, items=items, digest="d", place=PLACE)


def chunk(path: str) -> Chunk:
    return Chunk(
        id="c1",
        leaf=path,
        document="d",
        source="mill.md",
        heading=("Mill House",),
        span=(0, len(TEXT)),
        text=TEXT,
        tokens=99,
    )


def person(number: int, split: str) -> Item:
    return Item(
        id=f"knowledge/a/eval/{number}",
        leaf="knowledge/a",
        split=split,
        kind="exact",
        question=f"Question {number}?",
        gold="x",
        cluster=str(number),
    )


def test_items_of_people_are_taken_as_they_are_and_capped_by_split() -> None:
    own = tuple(person(n, "dev" if n % 2 else "test") for n in range(20))
    items, dropped = hold_out([leaf("knowledge/a", items=own)], [chunk("knowledge/a")], 3, 42)
    assert {item.origin for item in items} == {"person"}
    assert sorted(item.split for item in items) == ["dev"] * 3 + ["test"] * 3
    assert len(dropped) == 14 and all("eval_num_samples" in one.reason for one in dropped)
    assert len(hold_out([leaf("knowledge/a", items=own)], [], 0, 42)[0]) == 20
    again, _ = hold_out([leaf("knowledge/a", items=own[::-1])], [], 3, 42)
    assert {item.id for item in again} == {item.id for item in items}


def test_a_knowledge_leaf_without_items_gets_questions_by_rule() -> None:
    items, _ = hold_out([leaf("knowledge/a")], [chunk("knowledge/a")], 0, 42)
    assert len(items) >= 8
    asked = {(pair.question, pair.answer) for pair in extract(TEXT, ("Mill House",))}
    for item in items:
        assert item.kind == "mcq" and item.origin == "rule" and item.cluster == "knowledge/a#c1"
        assert (item.question, item.gold) in asked
        assert item.gold in item.options and len(set(item.options)) == 4
    positions = [item.options.index(item.gold) for item in items]
    assert len(set(positions)) > 1, "the right answer must not always stand in one place"
    assert {item.split for item in items} == {"dev", "test"}


def test_a_skill_leaf_without_items_keeps_combinations_apart() -> None:
    items, _ = hold_out([leaf("compositional_skills/a", "freeform")], [], 0, 42)
    own = {pair.question for seed in leaf("x").seeds for pair in seed.pairs}
    assert items and not own & {item.question for item in items}
    assert all(item.kind == "exact" and item.gold.split(": ")[1] in item.question for item in items)


def test_another_leaf_changes_nothing_and_the_seed_does() -> None:
    alone, _ = hold_out([leaf("knowledge/a")], [chunk("knowledge/a")], 0, 42)
    both, _ = hold_out([leaf("knowledge/b"), leaf("knowledge/a")], [chunk("knowledge/b"), chunk("knowledge/a")], 0, 42)
    assert [item for item in both if item.leaf == "knowledge/a"] == alone
    assert hold_out([leaf("knowledge/a")], [chunk("knowledge/a")], 0, 7)[0] != alone


def test_a_leaf_without_facts_or_slots_is_no_error() -> None:
    empty = chunk("knowledge/a").model_copy(update={"text": "Click the button. Then wait."})
    assert hold_out([leaf("knowledge/a")], [empty], 10, 42) == ([], [])
    assert decontaminate([], []) == ([], [])
