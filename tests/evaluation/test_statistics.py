"""Every figure against scipy, or against a formula written out by hand."""

import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from ilab.evaluation.statistics import (
    clustered_standard_error,
    holm,
    items_needed,
    mean_interval,
    minimum_detectable_effect,
    observed_variance,
    paired_change,
    paired_difference,
    proportion,
    sign_flip,
    t_quantile,
    t_two_sided,
    wilson,
)

values = st.lists(st.floats(0, 1, allow_nan=False).map(lambda x: round(x, 4)), min_size=2, max_size=40)


def own(numbers: list[float]) -> list[str]:
    return [f"c{n}" for n in range(len(numbers))]


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_equals_scipy(level: float):
    for n in (1, 2, 7, 30, 250):
        for k in {0, 1, n // 3, n - 1, n}:
            ours = wilson(k, n, level)
            theirs = stats.binomtest(k, n).proportion_ci(level, "wilson")
            assert ours.low == pytest.approx(theirs.low, abs=1e-12)
            assert ours.high == pytest.approx(theirs.high, abs=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 5, 23, 119, 5000])
def test_student_t_equals_scipy(freedom: int):
    for t in (0.0, 1e-6, 0.3, 1.0, 1.96, 4.2, 12.0, -2.5):
        assert t_two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-9, abs=1e-300)
    for level in (0.5, 0.9, 0.95, 0.999):
        assert t_quantile(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


@given(values)
def test_single_item_clusters_give_the_ordinary_standard_error_and_t_interval(numbers: list[float]):
    assume(len(set(numbers)) > 1)  # scipy warns about constant data
    ours = mean_interval(numbers, own(numbers))
    error = stats.tstd(numbers) / math.sqrt(len(numbers))
    assert ours.standard_error == pytest.approx(error, abs=1e-9)
    reach = stats.t.ppf(0.975, len(numbers) - 1) * error
    assert ours.high == pytest.approx(stats.tmean(numbers) + reach, abs=1e-8)


def test_clustered_standard_error_is_the_sandwich_formula():
    """inspect_ai's form: outer products of the residuals inside each cluster, times C/(C-1), over n squared."""
    draw = random.Random(3)
    numbers = [draw.random() for _ in range(50)]
    clusters = [f"c{draw.randrange(9)}" for _ in numbers]
    mean, total = sum(numbers) / 50, 0.0
    for one, in_one in zip(numbers, clusters, strict=True):
        for two, in_two in zip(numbers, clusters, strict=True):
            total += (one - mean) * (two - mean) * (in_one == in_two)
    count = len(set(clusters))
    expected = math.sqrt(total * count / (count - 1)) / 50
    assert clustered_standard_error(numbers, clusters) == pytest.approx(expected, rel=1e-12)


@given(values)
def test_doubling_every_item_inside_its_cluster_changes_nothing(numbers: list[float]):
    doubled, clusters = [*numbers, *numbers], own(numbers) * 2
    assert clustered_standard_error(doubled, clusters) == pytest.approx(
        clustered_standard_error(numbers, own(numbers)), abs=1e-12
    )


@given(values, st.randoms(use_true_random=False))
def test_paired_difference_equals_the_paired_t_test_and_ignores_order(numbers: list[float], draw: random.Random):
    other = [round(draw.random(), 3) for _ in numbers]
    clusters = own(numbers)
    assume(len({round(right - left, 9) for left, right in zip(numbers, other, strict=True)}) > 1)
    ours = paired_difference(numbers, other, clusters)
    theirs = stats.ttest_rel(other, numbers)
    low, high = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert ours.low == pytest.approx(max(-1, low), abs=1e-8) and ours.high == pytest.approx(min(1, high), abs=1e-8)
    order = list(range(len(numbers)))
    draw.shuffle(order)
    turned = paired_difference([numbers[i] for i in order], [other[i] for i in order], [clusters[i] for i in order])
    assert turned == ours


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]), st.integers(0, 6)), max_size=30))
def test_interval_and_p_always_agree_and_bounds_hold_the_mean(rows: list[tuple[float, float, int]]):
    ours = paired_difference([r[0] for r in rows], [r[1] for r in rows], [f"c{r[2]}" for r in rows])
    assert 0 <= ours.p <= 1 + 1e-12
    if ours.low is not None and ours.high is not None:
        assert -1 <= ours.low <= ours.mean + 1e-12 and ours.mean - 1e-12 <= ours.high <= 1
        assert (ours.low > 0 or ours.high < 0) == (ours.p < 0.05)
    back = paired_difference([r[1] for r in rows], [r[0] for r in rows], [f"c{r[2]}" for r in rows])
    assert back.p == pytest.approx(ours.p) and (ours.mean is None or back.mean == pytest.approx(-ours.mean))


def test_tiny_inputs_have_no_bounds_and_never_raise():
    nothing = paired_difference([], [], [])
    assert (nothing.n, nothing.mean, nothing.low, nothing.high, nothing.p) == (0, None, None, None, 1.0)
    one = paired_difference([0.0], [1.0], ["c"])
    assert (one.n, one.mean, one.low, one.high, one.p) == (1, 1.0, None, None, 1.0)
    together = paired_difference([0.0, 0.0], [1.0, 1.0], ["c", "c"])
    assert together.low is None and together.p == 1.0
    assert wilson(0, 0).low is None and proportion([], []).mean is None and mean_interval([0.5], ["c"]).low is None
    assert minimum_detectable_effect(0) is None and holm([]) == [] and clustered_standard_error([], []) is None
    with pytest.raises(ValueError, match="must match"):
        paired_difference([0.0], [], ["c"])


@pytest.mark.parametrize("clusters", [2, 5, 6, 40])
def test_unanimous_gains_are_as_sure_as_the_sign_test(clusters: int):
    ours = paired_difference([0.0] * clusters, [1.0] * clusters, own([0.0] * clusters))
    assert ours.p == pytest.approx(stats.binomtest(clusters, clusters).pvalue)
    share = stats.binomtest(clusters, clusters).proportion_ci(0.95, "exact").low
    assert ours.low == pytest.approx(2 * share - 1) and ours.high == 1.0
    assert (ours.low > 0) == (clusters >= 6)


def test_equal_models_differ_by_exactly_nothing():
    ours = paired_difference([0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], own([0.0] * 4))
    assert ours.mean == 0.0 and ours.p == 1.0
    assert ours.low == pytest.approx(-ours.high) and ours.high == pytest.approx(1 - 0.025**0.25)


def test_proportion_is_wilson_for_single_items_and_wider_for_clusters():
    right = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    single, theirs = proportion(right, own(right)), stats.binomtest(5, 8).proportion_ci(0.95, "wilson")
    assert single.low == pytest.approx(theirs.low) and single.high == pytest.approx(theirs.high)
    alike = proportion([1.0] * 4 + [0.0] * 4 + [1.0] * 4, ["a"] * 4 + ["b"] * 4 + ["c"] * 4)
    assert alike.high - alike.low > 0.7
    sure = proportion([1.0] * 12, ["a"] * 4 + ["b"] * 4 + ["c"] * 4)
    assert sure.low == pytest.approx(wilson(3, 3).low) and sure.high == 1.0


def test_holm_on_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_monotone_and_between_the_raw_value_and_bonferroni(p_values: list[float]):
    adjusted = holm(p_values)
    for raw, new in zip(p_values, adjusted, strict=True):
        assert raw <= new <= min(1.0, raw * len(p_values)) + 1e-12 or new == max(adjusted)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_minimum_detectable_effect_matches_the_published_table():
    """20 % of items discordant, 80 % power: .40, .28, .23, .18, .13, .08 at 10 … 250 items."""
    found = [round(minimum_detectable_effect(n), 2) for n in (10, 20, 30, 50, 100, 250)]
    assert found == [0.4, 0.28, 0.23, 0.18, 0.13, 0.08]


def test_minimum_detectable_effect_is_found_with_80_percent_power():
    draw, n, hits = random.Random(11), 200, 0
    effect = minimum_detectable_effect(n)
    for _ in range(400):
        moved = [draw.choices([1.0, 0.0, -1.0], [(0.2 + effect) / 2, 0.8, (0.2 - effect) / 2])[0] for _ in range(n)]
        hits += paired_difference([0.5] * n, [0.5 + move / 2 for move in moved], own(moved)).p < 0.05
    assert 0.74 < hits / 400 < 0.86


flips = st.lists(st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3)), min_size=2, max_size=9)


@settings(max_examples=60, deadline=None)
@given(flips)
def test_sign_flip_equals_scipy_s_exact_permutation_test(moved: list[float]):
    theirs = stats.permutation_test((moved,), math.fsum, permutation_type="samples", n_resamples=math.inf)
    assert sign_flip(moved, own(moved)) == pytest.approx(theirs.pvalue, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_sign_flip_of_right_and_wrong_is_the_exact_mcnemar_test(gained: int, lost: int):
    moved = [1.0] * gained + [-1.0] * lost + [0.0] * 3
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert sign_flip(moved, own(moved)) == pytest.approx(expected, rel=1e-9)


def test_sign_flip_turns_whole_clusters():
    """Three clusters, all better: 2 of 8 sign patterns are as far out, however many items each has."""
    assert sign_flip([1.0] * 12, ["a", "b", "c"] * 4) == 0.25
    assert sign_flip([1.0, -1.0] * 6, ["a", "b", "c", "a", "b", "c"] * 2) == 1.0
    draw = random.Random(1)
    clusters = [f"c{draw.randrange(8)}" for _ in range(40)]
    moved = [draw.choice([-1.0, 0.0, 1.0, 1.0]) for _ in clusters]
    sums = [math.fsum(m for m, c in zip(moved, clusters, strict=True) if c == name) for name in sorted(set(clusters))]
    theirs = stats.permutation_test((sums,), math.fsum, permutation_type="samples", n_resamples=math.inf)
    assert sign_flip(moved, clusters) == pytest.approx(theirs.pvalue, abs=1e-9)


def test_sign_flip_of_many_graded_scores_is_drawn_seeded_and_close_to_t():
    draw = random.Random(2)
    moved = [draw.gauss(0.05, 0.3) for _ in range(150)]
    ours = sign_flip(moved, own(moved), seed=3)
    assert ours == sign_flip(moved[::-1], own(moved)[::-1], seed=3)
    assert ours == pytest.approx(stats.ttest_1samp(moved, 0).pvalue, abs=0.01)
    sure = sign_flip([abs(value) for value in moved], own(moved), seed=3)
    assert sure == 1e-4, "never 0: the observed pattern is one of the 10,000"


def test_paired_change_is_never_surer_than_either_test():
    draw = random.Random(6)
    for _ in range(200):
        moved = [draw.choices([0.0, 1.0, -1.0], [0.7, 0.25, 0.05])[0] for _ in range(draw.randrange(2, 30))]
        base, clusters = [0.0] * len(moved), own(moved)
        ours, t = paired_change(base, moved, clusters), paired_difference(base, moved, clusters)
        assert (ours.mean, ours.low, ours.high) == (t.mean, t.low, t.high)
        assert ours.p >= t.p and (ours.p > 0.05 or ours.p >= sign_flip(moved, clusters))
        assert ours.p > 0.05 or ours.low > 0 or ours.high < 0


@settings(max_examples=60, deadline=None)
@given(st.floats(0.005, 1), st.floats(0.01, 1), st.floats(0.5, 0.99), st.floats(0.8, 0.99))
def test_items_needed_is_the_textbook_formula(effect: float, variance: float, power: float, level: float):
    """As statsmodels' NormalIndPower solves it for one sample: the effect, in standard errors, is z(a/2) + z(power)."""
    count = items_needed(effect, variance, power=power, level=level, fewest=1)

    def reached(n: int) -> float:
        return stats.norm.sf(stats.norm.isf((1 - level) / 2) - effect * math.sqrt(n / variance))

    assert reached(count) >= power - 1e-6
    assert count == 1 or reached(count - 1) <= power + 1e-6


def test_items_needed_on_known_figures():
    assert [items_needed(effect) for effect in (0.4, 0.1, 0.05, 0.01)] == [10, 157, 628, 15_698]
    assert items_needed(1.0) == 6, "with fewer no outcome is significant"
    with pytest.raises(ValueError, match="effect of 0"):
        items_needed(0)


def test_clusters_need_as_many_more_items_as_the_design_effect_says():
    moved = [1.0, 0.0, 0.0, -1.0, 1.0] * 20
    alone = observed_variance(paired_difference([0.0] * 100, moved, own(moved)))
    fourfold, clusters = [m for m in moved for _ in range(4)], [f"c{n // 4}" for n in range(400)]
    together = observed_variance(paired_difference([0.0] * 400, fourfold, clusters))
    assert alone == pytest.approx(stats.tvar(moved)) and together == pytest.approx(4 * alone)
    assert observed_variance(paired_difference([0.0] * 8, [0.0] * 8, [f"c{n // 4}" for n in range(8)])) == 0.2 * 4
