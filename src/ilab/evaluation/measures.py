"""What the gate's score is made of: a few metrics, each in 0..1, and their mean.

    accuracy     share of right answers over ``mcq`` and ``exact`` items
    f1           mean over all answerable items: token F1 of the answer against the gold for ``exact`` and ``free``;
                 right or wrong for ``mcq`` (an option is chosen, not written)
    judge        mean of the judge's marks, over the items that it marked
    declined     share of the unanswerable items of which the model says that it does not know

A metric that no item has (no judge, no unanswerable question) is left out of the mean and named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ilab.data import Item, Score
from ilab.errors import InputError
from ilab.evaluation.answers import token_f1
from ilab.evaluation.compare import unscored
from ilab.evaluation.statistics import Mean, mean_interval, proportion

JUDGE = "judge"
CALIBRATE = "-p eval_judge_marks=FILE, answers that people marked"  # what calibrates a judge


@dataclass(frozen=True)
class Stated:
    """The score with bounds; ``n`` items at most under one metric; ``missing`` are the metrics without any item.

    The bounds are the means of the metrics' bounds, which is exact for one metric and too wide for several.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    metrics: Mapping[str, Mean]
    variance: float

    @property
    def missing(self) -> list[str]:
        return [name for name, value in self.metrics.items() if value.mean is None]


def state(metrics: Sequence[str], scores: Mapping[str, Score], items: Sequence[Item], level: float) -> Stated:
    """The mean of the ``metrics`` over one model's ``scores`` (by item id) on ``items``.

    Raises InputError for an unknown metric or none.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise InputError(
            f"unknown evaluation metric {unknown[0]!r}" if unknown else "no evaluation metric is named",
            hint=f"set eval_metrics to one or more of: {', '.join(METRICS)}",
        )
    found = {name: _mean(name, scores, items, level) for name in dict.fromkeys(metrics)}
    known = [value for value in found.values() if value.mean is not None]
    errors = [value.n * (value.standard_error or 0.0) ** 2 for value in known]
    return Stated(
        _average([value.mean for value in known]),
        _average([value.low for value in known]),
        _average([value.high for value in known]),
        max((value.n for value in known), default=0),
        found,
        max(errors, default=0.0),
    )


def judged(models: Iterable[Mapping[str, Score]]) -> frozenset[str]:
    """The items whose score is a judge's mark for some model: written answers. A mark beside a choice is none."""
    return frozenset(
        item for scores in models for item, score in scores.items() if score.kind == "free" and JUDGE in score.metrics
    )


def _accuracy(item: Item, score: Score) -> float | None:
    return None if item.kind == "free" or item.unanswerable else score.value


def _f1(item: Item, score: Score) -> float | None:
    if item.unanswerable:
        return None
    return score.value if item.kind == "mcq" else token_f1(score.answer or "", item.gold)


def _judge(item: Item, score: Score) -> float | None:
    return score.metrics.get(JUDGE)


def _declined(item: Item, score: Score) -> float | None:
    return score.value if item.unanswerable else None


METRICS: Mapping[str, Callable[[Item, Score], float | None]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    JUDGE: _judge,
    "declined": _declined,
}


def _mean(name: str, scores: Mapping[str, Score], items: Sequence[Item], level: float) -> Mean:
    """One metric with its interval: Wilson's for right/wrong values, Student's t for graded ones, inside 0..1."""
    values, clusters = [], []
    for item in items:
        score = scores.get(item.id)
        value = None if score is None or unscored(score) else METRICS[name](item, score)
        if value is not None and math.isfinite(value):
            values.append(value)
            clusters.append(item.cluster)
    binary = all(value in (0.0, 1.0) for value in values)
    found = proportion(values, clusters, level) if binary else mean_interval(values, clusters, level)
    low = None if found.low is None else round(max(0.0, found.low), 6)
    high = None if found.high is None else round(min(1.0, found.high), 6)
    mean = None if found.mean is None else round(found.mean, 6)
    return Mean(found.n, found.clusters, mean, found.standard_error, low, high)


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(math.fsum(known) / len(known), 6) if known and len(known) == len(values) else None
