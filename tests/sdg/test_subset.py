"""The subset: lazy greedy against greedy by definition, sparse similarities against all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.errors import InputError
from ilab.sdg.subset import (
    DIMENSIONS,
    Similar,
    _symmetric,
    count_of,
    coverage,
    facility_location,
    similarities,
    unit,
    vectors,
)

TEXTS = [
    "What is the tower made of? Granite.",
    "What is the tower made of? It is made of granite.",
    "Who built the tower? Agnes Torvald built it.",
    "Tell me who built the tower. Agnes Torvald.",
    "When is the ferry? At noon.",
    "Write a poem about lemons.",
]


def dense(similar: Similar) -> np.ndarray:
    table = np.zeros((len(similar), len(similar)))
    for index in range(len(similar)):
        columns, values = similar.row(index)
        table[index, columns] = values
    return table


def greedy(table: np.ndarray, count: int) -> list[int]:
    """Facility location as it is defined: every candidate is looked at in every round, the first best wins."""
    chosen: list[int] = []
    for _ in range(count):
        left = [index for index in range(len(table)) if index not in chosen]
        worth = [table[:, [*chosen, index]].max(axis=1).sum() for index in left]
        chosen.append(left[int(np.argmax(np.round(worth, 9)))])
    return chosen


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 25), st.integers(1, 30))
def test_lazy_greedy_chooses_what_greedy_chooses(seed: int, total: int, neighbours: int) -> None:
    rows = unit(np.random.default_rng(seed).normal(size=(total, 6)).astype(np.float32))
    similar = similarities(rows, neighbours)
    lazy = facility_location(similar, total)
    plain = greedy(dense(similar), total)
    table = dense(similar)
    for count in range(1, total + 1):  # where two are equally good to the last digit, either may come first
        assert table[:, lazy[:count]].max(axis=1).sum() == pytest.approx(table[:, plain[:count]].max(axis=1).sum())
    assert sorted(lazy) == list(range(total))


def test_a_pair_that_both_sides_found_has_one_similarity() -> None:
    left, right = np.array([0, 1, 1]), np.array([1, 0, 2])
    table = dense(_symmetric(left, right, np.array([0.5, 0.25, 0.125], dtype=np.float32), 3))
    assert table.tolist() == [[0, 0.5, 0], [0.5, 0, 0.125], [0, 0.125, 0]]


def test_similarities_are_those_of_all_pairs() -> None:
    rows = unit(np.random.default_rng(7).normal(size=(700, 16)).astype(np.float32))  # several blocks of rows
    table = dense(similarities(rows, 699))
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    assert np.allclose(table, np.where(exact > 0, exact, 0.0), atol=2e-5)
    few = dense(similarities(rows, 10))
    assert np.array_equal(few, few.T)
    off = exact - 3 * np.eye(len(rows))
    for index in range(0, len(rows), 50):
        nearest = set(np.argsort(-off[index])[:10])
        assert nearest <= set(np.flatnonzero(few[index]))  # its own ten, and those that have it among theirs


def test_the_part_has_one_of_each_kind() -> None:
    similar = similarities(vectors(TEXTS))
    chosen = facility_location(similar, 4)
    assert {index // 2 if index < 4 else index for index in chosen} == {0, 1, 4, 5}
    assert coverage(similar, range(6)) == pytest.approx(1.0)
    assert coverage(similar, chosen) > coverage(similar, [0, 1, 2, 3])


def test_what_is_said_twice_is_chosen_once() -> None:
    similar = similarities(vectors(["a lamp is red"] * 5 + ["oil burns", "a  LAMP is red"]))
    assert facility_location(similar, 2) == [0, 5]  # ties go to the first


def test_vectors_do_not_depend_on_case_or_spaces_and_have_length_one() -> None:
    made = vectors(["A lamp  is red", "a lamp is\nred", "", "\ud800 half a surrogate"])
    assert made.shape == (4, DIMENSIONS)
    assert np.array_equal(made[0], made[1])
    assert np.allclose(np.linalg.norm(made, axis=1), [1, 1, 0, 1])  # an empty text is like nothing


@pytest.mark.parametrize(
    ("size", "count"), [("5", 5), ("500", 40), ("0.1", 4), ("10%", 4), ("0.11", 5), ("100%", 40), ("1", 1), ("1.0", 40)]
)
def test_sizes(size: str, count: int) -> None:
    assert count_of(size, 40) == count


@pytest.mark.parametrize("size", ["0", "-3", "1.5", "120%", "many", "nan", "inf", "", "%"])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(InputError):
        count_of(size, 40)


@pytest.mark.parametrize("total", [0, 1, 2])
def test_few_samples(total: int) -> None:
    similar = similarities(vectors(TEXTS[:total]))
    assert facility_location(similar, 5) == facility_location(similar, total)
    assert len(facility_location(similar, 5)) == total


def test_embeddings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError):
        unit(np.array([[1.0, np.nan]], dtype=np.float32))
