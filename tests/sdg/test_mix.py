"""What a phase trains on."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ilab.data import Message, Origin, Sample, TrainingRow
from ilab.sdg.mix import Mixture, _parts, by_source, disturb, mix, repeated
from ilab.sdg.text import words


def samples(leaf: str, count: int, train_on: str = "assistant") -> list[Sample]:
    return [
        Sample(
            id=f"{leaf}#{n}/{train_on}",
            leaf=leaf,
            messages=(
                Message(role="user", content=f"What is the colour of lamp {n} in the old tower of {leaf}?"),
                Message(role="assistant", content=f"lamp {n} is red"),
            ),
            train_on=train_on,
            origin=Origin(leaf=leaf, leaf_digest="0", flow="f", block="b"),
        )
        for n in range(count)
    ]


def of_leaf(rows: list[TrainingRow], leaf: str) -> list[TrainingRow]:
    return [row for row in rows if row.leaf == leaf and row.source != "replay"]


def test_sources_are_told_apart_and_taken_as_asked() -> None:
    found = by_source(
        [*samples("k", 3), *samples("k", 2, "all"), *samples("s", 4)], {"k": "knowledge", "s": "grounded"}
    )
    assert {source: len(rows) for source, rows in found.items()} == {"knowledge": 3, "document": 2, "skill": 4}
    rows, told = mix(found, Mixture(sources=("knowledge", "document")), 42)
    assert [row.sample for row in rows] == [s.id for s in (*found["knowledge"], *found["document"])]
    assert Counter(row.source for row in rows) == {"knowledge": 3, "document": 2}
    assert told["rows"] == 5
    assert told["sources"]["document"]["k"] == {"samples": 2, "weight": 1.0, "rows": 2}


@pytest.mark.parametrize(
    ("weight", "least", "most", "total"), [(0.5, 0, 1, 5), (1, 1, 1, 10), (2.3, 2, 3, 23), (0, 0, 0, 0)]
)
def test_a_weight_repeats_every_sample_before_any_again(weight: float, least: int, most: int, total: int) -> None:
    rows, told = mix({"skill": samples("s", 10)}, Mixture(sources=("skill",), weights={"s": weight}), 1)
    seen = Counter(row.sample for row in rows)
    times = [seen[sample.id] for sample in samples("s", 10)]
    assert (min(times), max(times), sum(times)) == (least, most, total)
    assert len({row.id for row in rows}) == total
    assert told["sources"]["skill"]["s"]["rows"] == total


def test_replay_is_a_share_of_the_whole_and_never_repeats() -> None:
    earlier, _ = mix({"knowledge": samples("k", 30)}, Mixture(), 1)
    rows, told = mix({"skill": samples("s", 20)}, Mixture(sources=("skill",), replay=1 / 3), 1, earlier)
    replayed = [row for row in rows if row.source == "replay"]
    assert len(replayed) == 10 == len(rows) - 20
    assert len({row.sample for row in replayed}) == 10
    assert told["replay"] == {"earlier": 30, "rows": 10, "share": 1 / 3}
    few, _ = mix({"skill": samples("s", 20)}, Mixture(sources=("skill",), replay=0.9), 1, earlier)
    assert len(few) == 20 + 30


def test_variants_disturb_the_question_only_and_the_first_is_clean() -> None:
    found = samples("k", 5)
    rows, _ = mix({"knowledge": found}, Mixture(variants=4, noise=0.5), 42)
    assert len({row.id for row in rows}) == len(rows) > 10
    by_sample = {sample.id: [row for row in rows if row.sample == sample.id] for sample in found}
    for sample in found:
        first, *others = by_sample[sample.id]
        assert (first.id, first.messages) == (sample.id, sample.messages)
        assert others
        for row in others:
            assert row.messages[1] == sample.messages[1]
            assert row.messages[0] != sample.messages[0]
    assert len(mix({"knowledge": found}, Mixture(variants=4), 42)[0]) == 5  # without noise they are all equal


def test_document_text_is_never_disturbed() -> None:
    found = samples("k", 4, "all")
    rows, _ = mix({"document": found}, Mixture(variants=4, noise=0.9), 42)
    assert [row.messages for row in rows] == [sample.messages for sample in found]


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0, 3),
    st.integers(1, 3),
    st.floats(0, 0.9),
    st.integers(0, 9),
)
def test_another_leaf_changes_no_leafs_rows(
    first: int, second: int, weight: float, variants: int, noise: float, seed: int
) -> None:
    mixture = Mixture(
        sources=("skill",),
        weights={"a": weight},
        variants=variants,
        noise=noise,
    )
    alone, _ = mix({"skill": samples("a", first)}, mixture, seed)
    both, _ = mix({"skill": [*samples("b", second), *samples("a", first)]}, mixture, seed)
    assert of_leaf(both, "a") == alone
    assert len({row.id for row in both}) == len(both)


@given(st.text("ab \nZ9", max_size=60), st.text("ab Z9", max_size=10), st.floats(0, 0.99), st.integers(0, 99))
def test_noise_keeps_lines_words_of_the_answer_and_something_to_ask(
    text: str, answer: str, noise: float, seed: int
) -> None:
    disturbed = disturb(text, answer, noise, seed)
    assert disturb(text, answer, noise, seed) == disturbed
    assert bool(disturbed.strip()) == bool(text.strip())
    assert disturbed.count("\n") == text.count("\n")
    fixed = set(words(answer))
    assert [w for w in words(disturbed) if w in fixed] == [w for w in words(text) if w in fixed]
    assert not Counter(words(disturbed)) - Counter(words(text))


def test_noise_is_as_strong_as_asked() -> None:
    text = " ".join(f"w{n}" for n in range(20_000))
    kept = disturb(text, "", 0.4, 1).split()
    assert len(kept) / 20_000 == pytest.approx(0.83, abs=0.03)  # a swap takes its neighbour's turn: 1 - p(drop)
    assert disturb(text, "", 0.0, 1) == text


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 30), st.floats(0.5, 3)), min_size=1),
    st.integers(0, 200),
)
def test_replay_is_split_by_weight_and_never_takes_more_than_there_is(
    leaves: dict[str, tuple[int, float]], wanted: int
) -> None:
    most = {leaf: count for leaf, (count, _) in leaves.items()}
    shares = {leaf: count * weight for leaf, (count, weight) in leaves.items()}
    parts = _parts(wanted, shares, most)
    assert sum(parts.values()) == min(wanted, sum(most.values()))
    assert all(0 <= parts[leaf] <= most[leaf] for leaf in leaves)


def test_a_weak_leaf_comes_back_more_often() -> None:
    assert _parts(30, {"strong": 100.0, "weak": 200.0}, {"strong": 100, "weak": 100}) == {"strong": 10, "weak": 20}
    assert _parts(150, {"strong": 100.0, "weak": 200.0}, {"strong": 100, "weak": 100}) == {"strong": 50, "weak": 100}


@pytest.mark.parametrize(
    ("size", "cap", "taken", "again"),
    [(1.0, None, 10, 0), (0.5, None, 5, 0), (3, None, 3, 0), (30, None, 30, 20), (1.5, None, 15, 5), (30, 12, 12, 2)],
)
def test_a_share_or_a_count_repeats_only_where_there_are_too_few(
    size: float, cap: int | None, taken: int, again: int
) -> None:
    mixture = Mixture(sources=("skill",), sampling_size=size, max_per_leaf=cap)
    rows, told = mix({"skill": [*samples("s", 10), *samples("t", 200)]}, mixture, 1)
    seen = Counter(row.sample for row in rows if row.leaf == "s")
    assert sum(seen.values()) == taken
    assert len(seen) == min(taken, 10)
    assert max(seen.values()) - min(seen.values()) <= 1
    assert told["sources"]["skill"]["s"].get("repeated", 0) == again
    assert max(Counter(row.sample for row in rows if row.leaf == "t").values()) == (2 if size == 1.5 else 1)
    assert repeated(told) == again + (100 if size == 1.5 else 0)


def test_a_cap_holds_after_weights_and_not_for_the_documents_own_text() -> None:
    found = by_source([*samples("s", 10), *samples("k", 10, "all")], {"s": "freeform", "k": "knowledge"})
    rows, told = mix(found, Mixture(weights={"s": 2.0}, max_per_leaf=7, sampling_size=0.9), 1)
    assert Counter(row.source for row in rows) == {"skill": 7, "document": 10}
    assert repeated(told) == 0


def test_a_smaller_share_is_a_part_of_a_larger_one() -> None:
    drawn = [
        {row.id for row in mix({"skill": samples("s", 40)}, Mixture(sampling_size=size), 1)[0]} for size in (5, 9, 0.5)
    ]
    assert drawn[0] < drawn[1] < drawn[2]


def test_rows_of_a_recipe_count_as_new_where_replay_is_measured() -> None:
    earlier, _ = mix({"knowledge": samples("k", 100)}, Mixture(), 1)
    rows, told = mix({"skill": samples("s", 10)}, Mixture(sources=("skill",), replay=0.5), 1, earlier, (), 30)
    assert Counter(row.source for row in rows) == {"skill": 10, "replay": 40}
    assert told["rows"] == 80


@pytest.mark.parametrize(
    "fields", [{"sampling_size": -1}, {"sampling_size": "1.0"}, {"oracle": 1.1}, {"max_per_leaf": 0}]
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Mixture.model_validate(fields)
