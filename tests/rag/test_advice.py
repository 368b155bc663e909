"""Tuning, retrieval or both: what follows from scores; and a real measurement with tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ilab.advice import advise, measure, to_ask
from ilab.core.store import Store
from ilab.data import Item, Score
from ilab.errors import InputError
from ilab.evaluation.statistics import paired_change
from ilab.inquiry import Results

LEAF = "knowledge/canal"
# Right answers of 20 questions each: base, tuned, base with passages, tuned with passages.
LITTLE, MOST, ALL = [1.0] * 2 + [0.0] * 18, [1.0] * 15 + [0.0] * 5, [1.0] * 20
OTHERS = [0.0] * 3 + [1.0] * 15 + [0.0] * 2


def items(leaf: str = LEAF, count: int = 20, **more: Any) -> list[Item]:
    return [
        Item(
            id=f"{leaf}#{n:02}/q", leaf=leaf, split="test", kind="mcq", question=f"How many locks has canal {n}?",
            options=("one", "two"), gold="one", cluster=f"{leaf}#{n:02}", **more,
        )
        for n in range(count)
    ]  # fmt: skip


def scores(model: str, asked: list[Item], closed: list[float], opened: list[float] | None) -> list[Score]:
    return [
        Score(
            item=item.id, leaf=item.leaf, model=model, kind=item.kind, cluster=item.cluster, value=closed[at],
            metrics={} if opened is None else {"open": opened[at]},
        )
        for at, item in enumerate(asked)
    ]  # fmt: skip


def results(tmp_path: Path, asked: list[Item], base: list[Score], tuned: list[Score]) -> Results:
    made = Results(Store(tmp_path), {})
    comparison = {"reference": "base", "candidate": "phase 2", "total": {"n": 1}}
    vars(made).update(items=asked, scores={"base": base, "phase 2": tuned}, comparison=comparison)
    return made


@pytest.mark.parametrize(
    ("ways", "expected"),
    [
        ((LITTLE, MOST, LITTLE, MOST), "tuning"),
        ((LITTLE, LITTLE, MOST, MOST), "retrieval"),
        ((LITTLE, [1.0] * 12 + [0.0] * 8, [0.0] * 8 + [1.0] * 12, ALL), "both"),
        ((LITTLE, MOST, OTHERS, MOST), "either"),
        ((LITTLE, [1.0] * 10 + [0.0] * 10, ALL, ALL), "retrieval"),
        ((LITTLE, ALL, [1.0] * 10 + [0.0] * 10, ALL), "tuning"),
        ((LITTLE, [1.0] * 3 + [0.0] * 17, LITTLE, LITTLE), "inconclusive"),
    ],
)
def test_advice_follows_from_paired_differences(tmp_path: Path, ways: tuple[list[float], ...], expected: str) -> None:
    base, tuned, base_open, tuned_open = ways
    asked = items()
    found = results(tmp_path, asked, scores("a", asked, base, base_open), scores("b", asked, tuned, tuned_open))
    told = advise(found)
    (leaf,) = told["leaves"]
    assert (leaf["advice"], leaf["n"], told["passages"]) == (expected, 20, "its own")
    assert leaf["ways"]["both"]["value"] == sum(tuned_open) / 20
    clusters = [item.cluster for item in asked]
    reference = paired_change(base_open, tuned, clusters)
    over = leaf["effects"]["retrieval over tuning"]
    assert (over["value"], over["low"]) == pytest.approx((-(reference.mean or 0), -(reference.high or 0)), abs=1e-6)


def test_nothing_helped_where_intervals_are_narrow(tmp_path: Path) -> None:
    asked = items(count=400)
    same = [float(n % 2) for n in range(400)]
    found = results(tmp_path, asked, scores("a", asked, same, same), scores("b", asked, same, same))
    assert advise(found)["leaves"][0]["advice"] == "neither"


def test_few_questions_say_how_many_it_takes(tmp_path: Path) -> None:
    asked = items(count=5)
    found = results(tmp_path, asked, scores("a", asked, [0.0] * 5, ALL), scores("b", asked, ALL, ALL))
    (leaf,) = advise(found)["leaves"]
    assert leaf["advice"] == "inconclusive"
    assert "would show a change of 10%" in leaf["because"]


def test_what_was_not_asked_beside_a_passage_is_not_measured(tmp_path: Path) -> None:
    plain, own = items(), items("compositional_skills/x", 8, context="The canal has one lock.")
    asked = [*plain, *own]
    base = [*scores("a", plain, LITTLE, None), *scores("a", own, ALL, None)]
    tuned = [*scores("b", plain, MOST, None), *scores("b", own, ALL, None)]
    found = results(tmp_path, asked, base, tuned)
    told = advise(found)
    by_leaf = {leaf["leaf"]: leaf for leaf in told["leaves"]}
    assert told["passages"] is None
    assert {leaf["advice"] for leaf in (*told["leaves"], told["total"])} == {"not measured"}
    assert by_leaf[LEAF]["effects"]["tuning"]["value"] == pytest.approx(13 / 20)
    assert by_leaf[LEAF]["can_look_up"]
    assert not by_leaf["compositional_skills/x"]["can_look_up"]
    assert "bring their own context" in by_leaf["compositional_skills/x"]["because"]
    assert to_ask(found) == plain


def test_leaves_are_adjusted_together(tmp_path: Path) -> None:
    paths = [f"knowledge/{n}" for n in range(9)]
    asked = [item for path in paths for item in items(path, 8)]
    six = ([1.0] * 6 + [0.0] * 2) * len(paths)
    none = [0.0] * len(asked)
    found = results(tmp_path, asked, scores("a", asked, none, six), scores("b", asked, none, six))
    leaf = advise(found)["leaves"][0]
    assert leaf["effects"]["retrieval"]["p"] < 0.05 < leaf["effects"]["retrieval"]["p_adjusted"]
    assert leaf["advice"] == "inconclusive"


def test_without_an_evaluation_there_is_no_advice(tmp_path: Path) -> None:
    made = Results(Store(tmp_path), {})
    with pytest.raises(InputError, match="the last build was not evaluated"):
        advise(made)
    with pytest.raises(InputError, match="no longer has both models"):
        measure(made, {}, None)  # type: ignore[arg-type]
