"""Models of known accuracy: false alarms stay below what was planned, true changes are found as often as planned.

The bounds are those within which a right program stays in 999 of 1,000 seeds (binomial); ``benchmarks/gate.py`` counts
more pairs.
"""

import random
from collections.abc import Mapping

import pytest
from scipy import stats

from ilab.evaluation.compare import IMPROVED, REGRESSED, UNCHANGED, compare
from ilab.evaluation.gate import Rules, decide
from ilab.evaluation.statistics import items_needed, minimum_detectable_effect
from ilab.testing.simulated import simulated_items, simulated_pair

LEAVES = [f"knowledge/{number}" for number in range(10)]
RUNS = 200


def most(share: float) -> float:
    """A share that is not exceeded in 999 of 1,000 seeds, if it truly is at most ``share``."""
    return stats.binom.ppf(0.999, RUNS, share) / RUNS


def gate(items, pair, **asked):
    scores = [score for found in pair.values() for score in found]
    return decide(compare(pair, items), scores, items, threshold=0.0, metrics=["accuracy"], rules=Rules(**asked))


def passed(items, effects: Mapping[str, float], seed: int) -> float:
    draw = random.Random(seed)
    return sum(gate(items, simulated_pair(items, draw, effects))["verdict"] == "pass" for _ in range(RUNS)) / RUNS


@pytest.mark.parametrize(("count", "together"), [(20, 1), (100, 1), (100, 5)])
def test_a_model_that_is_no_better_passes_in_at_most_one_side_of_alpha(count: int, together: int):
    assert passed(simulated_items({"knowledge/a": count}, together), {}, seed=count) <= most(0.025)


def test_items_of_one_document_taken_for_independent_would_pass_too_often():
    """The same answers, each item its own cluster: what the clustered error prevents."""
    items = simulated_items({"knowledge/a": 100}, per_cluster=5)
    alone = [item.model_copy(update={"cluster": item.id}) for item in items]
    draw, wrong = random.Random(8), 0
    for _ in range(RUNS):
        wrong += gate(alone, simulated_pair(items, draw, {}))["verdict"] == "pass"
    assert wrong / RUNS > 2 * most(0.025)


@pytest.mark.parametrize("effect", [0.2, 0.1])
def test_the_items_that_are_said_to_be_needed_find_the_change_as_often_as_said(effect: float):
    count = items_needed(effect)
    assert minimum_detectable_effect(count) <= effect < minimum_detectable_effect(count - 1)
    low, high = (stats.binom.ppf(q, RUNS, 0.8) / RUNS for q in (0.001, 0.999))
    assert low <= passed(simulated_items({"knowledge/a": count}), {"knowledge/a": effect}, seed=5) <= high + 0.03


def test_a_quarter_of_the_items_needed_finds_it_seldom():
    assert passed(simulated_items({"knowledge/a": items_needed(0.1) // 4}), {"knowledge/a": 0.1}, seed=6) < 0.4


def no_harm(effect: float, seed: int) -> list[str]:
    """Verdicts of the rule on unchanged leaves, with the items that a margin of 10 points needs."""
    items = simulated_items(dict.fromkeys(LEAVES[:4], -(-items_needed(0.1) // 4)))
    draw, found = random.Random(seed), []
    for _ in range(RUNS):
        pair = simulated_pair(items, draw, dict.fromkeys(LEAVES, effect))
        rules = gate(items, pair, changed=frozenset(), margin=0.1)["rules"]
        found.append(next(rule["verdict"] for rule in rules if rule["name"] == "no harm elsewhere"))
    return found


def test_a_loss_of_the_margin_passes_in_at_most_one_side_of_alpha():
    assert no_harm(-0.1, seed=1).count("pass") / RUNS <= most(0.025)


def test_equal_models_are_seldom_called_harmful_and_mostly_harmless():
    found = no_harm(0.0, seed=2)
    assert found.count("fail") / RUNS <= most(0.05) and found.count("pass") / RUNS > 0.66


def test_nothing_is_called_a_change_in_more_than_five_percent_of_families():
    items = simulated_items(dict.fromkeys(LEAVES, 20))
    draw, called = random.Random(2), 0
    for _ in range(RUNS):
        leaves = compare(simulated_pair(items, draw, {}, discordant=0.5), items)["leaves"]
        called += any(leaf["verdict"] in (IMPROVED, REGRESSED) for leaf in leaves)
    assert called / RUNS <= most(0.05)


def test_a_planted_effect_on_one_leaf_is_found_and_others_are_not_named():
    items = simulated_items(dict.fromkeys(LEAVES, 50))
    draw, found, families = random.Random(4), 0, 0
    for _ in range(60):
        leaves = compare(simulated_pair(items, draw, {LEAVES[0]: 0.3}), items)["leaves"]
        found += leaves[0]["verdict"] == IMPROVED
        families += any(leaf["verdict"] in (IMPROVED, REGRESSED) for leaf in leaves[1:])
    assert found >= 48 and families <= stats.binom.ppf(0.999, 60, 0.05)


def test_the_same_model_twice_has_exactly_no_difference():
    items = simulated_items(dict.fromkeys(LEAVES, 30), per_cluster=3)
    base = simulated_pair(items, random.Random(1), {})["base"]
    result = compare({"base": base, "tuned": base}, items)
    for group in (*result["leaves"], *result["kinds"], result["total"]):
        assert group["deltas"]["tuned"]["value"] == 0.0 and group["deltas"]["tuned"]["p"] == 1.0
        assert group["verdict"] == UNCHANGED and group["gained"] == group["lost"] == []


def test_an_effect_in_the_simulation_is_the_effect_that_was_asked_for():
    items = simulated_items({"knowledge/a": 20_000})
    pair = simulated_pair(items, random.Random(3), {"knowledge/a": -0.07}, discordant=0.3)
    moved = [after.value - before.value for before, after in zip(pair["base"], pair["tuned"], strict=True)]
    assert sum(moved) / len(moved) == pytest.approx(-0.07, abs=0.015)
    assert sum(map(abs, moved)) / len(moved) == pytest.approx(0.3, abs=0.015)
