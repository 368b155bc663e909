"""Questions among passages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.data import Chunk, Message, Origin, Sample, TrainingRow, digest_text, short
from ilab.sdg.mix import Mixture, mix
from ilab.sdg.raft import Passages, asked_among, can_be_asked


def chunk(leaf: str, text: str) -> Chunk:
    return Chunk(
        id=short(digest_text(text)),
        leaf=leaf,
        document="d",
        source="s.md",
        heading=(),
        span=(0, len(text)),
        text=text,
        tokens=len(text.split()),
    )


def chunks(leaf: str, count: int) -> list[Chunk]:
    return [chunk(leaf, f"The lamp {n} of {leaf} is red.") for n in range(count)]


def sample(passage: Chunk, number: int = 1, **fields: object) -> Sample:
    messages = (Message(role="user", content=f"Which colour, {number}?"), Message(role="assistant", content="red"))
    origin = Origin(leaf=passage.leaf, leaf_digest="0", chunk=passage.id, flow="f", block="b")
    made = Sample(id=f"{passage.leaf}#{passage.id}/{number}", leaf=passage.leaf, messages=messages, origin=origin)
    return made.model_copy(update=fields)


def passages_of(row: TrainingRow) -> list[str]:
    *texts, question = row.messages[0].content.split("\n\n")
    assert question.startswith("Which colour")
    assert all(text.startswith("Document:\n") for text in texts)
    return [text.removeprefix("Document:\n") for text in texts]


@given(st.integers(1, 8), st.integers(1, 6), st.floats(0, 1), st.integers(0, 20))
def test_passages_are_different_and_the_own_stands_among_them_or_not(
    count: int, distractors: int, oracle: float, seed: int
) -> None:
    pool = chunks("k", count)
    row = asked_among(sample(pool[0]), Passages(pool), "k~raft", (distractors, oracle), seed)
    texts = passages_of(row)
    assert len(texts) == len(set(texts))
    if pool[0].text in texts:
        assert len(texts) == min(distractors, count - 1) + 1
    else:
        assert len(texts) == min(distractors + 1, count - 1)
    assert row.messages[1].content == "red"
    assert asked_among(sample(pool[0]), Passages(pool[::-1]), "k~raft", (distractors, oracle), seed) == row


@pytest.mark.parametrize("oracle", [0.0, 0.4, 1.0])
def test_the_own_passage_comes_as_often_as_asked_at_any_place(oracle: float) -> None:
    pool = chunks("k", 12)
    passages = Passages(pool)
    made = [asked_among(sample(pool[0], n), passages, f"k/{n}~raft", (3, oracle), 42) for n in range(1500)]
    places = Counter(passages_of(row).index(pool[0].text) for row in made if pool[0].text in passages_of(row))
    assert sum(places.values()) / 1500 == pytest.approx(oracle, abs=0.05)
    for place in range(4 if oracle else 0):
        assert places[place] / sum(places.values()) == pytest.approx(0.25, abs=0.06)


def test_other_leaves_lend_passages_only_where_there_are_too_few() -> None:
    here, there = chunks("k", 5), chunks("z", 20)
    for seed in range(50):
        for distractors in (1, 3, 4):  # four are all that the leaf has
            enough = asked_among(sample(here[0]), Passages([*here, *there]), "k~raft", (distractors, 1.0), seed)
            assert enough == asked_among(sample(here[0]), Passages(here), "k~raft", (distractors, 1.0), seed)
    lent = passages_of(asked_among(sample(here[0]), Passages([*here, *there]), "k~raft", (7, 1.0), 1))
    assert sum(text in {one.text for one in here} for text in lent) == 5
    assert sum(text in {one.text for one in there} for text in lent) == 3


def test_the_same_text_elsewhere_and_the_evidence_are_no_distractors() -> None:
    own = chunk("k", "The lamp is red. It is old.")
    twin, hint, free = chunk("z", own.text), chunk("z", "Again: The lamp is red."), chunk("z", "Oil burns.")
    asked = sample(own)
    asked = asked.model_copy(update={"origin": asked.origin.model_copy(update={"evidence": "The lamp is red."})})
    for seed in range(20):
        row = asked_among(asked, Passages([own, twin, hint, free]), "k~raft", (3, 0.5), seed)
        assert set(passages_of(row)) <= {own.text, free.text}
        assert len(passages_of(row)) == len(set(passages_of(row)))


def test_the_only_passage_there_is_stays() -> None:
    (only,) = chunks("k", 1)
    assert passages_of(asked_among(sample(only), Passages([only]), "k~raft", (3, 0.0), 1)) == [only.text]


def test_what_has_its_passage_or_none_is_not_asked_again() -> None:
    own, other = chunks("k", 2)
    passages = Passages([own, other])
    assert can_be_asked(sample(own), passages)
    shown = Message(role="user", content=f"Sum it up.\n\n{own.text}")
    talk = sample(own).messages * 2
    for update in (
        {"context": own.text},
        {"messages": (shown, *sample(own).messages[1:])},
        {"messages": talk},
        {"train_on": "all"},
        {"origin": sample(own).origin.model_copy(update={"chunk": None})},
        {"leaf": "elsewhere"},
    ):
        assert not can_be_asked(sample(own, **update), passages), update


@pytest.fixture
def mixed() -> Callable[[Sequence[Chunk], Mixture], tuple[list[TrainingRow], dict[str, object]]]:
    def run(pool: Sequence[Chunk], mixture: Mixture) -> tuple[list[TrainingRow], dict[str, object]]:
        found = [sample(one, n) for one in pool for n in range(3)]
        return mix({"knowledge": found}, mixture, 42, (), pool)

    return run


def test_a_mix_asks_each_question_once_more_by_weight_and_cap(
    mixed: Callable[..., tuple[list[TrainingRow], dict[str, dict[str, dict[str, int]]]]],
) -> None:
    pool = [*chunks("a", 6), *chunks("b", 6)]
    rows, told = mixed(pool, Mixture(sources=("skill",), distractors=2))
    assert {row.source for row in rows} == {"raft"}
    assert len(rows) == 36 == len({row.id for row in rows})
    assert told["raft"]["a"] == {"samples": 18, "rows": 18}
    twice, _ = mixed(pool, Mixture(sources=("skill",), distractors=2, weights={"a": 2.0}))
    of_a = [row for row in twice if row.leaf == "a"]
    assert len(of_a) == 36
    assert len({row.messages for row in of_a}) > 18  # the second time among other passages
    few, _ = mixed(pool, Mixture(sources=("skill",), distractors=2, max_per_leaf=5))
    assert Counter(row.leaf for row in few) == {"a": 5, "b": 5}
    assert set(few) <= set(rows)
    alone, _ = mixed(chunks("a", 6), Mixture(sources=("skill",), distractors=2))
    assert [row for row in rows if row.leaf == "a"] == alone
    off, none = mixed(pool, Mixture(sources=("skill",)))
    assert off == []
    assert "raft" not in none
