"""The gate's three outcomes, and that its line says what decided."""

import json

import pytest

from ilab.data import Item, Score
from ilab.errors import InputError
from ilab.evaluation.compare import compare
from ilab.evaluation.gate import decide


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
            cluster=f"c{i}",
        )
        for i in range(n)
    ]


def score(items: list[Item], values: list[float | None], answers: list[str] | None = None) -> list[Score]:
    texts = answers or ["red stone" if value else "x" for value in values]
    return [
        Score(item=i.id, leaf=i.leaf, model="m", kind=i.kind, cluster=i.cluster, value=v, answer=a)
        for i, v, a in zip(items, values, texts, strict=True)
    ]


def gate(items, base, tuned, threshold=0.6, metrics=("accuracy",), **more):
    comparison = compare({"base": base, "tuned": tuned}, items)
    result = decide(comparison, tuned, items, threshold=threshold, metrics=metrics, **more)
    json.dumps(result, allow_nan=False)
    return result


def verdicts(result) -> dict[str, str]:
    return {rule["name"]: rule["verdict"] for rule in result["rules"]}


def test_pass_with_score_threshold_and_verdict_on_one_line():
    items = make("mcq", 40)
    result = gate(items, score(items, [0.0] * 40), score(items, [1.0] * 28 + [0.0] * 12))
    assert result["line"] == "score 0.70 >= 0.60 (accuracy, 40 items): PASS"
    assert result["verdict"] == "pass" and result["publish"] and set(verdicts(result).values()) == {"pass"}


def test_below_the_threshold_fails_though_better_than_the_base():
    items = make("mcq", 40)
    result = gate(items, score(items, [0.0] * 40), score(items, [1.0] * 20 + [0.0] * 20))
    assert result["line"] == "score 0.50 < 0.60 (accuracy, 40 items): FAIL"
    assert verdicts(result) == {"threshold": "fail", "better": "pass", "no harm": "pass", "measured": "pass"}
    assert not result["publish"]


@pytest.mark.parametrize(("choice", "publish"), [("stop", False), ("publish", True)])
def test_no_clear_difference_is_inconclusive(choice: str, publish: bool):
    items = make("mcq", 20)
    same = score(items, [1.0] * 15 + [0.0] * 5)
    result = gate(items, same, same, on_inconclusive=choice)
    assert result["verdict"] == "inconclusive" and result["publish"] is publish
    assert "INCONCLUSIVE (better: ±0" in result["line"]


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
    assert verdicts(result) == {"threshold": "pass", "better": "pass", "no harm": "fail", "measured": "pass"}
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
    assert result["metrics"]["f1"] == pytest.approx((1 + 0 + 1 + 2 / 3 + 0.5 + 0.25) / 6, abs=1e-6)
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
    assert "accuracy, f1" in error.value.hint
