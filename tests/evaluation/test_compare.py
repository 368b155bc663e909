"""Comparisons: what is counted, what is called a change, and how often nothing is called something."""

import json
import random

import pytest

from ilab.data import Item, Score
from ilab.evaluation.compare import IMPROVED, INCONCLUSIVE, REGRESSED, UNCHANGED, compare
from ilab.evaluation.summary import change_with_interval, summary_rows, verdict_text, with_interval


def make_items(leaf: str, n: int, per_cluster: int = 1, kind: str = "mcq") -> list[Item]:
    return [
        Item(
            id=f"{leaf}#{i:03}",
            leaf=leaf,
            split="test",
            kind=kind,
            question="q",
            options=("a", "b"),
            gold="a",
            cluster=f"{leaf}/c{i // per_cluster}",
        )
        for i in range(n)
    ]


def make_scores(items: list[Item], values: list[float | None], model: str = "m", note: str = "") -> list[Score]:
    return [
        Score(item=item.id, leaf=item.leaf, model=model, kind=item.kind, cluster=item.cluster, value=value, note=note)
        for item, value in zip(items, values, strict=True)
    ]


def test_groups_hold_the_right_counts_and_values():
    items = [*make_items("knowledge/a", 10), *make_items("skills/b", 6)]
    base = make_scores(items, [0.0] * 16)
    first = make_scores(items, [1.0] * 5 + [0.0] * 11)
    last = make_scores(items, [1.0] * 10 + [0.0] * 6)
    result = compare({"base": base, "phase 1": first, "phase 2": last}, items)
    assert [leaf["name"] for leaf in result["leaves"]] == ["knowledge/a", "skills/b"]
    assert [kind["name"] for kind in result["kinds"]] == ["knowledge", "skills"]
    knowledge, skill = result["leaves"]
    assert knowledge["models"]["phase 1"]["value"] == 0.5
    assert knowledge["deltas"]["phase 1"]["value"] == 0.5 and knowledge["deltas"]["phase 2"]["value"] == 1.0
    assert knowledge["gained"] == [item.id for item in items[:10]] and knowledge["lost"] == []
    assert knowledge["verdict"] == IMPROVED and skill["verdict"] == UNCHANGED
    assert result["total"]["models"]["phase 2"]["value"] == 0.625
    assert result["macro"] == {"base": 0.0, "phase 1": 0.25, "phase 2": 0.5}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_items_without_a_score_leave_all_models_and_are_counted_with_reasons():
    items = make_items("knowledge/a", 8)
    base = make_scores(items, [0.0] * 8)
    tuned = make_scores(items, [1.0] * 5 + [None, float("nan"), 1.0], note="timed out")[:7]
    group = compare({"base": base, "tuned": tuned}, items)["leaves"][0]
    assert (group["items"], group["n"]) == (8, 5)
    assert group["models"]["tuned"]["unscored"] == {"no score": 1, "not a number": 1, "timed out": 1}
    assert group["models"]["base"]["unscored"] == {} and group["models"]["base"]["high"] == pytest.approx(
        0.434, abs=1e-3
    )


def test_same_model_twice_changes_nothing():
    items = make_items("knowledge/a", 30)
    scores = make_scores(items, [float(i % 3 == 0) for i in range(30)])
    result = compare({"base": scores, "tuned": scores}, items)
    assert result["total"]["deltas"]["tuned"]["value"] == 0.0 and result["total"]["deltas"]["tuned"]["p"] == 1.0
    assert {leaf["verdict"] for leaf in result["leaves"]} == {UNCHANGED}
    assert result["total"]["gained"] == result["total"]["lost"] == []


@pytest.mark.parametrize("n", [0, 1, 4])
def test_tiny_leaves_are_inconclusive(n: int):
    items = make_items("knowledge/a", n)
    result = compare({"base": make_scores(items, [0.0] * n), "tuned": make_scores(items, [1.0] * n)}, items)
    assert result["total"]["verdict"] == INCONCLUSIVE
    assert [leaf["verdict"] for leaf in result["leaves"]] == [INCONCLUSIVE] * (n > 0)
    assert len(summary_rows(result)) == (n > 0)


def test_many_items_of_few_sources_are_inconclusive():
    items = make_items("knowledge/a", 30, per_cluster=10)
    result = compare({"base": make_scores(items, [0.0] * 30), "tuned": make_scores(items, [1.0] * 30)}, items)
    assert result["leaves"][0]["clusters"] == 3 and result["leaves"][0]["verdict"] == INCONCLUSIVE


def test_a_source_shared_by_two_leaves_is_one_cluster_of_the_pool():
    items = [item.model_copy(update={"cluster": item.id[-3:]}) for leaf in "ab" for item in make_items(leaf, 8)]
    scores = make_scores(items, [1.0] * 16)
    result = compare({"base": scores, "tuned": scores}, items)
    assert [leaf["clusters"] for leaf in result["leaves"]] == [8, 8] and result["total"]["clusters"] == 8


def test_order_of_scores_and_items_is_irrelevant():
    items = [*make_items("knowledge/a", 12, 2), *make_items("skills/b", 9)]
    draw = random.Random(1)
    base = make_scores(items, [draw.random() for _ in items])
    tuned = make_scores(items, [draw.random() for _ in items])
    straight = compare({"base": base, "tuned": tuned}, items, {"x": {"knowledge/a": 0.5}})
    assert compare({"base": base[::-1], "tuned": tuned}, items[::-1], {"x": {"knowledge/a": 0.5}}) == straight


def test_nothing_is_called_a_change_in_more_than_five_percent_of_families():
    """Ten leaves, two models of equal skill, 500 times: at least one verdict in at most 5 % (and noise)."""
    draw, called = random.Random(2), 0
    for _ in range(500):
        items = [item for leaf in range(10) for item in make_items(f"knowledge/{leaf}", 20)]
        base = make_scores(items, [float(draw.random() < 0.5) for _ in items])
        tuned = make_scores(items, [float(draw.random() < 0.5) for _ in items])
        verdicts = {leaf["verdict"] for leaf in compare({"base": base, "tuned": tuned}, items)["leaves"]}
        called += bool(verdicts & {IMPROVED, REGRESSED})
    assert called / 500 < 0.07


def test_a_planted_effect_on_one_leaf_is_found_and_others_are_not_named():
    draw, found, others = random.Random(4), 0, 0
    for _ in range(40):
        items = [item for leaf in range(10) for item in make_items(f"knowledge/{leaf}", 50)]
        luck = [draw.random() for _ in items]
        base = make_scores(items, [float(x < 0.3) for x in luck])
        tuned = make_scores(
            items,
            [float(x < (0.6 if item.leaf.endswith("/0") else 0.3)) for x, item in zip(luck, items, strict=True)],
        )
        leaves = compare({"base": base, "tuned": tuned}, items)["leaves"]
        found += leaves[0]["verdict"] == IMPROVED
        others += sum(leaf["verdict"] in (IMPROVED, REGRESSED) for leaf in leaves[1:])
    assert found >= 32 and others == 0


def test_pooled_baselines_count_leaves_by_their_choices():
    items = [
        *make_items("knowledge/a", 3),
        *make_items("knowledge/b", 1),
        *make_items("skills/c", 5, kind="exact"),
    ]
    scores = make_scores(items, [1.0] * 9)
    result = compare({"m": scores}, items, {"open book": {"knowledge/a": 1.0, "knowledge/b": 0.0, "skills/c": None}})
    assert result["total"]["baselines"] == {"open book": 0.75}
    assert result["leaves"][2]["baselines"] == {"open book": None}
    assert result["total"]["verdict"] == INCONCLUSIVE and verdict_text(result["total"]).endswith(
        "(nothing to compare with)"
    )


def test_graded_scores_get_a_t_interval_inside_0_and_1():
    items = make_items("skills/a", 8, kind="free")
    scores = make_scores(items, [0.9, 1.0, 1.0, 0.95, 1.0, 0.4, 1.0, 1.0])
    cell = compare({"m": scores}, items)["leaves"][0]["models"]["m"]
    assert cell["value"] == pytest.approx(0.90625) and 0.7 < cell["low"] < cell["value"] and cell["high"] == 1.0


def test_no_model_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="nothing to compare"):
        compare({}, [])


def test_texts_of_the_table():
    assert with_interval({"value": 0.583, "low": 0.4712, "high": 0.68}) == "58 % [47, 68]"
    assert with_interval({"value": None, "low": None, "high": None}) == "–"
    assert change_with_interval({"value": 0.3, "low": -0.004, "high": 0.43}) == "+30 [±0, +43]"
    assert change_with_interval({"value": -0.3, "low": None, "high": None}) == "−30"
    items = make_items("knowledge/a", 20)
    scores = make_scores(items, [0.0] * 20)
    row = summary_rows(compare({"base": scores, "tuned": scores}, items))[0]
    assert row["verdict_text"] == "no detectable change (could detect ≥ 28 points)"
    assert [cell["model"] for cell in row["cells"]] == ["base", "tuned"] and row["items"] == 20
