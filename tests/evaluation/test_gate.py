"""The gate's three outcomes, and that its line says what decided."""

import json
import random

import pytest
from scipy import stats

from ilab.data import Item, Score
from ilab.errors import InputError
from ilab.evaluation.compare import compare
from ilab.evaluation.gate import Rules, decide


def make(kind: str, n: int, leaf: str = "knowledge/a") -> list[Item]:
    return [
        Item(
            id=f"{leaf}#{i:03}",
            leaf=leaf,
            split="test",
            kind=kind,
            question="q",
            options=("red stone", "x"),
            gold="red stone",
            cluster=f"{leaf}/c{i}",
        )
        for i in range(n)
    ]


def score(items: list[Item], values: list[float | None], answers: list[str] | None = None) -> list[Score]:
    texts = answers or ["red stone" if value else "x" for value in values]
    return [
        Score(item=i.id, leaf=i.leaf, model="m", kind=i.kind, cluster=i.cluster, value=v, answer=a)
        for i, v, a in zip(items, values, texts, strict=True)
    ]


def marked(scores: list[Score]) -> list[Score]:
    """The same scores, as a judge's marks."""
    return [one.model_copy(update={"metrics": {"judge": one.value}}) for one in scores]


def gate(items, base, tuned, threshold=0.6, metrics=("accuracy",), previous=None, on_inconclusive="stop", **asked):
    """``asked`` are fields of Rules."""
    models = {"base": base, **({"previous": previous} if previous else {}), "tuned": tuned}
    scores = [one.model_copy(update={"model": name}) for name, found in models.items() for one in found]
    result = decide(
        compare(models, items),
        scores,
        items,
        threshold=threshold,
        metrics=metrics,
        on_inconclusive=on_inconclusive,
        rules=Rules(**asked),
    )
    json.dumps(result, allow_nan=False)
    return result


SHORT = {
    "threshold": "threshold",
    "superior on changed leaves": "better",
    "no harm elsewhere": "no harm",
    "general": "general",
    "measured": "measured",
}


def verdicts(result) -> dict[str, str]:
    return {SHORT[rule["name"]]: rule["verdict"] for rule in result["rules"]}


def rule(result, short: str) -> dict:
    return next(one for one in result["rules"] if SHORT[one["name"]] == short)


PASSED = dict.fromkeys(SHORT.values(), "pass")


def test_pass_with_score_threshold_and_verdict_on_one_line():
    items = make("mcq", 40)
    result = gate(items, score(items, [0.0] * 40), score(items, [1.0] * 28 + [0.0] * 12))
    assert result["line"] == "score 0.70 >= 0.60 (accuracy, 40 items): PASS"
    assert result["verdict"] == "pass" and result["publish"] and set(verdicts(result).values()) == {"pass"}


def test_below_the_threshold_fails_though_better_than_the_base():
    items = make("mcq", 40)
    result = gate(items, score(items, [0.0] * 40), score(items, [1.0] * 20 + [0.0] * 20))
    assert result["line"] == "score 0.50 < 0.60 (accuracy, 40 items): FAIL"
    assert verdicts(result) == PASSED | {"threshold": "fail"}
    assert not result["publish"]


@pytest.mark.parametrize(("choice", "publish"), [("stop", False), ("publish", True)])
def test_no_clear_difference_is_inconclusive(choice: str, publish: bool):
    items = make("mcq", 20)
    same = score(items, [1.0] * 15 + [0.0] * 5)
    result = gate(items, same, same, on_inconclusive=choice)
    assert result["verdict"] == "inconclusive" and result["publish"] is publish
    assert "INCONCLUSIVE (superior on changed leaves: ±0" in result["line"]
    assert "n >= 157 items needed for a change of 10 points" in result["line"]
    assert rule(result, "better")["needed"] == {"change": 0.1, "items": 157}


def test_significantly_worse_fails_and_says_so():
    items = make("mcq", 20)
    result = gate(items, score(items, [1.0] * 20), score(items, [1.0] * 12 + [0.0] * 8))
    assert result["verdict"] == "fail" and verdicts(result)["better"] == verdicts(result)["no harm"] == "fail"
    assert "worse" in result["line"]


def test_one_regressed_leaf_fails_though_the_pool_improved():
    good, bad = make("mcq", 60), make("mcq", 20, leaf="skills/b")
    items = [*good, *bad]
    base = score(items, [0.0] * 60 + [1.0] * 20)
    result = gate(items, base, score(items, [1.0] * 60 + [0.0] * 20))
    assert verdicts(result) == PASSED | {"no harm": "fail"}
    assert result["verdict"] == "fail" and "skills/b" in result["line"]


def test_without_items_nothing_can_be_known():
    result = gate([], [], [])
    assert result["verdict"] == "inconclusive" and result["score"] is None and not result["publish"]
    assert result["line"].startswith("no score, threshold 0.60: INCONCLUSIVE (threshold: no test item has a score")


def test_dropping_the_hard_items_is_no_way_to_pass():
    items = make("mcq", 40)
    result = gate(items, score(items, [0.0] * 40), score(items, [1.0] * 30 + [None] * 5 + [float("nan")] * 5))
    assert result["score"] == 1.0 and verdicts(result)["measured"] == "inconclusive"
    assert result["verdict"] == "inconclusive"


def test_metrics_of_mixed_kinds():
    choices, exact, free = make("mcq", 2), make("exact", 2, "skills/e"), make("free", 2, "skills/f")
    items = [*choices, *exact, *free]
    values = [1.0, 0.0, 1.0, 0.0, 0.5, 0.25]
    tuned = score(items, values, ["red stone", "x", "red stone", "red", "stone", "?"])
    result = gate(items, score(items, [0.0] * 6), tuned, metrics=("accuracy", "f1"))
    assert result["metrics"]["accuracy"] == 0.5
    assert result["metrics"]["f1"] == pytest.approx((1 + 0 + 1 + 2 / 3 + 2 / 3 + 0) / 6, abs=1e-6)
    assert result["score"] == pytest.approx((result["metrics"]["accuracy"] + result["metrics"]["f1"]) / 2, abs=1e-6)


def test_accuracy_of_free_answers_alone_is_not_defined():
    items = make("free", 8)
    result = gate(items, score(items, [0.0] * 8), score(items, [0.9] * 8))
    assert result["metrics"] == {"accuracy": None} and result["verdict"] == "inconclusive"


def test_a_score_just_below_the_threshold_is_not_rounded_onto_it():
    items = make("mcq", 1000)
    result = gate(items, score(items, [0.0] * 1000), score(items, [1.0] * 599 + [0.0] * 401))
    assert result["line"].startswith("score 0.599 < 0.600")
    exact = gate(items, score(items, [0.0] * 1000), score(items, [1.0] * 600 + [0.0] * 400))
    assert exact["line"].startswith("score 0.60 >= 0.60")


@pytest.mark.parametrize("metrics", [("bleu",), ()])
def test_unknown_metrics_are_refused_with_the_known_ones(metrics):
    with pytest.raises(InputError) as error:
        gate([], [], [], metrics=metrics)
    assert "accuracy, f1, judge, declined" in error.value.hint


def test_the_score_stands_on_the_changed_leaves_alone():
    new, old = make("mcq", 30, "knowledge/new"), make("mcq", 60, "knowledge/old")
    items = [*new, *old]
    base = score(items, [0.0] * 30 + [1.0] * 60)
    result = gate(items, base, score(items, [1.0] * 24 + [0.0] * 6 + [1.0] * 60), changed=frozenset({"knowledge/new"}))
    assert (result["score"], result["items"], result["changed"]) == (0.8, 30, ["knowledge/new"])
    assert rule(result, "better")["n"] == 30 and rule(result, "better")["value"] == 0.8
    assert rule(result, "no harm")["n"] == 60 and rule(result, "no harm")["value"] == 0.0
    assert "unchanged leaves: ±0 [−6.0, +6.0]" in rule(result, "no harm")["detail"]
    assert verdicts(result) == PASSED | {"no harm": "inconclusive"}, "60 items cannot exclude a loss of 5 points"
    assert "n >= 628 items needed for a change of 5 points" in result["line"]


def test_no_harm_needs_the_lower_bound_above_the_margin():
    """Of 400 unchanged items 2 gained and 4 lost: −0.5 [−1.7, +0.7]."""
    new, old = make("mcq", 30, "knowledge/new"), make("mcq", 400, "knowledge/old")
    base = score([*new, *old], [0.0] * 30 + [1.0] * 398 + [0.0] * 2)
    tuned = score([*new, *old], [1.0] * 30 + [1.0] * 394 + [0.0] * 4 + [1.0] * 2)
    changed = frozenset({"knowledge/new"})
    found = {m: gate([*new, *old], base, tuned, changed=changed, margin=m) for m in (0.05, 0.018, 0.01, 0.001)}
    assert [verdicts(one)["no harm"] for one in found.values()] == ["pass", "pass", "inconclusive", "inconclusive"]
    figures = rule(found[0.05], "no harm")
    assert figures["value"] == -0.005 and -0.018 < figures["low"] < -0.017


def test_significantly_worse_by_more_than_the_margin_fails_without_any_single_leaf():
    """Ten leaves of 30 items, each loses 3 of 30: no leaf is significant, all together are."""
    old = [item for leaf in range(10) for item in make("mcq", 30, f"knowledge/{leaf}")]
    new = make("mcq", 30, "skills/new")
    base = score([*new, *old], [0.0] * 30 + [1.0] * 300)
    tuned = score([*new, *old], [1.0] * 30 + [float(n % 30 > 2) for n in range(300)])
    result = gate([*new, *old], base, tuned, changed=frozenset({"skills/new"}))
    assert verdicts(result) == PASSED | {"no harm": "fail"}
    assert "unchanged leaves: −10.0" in result["line"] and result["line"].endswith("worse)")


def test_harm_is_held_against_the_previous_release():
    """A leaf that the previous release knew and the base did not: only against the release is it worse."""
    new, old = make("mcq", 30, "knowledge/new"), make("mcq", 40, "knowledge/old")
    items = [*new, *old]
    base, previous = score(items, [0.0] * 70), score(items, [0.0] * 30 + [1.0] * 40)
    tuned = score(items, [1.0] * 30 + [1.0] * 20 + [0.0] * 20)
    alone = gate(items, base, tuned, changed=frozenset({"knowledge/new"}))
    assert alone["release"] == "base" and verdicts(alone)["no harm"] == "pass"
    held = gate(items, base, tuned, changed=frozenset({"knowledge/new"}), previous=previous)
    assert held["release"] == "previous" and verdicts(held)["no harm"] == "fail"
    assert "significantly worse than previous: knowledge/old" in held["line"]


def test_general_suite_has_its_own_margin_and_no_part_in_the_score():
    own, general = make("mcq", 40), make("mcq", 500, "general/physics")
    items = [*own, *general]
    base = score(items, [0.0] * 40 + [1.0] * 400 + [0.0] * 100)
    same = gate(items, base, score(items, [1.0] * 40 + [1.0] * 400 + [0.0] * 100))
    assert same["line"] == "score 1.00 >= 0.60 (accuracy, 40 items): PASS" and rule(same, "general")["n"] == 500
    forgot = gate(items, base, score(items, [1.0] * 40 + [1.0] * 360 + [0.0] * 140))
    assert verdicts(forgot) == PASSED | {"general": "fail"}
    little = gate(items, base, score(items, [1.0] * 40 + [1.0] * 394 + [0.0] * 106))
    assert verdicts(little) == PASSED | {"general": "inconclusive"}
    assert (
        verdicts(gate(items, base, score(items, [1.0] * 40 + [1.0] * 394 + [0.0] * 106), general_margin=0.05)) == PASSED
    )


def test_without_a_general_suite_it_is_said_and_does_not_fail():
    items = make("mcq", 40)
    result = gate(items, score(items, [0.0] * 40), score(items, [1.0] * 40))
    assert result["verdict"] == "pass" and rule(result, "general")["applies"] is False
    assert rule(result, "general")["detail"].startswith("not measured: there is no general suite")


def test_threshold_on_the_lower_bound():
    """75 % of 40: Wilson [0.60, 0.86]; of 400: [0.71, 0.79]."""
    for n, verdict in ((40, "inconclusive"), (400, "pass")):
        items = make("mcq", n)
        right = [1.0] * (3 * n // 4) + [0.0] * (n // 4)
        assert gate(items, score(items, [0.0] * n), score(items, right), 0.7)["verdict"] == "pass"
        lower = gate(items, score(items, [0.0] * n), score(items, right), 0.7, on="lower")
        theirs = stats.binomtest(3 * n // 4, n).proportion_ci(0.95, "wilson")
        assert lower["low"] == pytest.approx(theirs.low, abs=1e-6) and verdicts(lower)["threshold"] == verdict
    items = make("mcq", 40)
    short = gate(items, score(items, [0.0] * 40), score(items, [1.0] * 30 + [0.0] * 10), 0.7, on="lower")
    wanted = rule(short, "threshold")["needed"]
    assert wanted["change"] == 0.05 and 580 < wanted["items"] < 620, "0.75 * 0.25 * 40/39 * 7.85 / 0.05²"
    assert f"n >= {wanted['items']} items needed for a change of 5 points" in short["line"]


def test_an_uncalibrated_judge_alone_never_passes_nor_fails():
    items = make("free", 40)
    base, good, bad = (marked(score(items, [value] * 40)) for value in (0.0, 0.9, 0.1))
    for tuned in (good, bad):
        result = gate(items, base, tuned, metrics=("judge",))
        assert verdicts(result) == PASSED | {"threshold": "inconclusive", "better": "inconclusive"}
        assert "eval_judge_marks=FILE" in result["line"]
    trusted = gate(items, base, good, metrics=("judge",), judge_trusted=True)
    assert trusted["verdict"] == "pass" and trusted["score"] == 0.9
    assert gate(items, base, bad, metrics=("judge",), judge_trusted=True)["verdict"] == "fail"
    worse = gate(items, good, bad, metrics=("judge",))
    assert verdicts(worse)["no harm"] == "inconclusive" and "a judge that nobody has calibrated" in worse["line"]


@pytest.mark.parametrize(("right", "verdict"), [(38, "pass"), (20, "inconclusive"), (2, "fail")])
def test_beside_other_metrics_an_uncalibrated_judge_must_not_turn_the_verdict(right: int, verdict: str):
    """The judge gives 0.75 throughout; the threshold is 0.6."""
    choices, free = make("mcq", 40), make("free", 40, "skills/f")
    items = [*choices, *free]
    base = [*score(choices, [0.0] * 40), *marked(score(free, [0.0] * 40))]
    tuned = [*score(choices, [1.0] * right + [0.0] * (40 - right)), *marked(score(free, [0.75] * 40))]
    result = gate(items, base, tuned, metrics=("accuracy", "judge"))
    assert verdicts(result)["threshold"] == verdict and rule(result, "better")["n"] == 40
    assert gate(items, base, tuned, metrics=("accuracy", "judge"), judge_trusted=True)["items"] == 40


@pytest.mark.parametrize("kind", ["mcq", "exact"])
def test_a_mark_beside_a_score_that_is_not_the_judges_takes_nothing_away(kind: str):
    """With a judge every answer is marked; chosen options and exact matches stand without it."""
    items = make(kind, 40)
    base, tuned = score(items, [0.0] * 40), score(items, [1.0] * 40)
    plain = gate(items, base, tuned, metrics=("accuracy", "f1"))
    beside = gate(items, marked(base), marked(tuned), metrics=("accuracy", "f1"))
    assert plain["verdict"] == "pass" and beside == plain
    assert gate(items, marked(tuned), marked(base), metrics=("accuracy",))["verdict"] == "fail"


def test_declined_is_a_metric_of_the_unanswerable_alone():
    known = make("mcq", 30)
    probes = [item.model_copy(update={"unanswerable": True, "options": ()}) for item in make("free", 10, "knowledge/p")]
    items = [*known, *probes]
    base = score(items, [0.0] * 40)
    result = gate(items, base, score(items, [1.0] * 30 + [1.0] * 7 + [0.0] * 3), metrics=("accuracy", "declined"))
    assert result["metrics"] == {"accuracy": 1.0, "declined": 0.7} and result["score"] == 0.85
    assert rule(result, "better")["n"] == 30 and "40 of 40 items" in rule(result, "measured")["detail"]
    without = gate(known, base[:30], score(known, [1.0] * 30), metrics=("accuracy", "declined"))
    assert without["score"] == 1.0 and "not measured: declined" in rule(without, "threshold")["detail"]


def test_nothing_changed_and_changed_leaves_without_items():
    items = make("mcq", 300)
    same = score(items, [1.0] * 300)
    nothing = gate(items, same, same, changed=frozenset())
    assert nothing["verdict"] == "pass" and nothing["items"] == 300 and rule(nothing, "better")["applies"] is False
    unmeasured = gate(items, same, same, changed=frozenset({"knowledge/elsewhere"}))
    assert unmeasured["score"] is None and verdicts(unmeasured)["better"] == "inconclusive"


def test_every_inconclusive_verdict_of_too_few_items_says_how_many_it_takes():
    items = make("mcq", 4)
    for found in (gate(items, score(items, [0.0] * 4), score(items, [1.0] * 4)), gate([], [], [])):
        for one in found["rules"]:
            assert one["verdict"] != "inconclusive" or "n >= " in one["detail"], one
    general = make("mcq", 40, "general/x")
    every = [*make("mcq", 40), *general]
    lost = gate(every, score(every, [0.0] * 80), score(every, [1.0] * 40 + [None] * 10 + [0.0] * 30))
    assert "30 of 40 general items have a score from every model (no value: 10): n >= 38 needed" in lost["line"]


def test_where_the_base_knows_everything_already_that_is_the_reason():
    items = make("mcq", 300)
    same = score(items, [1.0] * 300)
    assert "base knows all of it already" in gate(items, same, same)["line"]
    assert "that may be chance" in gate(items, score(items, [1.0] * 299 + [0.0]), same)["line"]


def test_without_a_second_model_there_is_nothing_to_compare_with():
    items = make("mcq", 40)
    scores = score(items, [1.0] * 40)
    result = decide(compare({"m": scores}, items), scores, items, threshold=0.5, metrics=["accuracy"])
    assert result["verdict"] == "inconclusive" and "there is no base model to compare with" in result["line"]


def test_the_order_of_scores_and_items_changes_nothing():
    items = [*make("mcq", 30), *make("free", 30, "skills/f"), *make("exact", 30, "general/x")]
    draw = random.Random(4)
    base, tuned = (score(items, [round(draw.random(), 2) for _ in items]) for _ in range(2))
    asked = {"metrics": ("accuracy", "f1"), "changed": frozenset({"skills/f"})}
    assert gate(items, base, tuned, **asked) == gate(items[::-1], base[::-1], tuned[::-1], **asked)


def test_a_leaf_s_family_of_tests_is_corrected_before_it_can_fail_a_model():
    """One of ten leaves lost 6 of 20 and gained none: p = 0.03 alone, 0.3 among ten."""
    items = [item for leaf in range(10) for item in make("mcq", 20, f"knowledge/{leaf}")]
    base = score(items, [1.0] * 20 + [0.0] * 180)
    tuned = score(items, [1.0] * 14 + [0.0] * 6 + [0.0] * 180)
    assert verdicts(gate(items, base, tuned))["no harm"] == "pass"
    alone = gate(items[:20], base[:20], tuned[:20])
    assert verdicts(alone)["no harm"] == "fail"
