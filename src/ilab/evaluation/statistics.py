"""How sure a score is: intervals, paired differences and corrections, with the standard library alone.

Items that share a chunk or a document are not independent, so every standard error here is clustered. Two models
are always compared on the same items, by the mean of the per-item differences (Miller 2024, arXiv 2411.00640):
that cancels how hard an item is. Tiny inputs never raise: what cannot be known is ``None``.

Sums are ``math.fsum``, so no result depends on the order of the items.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import getitem
from statistics import NormalDist

LEVEL = 0.95
DISCORDANT = 0.2  # share of items on which two models are assumed to differ, where nothing was seen to differ
POWER = 0.8  # how often a true effect of the stated size shall be found
FLIPS = 9999  # random sign patterns where they cannot all be counted
_ZERO = 1e-12  # a standard error below this is rounding
_GRAIN = 1e-9  # sums of differences are whole numbers of this, so that equal ones are equal
_TERMS = 300_000  # of the exact count, at most


@dataclass(frozen=True)
class Interval:
    """Bounds, both ``None`` where there are too few observations for any."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Mean:
    """A mean over ``n`` values in ``clusters`` independent groups, with its interval."""

    n: int
    clusters: int
    mean: float | None
    standard_error: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Mean of (other - base) over the same items; ``p`` is two-sided, 1.0 where nothing can be said."""

    n: int
    clusters: int
    mean: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    p: float


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927).

    (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z·se it is no point at 0 or at ``n``
    successes. ``n`` may be an effective sample size, so it need not be whole.
    """
    if n <= 0:
        return Interval(None, None)
    z, p = NormalDist().inv_cdf(0.5 + level / 2), successes / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes <= 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if successes >= n else min(1.0, (centre + spread) / scale)
    return Interval(low, high)


def proportion(values: Sequence[float], clusters: Sequence[Hashable], level: float = LEVEL) -> Mean:
    """A share of right answers (values 0 or 1) with Wilson's interval at Kish's effective sample size.

    The effective size is n / max(1, design effect), the design effect being the clustered variance over the
    binomial one (Kish 1965; for intervals: Kott and Liu 2009). Where all values agree the effect is unknown and
    each cluster counts once. With one item per cluster this is Wilson's interval as it stands.
    """
    n, groups = len(values), len(set(clusters))
    if n == 0:
        return Mean(0, 0, None, None, None, None)
    p, error = math.fsum(values) / n, clustered_standard_error(values, clusters)
    simple = p * (1 - p) / n  # the variance if all items were independent
    unanimous = simple <= 0 or error is None
    effective = float(groups) if unanimous else n / max(1.0, (error or 0.0) ** 2 * (n - 1) / n / simple)
    bounds = wilson(p * effective, effective, level)
    return Mean(n, groups, p, error, bounds.low, bounds.high)


def clustered_standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Cluster-robust standard error of the mean (CR0 times C/(C-1), as inspect_ai computes it).

    sqrt(C/(C-1) · Σ_c (Σ_{i in c} (x_i - mean))²) / n. With one value per cluster it is the familiar s/√n.
    ``None`` with fewer than two clusters.
    """
    n, sums = len(values), _cluster_sums(values, clusters)
    if len(sums) < 2:
        return None
    squares = math.fsum(total * total for total in sums)
    return math.sqrt(squares * len(sums) / (len(sums) - 1)) / n


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable], level: float = LEVEL) -> Mean:
    """Mean ± t(C-1) · clustered standard error: for graded scores. No bounds with fewer than two clusters."""
    n, groups = len(values), len(set(clusters))
    if n == 0:
        return Mean(0, 0, None, None, None, None)
    mean, error = math.fsum(values) / n, clustered_standard_error(values, clusters)
    if error is None:
        return Mean(n, groups, mean, None, None, None)
    reach = t_quantile(level, groups - 1) * error
    return Mean(n, groups, mean, error, mean - reach, mean + reach)


def paired_difference(
    base: Sequence[float], other: Sequence[float], clusters: Sequence[Hashable], level: float = LEVEL
) -> Difference:
    """Mean of ``other - base`` over the same items (scores in 0..1), its t interval and two-sided p.

    The standard error is that of the cluster sums, with C-1 degrees of freedom; bounds are kept inside [-1, 1].
    Where all clusters moved alike there is no spread to estimate, and t would claim certainty. The bounds are
    exact then: of C clusters that all gained, the chance of a gain is at least q = (alpha/2)^(1/C) (Clopper and
    Pearson 1934), so the mean is at least 2q - 1 of what was seen, and p = 2^(1-C) is that of the sign test, with
    which the bound agrees; of C clusters that all stayed, at most 1 - q moves either way.
    """
    if not len(base) == len(other) == len(clusters):
        raise ValueError(f"paired scores must match: {len(base)}, {len(other)}, {len(clusters)} given")
    moved = [right - left for left, right in zip(base, other, strict=True)]
    n, groups = len(moved), len(set(clusters))
    if n == 0:
        return Difference(0, 0, None, None, None, None, 1.0)
    mean, error = math.fsum(moved) / n, clustered_standard_error(moved, clusters)
    if error is None:
        return Difference(n, groups, mean, None, None, None, 1.0)
    if error <= _ZERO:
        bounds, p = _unanimous(mean, groups, level)
        return Difference(n, groups, mean, 0.0, bounds.low, bounds.high, p)
    reach = t_quantile(level, groups - 1) * error
    p = t_two_sided(mean / error, groups - 1)
    return Difference(n, groups, mean, error, max(-1.0, mean - reach), min(1.0, mean + reach), p)


def paired_change(
    base: Sequence[float], other: Sequence[float], clusters: Sequence[Hashable], level: float = LEVEL, seed: int = 0
) -> Difference:
    """:func:`paired_difference`, its p checked by :func:`sign_flip`: what verdicts are made of.

    With few items that differ, t is too sure: of 20 items 4 gained and none lost has p = 0.04 by t, exactly 0.125.
    So where t's p is at most 1 - ``level``, the larger of the two stands; a change needs both.
    """
    difference = paired_difference(base, other, clusters, level)
    if difference.p > 1 - level:  # no verdict either way: the exact test is not worth its time
        return difference
    moved = [right - left for left, right in zip(base, other, strict=True)]
    return replace(difference, p=max(difference.p, sign_flip(moved, clusters, seed=seed)))


def sign_flip(differences: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> float:
    """Two-sided p of the mean paired difference under random signs of the clusters (Fisher 1935; Ernst 2004, s. 3).

    If the two models are exchangeable, each cluster's sum is as likely with the other sign. Exact while the sums take
    few values, which right/wrong answers always do: with one item per cluster it is the exact McNemar test. Otherwise
    from ``FLIPS`` seeded draws, the observed one counted in (Phipson and Smyth 2010). 1.0 where nothing moved.
    """
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(differences, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    sums = sorted(total for group in groups.values() if (total := round(math.fsum(group) / _GRAIN)))
    if not sums:
        return 1.0
    observed = abs(sum(sums))
    spread = _flipped(Counter(abs(total) for total in sums))
    if spread is not None:
        return min(1.0, math.fsum(chance for total, chance in spread.items() if abs(total) >= observed))
    hits = sum(abs(total) >= observed for total in _drawn_flips(sums, seed))
    return (1 + hits) / (1 + FLIPS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979): reject where the result is at most alpha, family-wise."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def minimum_detectable_effect(
    clusters: int, standard_error: float | None = None, *, power: float = POWER, level: float = LEVEL
) -> float | None:
    """The smallest true paired difference that such a comparison would find with probability ``power``.

    (z(1-alpha/2) + z(power)) · se: the normal approximation (Miller 2024, section 5). Without an observed standard
    error above 0, se = sqrt(0.2/C): a fifth of the items assumed to differ. At most 1; ``None`` without items.
    """
    if clusters <= 0:
        return None
    error = standard_error if standard_error and standard_error > _ZERO else math.sqrt(DISCORDANT / clusters)
    return min(1.0, _distance(power, level) * error)


def items_needed(
    effect: float, variance: float = DISCORDANT, *, power: float = POWER, level: float = LEVEL, fewest: int = 6
) -> int:
    """How many items find a true paired difference of ``effect`` (0 to 1) with probability ``power``.

    ceil(variance · (z(1-alpha/2) + z(power))² / effect²), the inverse of :func:`minimum_detectable_effect`, and at
    least ``fewest``. ``variance`` is that of one item's difference, 0.2 where a fifth of the items is assumed to
    differ; with clusters pass n · se², which holds the design effect. The same number of items keeps the lower bound
    of two equal models above -``effect`` with that probability. Raises ValueError unless ``effect`` is above 0.
    """
    if not effect > 0:
        raise ValueError(f"no number of items shows an effect of {effect}")
    return max(fewest, math.ceil(variance * (_distance(power, level) / effect) ** 2 - 1e-9))


def observed_variance(difference: Difference) -> float:
    """Variance of one item's difference, n · se² (so with the design effect); the assumed one where none was seen."""
    error = difference.standard_error
    if not error or error <= _ZERO:
        return DISCORDANT * difference.n / difference.clusters if difference.clusters else DISCORDANT
    return difference.n * error * error


def t_two_sided(t: float, freedom: float) -> float:
    """P(abs(T) >= abs(t)) for Student's t: I_x(v/2, 1/2) at x = v/(v + t²) (Abramowitz and Stegun 26.7.1)."""
    return _incomplete_beta(freedom / 2, 0.5, freedom, t * t)


@lru_cache(maxsize=1024)
def t_quantile(level: float, freedom: float) -> float:
    """The t with P(abs(T) <= t) = ``level``, by bisection."""
    tail, low, high = 1 - level, 0.0, 1.0
    while t_two_sided(high, freedom) > tail:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_two_sided(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def _distance(power: float, level: float) -> float:
    """In standard errors: how far from 0 an effect must lie to be found with probability ``power``."""
    normal = NormalDist()
    return normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)


def _flipped(sizes: Mapping[int, int]) -> dict[int, float] | None:
    """Sum to probability, if each of ``count`` sums of a ``size`` has either sign at even odds; ``None``: too many."""
    if _terms(sizes) > _TERMS:
        return None
    spread = {0: 1.0}
    for size, count in sorted(sizes.items()):
        ways, chances = 1, []
        for positive in range(count + 1):
            chances.append((size * (2 * positive - count), ways / (1 << count)))
            ways = ways * (count - positive) // (positive + 1)
        further: dict[int, float] = {}
        for total, chance in spread.items():
            for shift, share in chances:
                further[total + shift] = further.get(total + shift, 0.0) + chance * share
        spread = further
    return spread


def _terms(sizes: Mapping[int, int]) -> int:
    """At most so many terms has the exact count: sums so far times ways of the next size, over all sizes."""
    grain, sums, reach, terms = math.gcd(*sizes), 1, 0, 0
    for size, count in sorted(sizes.items()):
        terms += sums * (count + 1)
        reach += size * count
        sums = min(sums * (count + 1), reach // grain + 1)
    return terms


def _drawn_flips(sums: Sequence[int], seed: int) -> Iterator[int]:
    """``FLIPS`` sums with random signs: one random byte sets the signs of eight clusters at once."""
    tables = []
    for start in range(0, len(sums), 8):
        eight = sums[start : start + 8]
        tables.append([sum(-s if signs >> bit & 1 else s for bit, s in enumerate(eight)) for signs in range(256)])
    draw = random.Random(seed)
    for _ in range(FLIPS):
        yield sum(map(getitem, tables, draw.randbytes(len(tables))))


def _cluster_sums(values: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    """Per cluster, the sum of deviations from the overall mean."""
    if not values:
        return []
    mean = math.fsum(values) / len(values)
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value - mean)
    return [math.fsum(group) for group in groups.values()]


def _unanimous(mean: float, clusters: int, level: float) -> tuple[Interval, float]:
    """Bounds and p where every cluster moved by ``mean``; see :func:`paired_difference`."""
    q = ((1 - level) / 2) ** (1 / clusters)
    if abs(mean) <= _ZERO:
        return Interval(q - 1, 1 - q), 1.0
    inner = mean * (2 * q - 1)
    return Interval(min(inner, mean), max(inner, mean)), 2.0 ** (1 - clusters)


def _incomplete_beta(a: float, b: float, left: float, right: float) -> float:
    """Regularised incomplete beta I_x(a, b) at x = left/(left + right), given in two parts to keep 1 - x exact."""
    if right <= 0:
        return 1.0
    x, y = left / (left + right), right / (left + right)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log(y)) if x > 0 else 0.0
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, y) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta (A&S 26.5.8) by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d or tiny)
    value = d
    for m in range(1, 100_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + step * d) or tiny)
            c = (1 + step / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
