"""Comparisons: what is counted, what is called a change, and how often nothing is called something."""

import json
import random

import pytest

from ilab.data import Item, Score
from ilab.evaluation.compare import IMPROVED, INCONCLUSIVE, REGRESSED, UNCHANGED, compare, needed
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
    few = summary_rows(compare({"base": scores[:4], "tuned": scores[:4]}, items[:4]))[0]
    assert few["verdict_text"] == "inconclusive (n >= 157 items needed for a change of 10 points)"
    assert few["declined"] is None and few["since_previous"] is None


def test_previous_release_is_neither_reference_nor_candidate():
    """40 items: the base knows 10, the previous release 30, the candidate 12."""
    items = make_items("knowledge/a", 40)
    base, previous, last = (make_scores(items, [1.0] * k + [0.0] * (40 - k)) for k in (10, 30, 12))
    for order in (("base", "previous", "tuned"), ("previous", "base", "tuned"), ("base", "tuned", "previous")):
        found = {"base": base, "previous": previous, "tuned": last}
        result = compare({name: found[name] for name in order}, items)
        assert (result["reference"], result["previous"], result["candidate"]) == ("base", "previous", "tuned")
        leaf = result["leaves"][0]
        assert list(leaf["deltas"]) == ["previous", "tuned"] and leaf["deltas"]["tuned"]["value"] == 0.05
        since = leaf["since_previous"]
        assert since["delta"]["value"] == -0.45 and since["verdict"] == REGRESSED and leaf["verdict"] == UNCHANGED
        assert since["lost"] == [item.id for item in items[12:30]] and since["gained"] == [] == leaf["lost"]
        row = summary_rows(result)[0]
        assert row["since_previous"]["text"].startswith("−45 [") and row["since_previous"]["verdict"] == REGRESSED
    alone = compare({"previous": previous, "tuned": last}, items)
    assert alone["reference"] == "previous" and alone["previous"] is None and "since_previous" not in alone["total"]


def test_holm_adjusts_the_previous_release_s_family_for_itself():
    items = [item for leaf in range(4) for item in make_items(f"knowledge/{leaf}", 20)]
    base = make_scores(items, [0.0] * 80)
    previous = make_scores(items, [1.0] * 7 + [0.0] * 73)
    result = compare({"base": base, "previous": previous, "tuned": base}, items)
    delta = result["leaves"][0]["since_previous"]["delta"]
    assert delta["p"] == pytest.approx(2**-6, abs=1e-5) and delta["p_adjusted"] == pytest.approx(2**-4, abs=1e-4)
    assert result["leaves"][0]["since_previous"]["verdict"] == UNCHANGED


def test_general_suite_stands_beside_the_taxonomy():
    own, general = make_items("knowledge/a", 10), make_items("general/physics", 30) + make_items("general/law", 10)
    items = [*own, *general]
    base = make_scores(items, [0.0] * 10 + [1.0] * 40)
    result = compare({"base": base, "tuned": make_scores(items, [1.0] * 10 + [0.0] * 40)}, items)
    assert [leaf["name"] for leaf in result["leaves"]] == ["knowledge/a"] and len(result["kinds"]) == 1
    assert result["total"]["items"] == 10 and result["macro"] == {"base": 0.0, "tuned": 1.0}
    found = result["general"]
    assert (found["kind"], found["n"], found["verdict"]) == ("general", 40, REGRESSED)
    assert [one["name"] for one in found["subjects"]] == ["general/law", "general/physics"]
    assert [one["verdict"] for one in found["subjects"]] == [REGRESSED, REGRESSED]
    assert summary_rows(result)[-1]["name"] == "general knowledge" and summary_rows(result)[-1]["level"] == "general"
    assert compare({"base": base}, own)["general"] is None


def test_unanswerable_items_are_told_apart():
    items = make_items("knowledge/a", 12)
    probes = [item.model_copy(update={"id": f"{item.id}/u", "unanswerable": True}) for item in items[:5]]
    every = [*items, *probes]
    base = make_scores(every, [1.0] * 12 + [0.0] * 5)
    tuned = make_scores(every, [1.0] * 12 + [1.0, 1.0, 0.0, 0.0, None], note="timed out")
    for group in (result := compare({"base": base, "tuned": tuned}, every))["leaves"] + [result["total"]]:
        assert (group["items"], group["n"], group["models"]["tuned"]["value"]) == (12, 12, 1.0)
        assert (group["declined"]["items"], group["declined"]["n"]) == (5, 4)
        cells = group["declined"]["models"]
        assert (cells["base"]["value"], cells["tuned"]["value"]) == (0.0, 0.5)
        assert cells["tuned"]["unscored"] == {"timed out": 1} and group["gained"] == []
    assert summary_rows(result)[0]["declined"] == "says that it does not know: 50 % [15, 85] of 4"


def test_further_figures_are_means_over_the_items_on_which_all_models_have_them():
    items = make_items("skills/a", 4, kind="free")

    def scores(values, metrics):
        return [
            one.model_copy(update={"metrics": more})
            for one, more in zip(make_scores(items, values), metrics, strict=True)
        ]

    base = scores([0.2] * 4, [{"f1": 0.1, "bits": 3.0}, {"f1": 0.3}, {"f1": 0.5}, {"f1": 0.9}])
    tuned = scores([0.8, 0.8, None, 0.8], [{"f1": 0.2}, {"f1": 0.4}, {"f1": 1.0}, {"f1": float("nan"), "judge": 1.0}])
    group = compare({"base": base, "tuned": tuned}, items)["total"]
    assert group["metrics"] == {"f1": {"base": 0.2, "tuned": 0.3}} and group["dropped"] == 1


def test_known_by_the_base_and_the_share_of_the_gap_that_is_closed():
    items = make_items("knowledge/a", 10)
    base, tuned = make_scores(items, [1.0] * 2 + [0.0] * 8), make_scores(items, [1.0] * 8 + [0.0] * 2)
    group = compare({"base": base, "tuned": tuned}, items)["leaves"][0]
    assert group["base_known"] == 2 and group["gap_closed"] == 0.75
    assert compare({"base": tuned, "tuned": base}, items)["total"]["gap_closed"] == -3.0
    perfect = make_scores(items, [1.0] * 10)
    assert compare({"base": perfect, "tuned": base}, items)["total"]["gap_closed"] is None
    assert compare({"base": base}, items)["total"]["gap_closed"] is None


def test_a_handful_of_gains_needs_the_exact_test_too():
    """4 of 20 gained, none lost: t says p = 0.04, the exact test 2 * 0.5**4 = 0.125."""
    items = make_items("knowledge/a", 20)
    result = compare({"base": make_scores(items, [0.0] * 20), "t": make_scores(items, [1.0] * 4 + [0.0] * 16)}, items)
    assert result["total"]["deltas"]["t"]["p"] == 0.125 and result["total"]["verdict"] == UNCHANGED


def test_an_item_of_many_is_named_by_the_change_that_it_cannot_show():
    assert needed(20, 0.2) == {"change": 0.1, "items": 157}
    assert needed(157, 0.2) == {"change": 0.05, "items": 628}
    assert needed(100_000, 0.2) == {"change": 0.01, "items": 15_698}
