"""Which checkpoint a training run hands on, and which leaves are still weak.

The classic one-standard-error rule (Breiman et al. 1984, section 3.4.3): the earliest checkpoint whose mean dev
score is within one standard error of the best mean. The standard error is the clustered one of the best
checkpoint's mean. Noise between checkpoints is larger than most differences; the earliest good one has
over-fitted least. Without dev items the lowest held-out loss decides; without that, the last checkpoint is taken
and the result says so. Only dev items may come in here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ilab.data import Score
from ilab.errors import InputError
from ilab.evaluation.statistics import Mean, mean_interval

BY_SCORE = "earliest within one standard error of the best dev score"
BY_LOSS = "lowest held-out loss"
UNSELECTED = "not selected: no validation data"


def choose(index: Sequence[Mapping[str, Any]], scores: Mapping[str, Sequence[Score]]) -> dict[str, Any]:
    """Choose among ``index`` (earliest first: name, epoch, step, loss) by the dev ``scores`` of each name.

    Returns plain JSON: ``name``, ``rule``, ``within`` (the lowest mean that would still have done, or None) and
    ``table``: per checkpoint name, epoch, step, loss, score, standard_error, items, chosen. Raises InputError
    when no checkpoint was saved.
    """
    if not index:
        raise InputError("the training run saved no checkpoint", hint="train for at least one epoch")
    means = _means([entry["name"] for entry in index], scores)
    losses = {entry["name"]: _finite(entry.get("loss")) for entry in index}
    name, rule, within = _decide([entry["name"] for entry in index], means, losses)
    table = []
    for entry in index:
        mean = means.get(entry["name"])
        table.append(
            {
                "name": entry["name"],
                "epoch": entry.get("epoch"),
                "step": entry.get("step"),
                "loss": losses[entry["name"]],
                "score": _rounded(mean.mean if mean else None),
                "standard_error": _rounded(mean.standard_error if mean else None),
                "items": mean.n if mean else 0,
                "chosen": entry["name"] == name,
            }
        )
    return {"name": name, "rule": rule, "within": _rounded(within), "table": table}


def leaf_weights(scores: Iterable[Score], leaves: Iterable[str] = (), floor: float = 1.0) -> dict[str, float]:
    """How much more of a leaf the next mix takes: ``floor`` + (1 - mean dev score), rounded to two decimals.

    A leaf at 0 gets ``floor`` + 1, a leaf that is all right gets ``floor``; so does one of ``leaves`` on which
    nothing was measured.
    """
    values: dict[str, list[float]] = {leaf: [] for leaf in leaves}
    for score in scores:
        measured = values.setdefault(score.leaf, [])
        value = _finite(score.value)
        if value is not None:
            measured.append(value)
    return {
        leaf: round(floor + (1 - math.fsum(found) / len(found) if found else 0.0), 2)
        for leaf, found in sorted(values.items())
    }


def _means(names: Sequence[str], scores: Mapping[str, Sequence[Score]]) -> dict[str, Mean]:
    """Mean dev score per checkpoint, over the items that every measured checkpoint has a score on."""
    values: dict[str, dict[str, float]] = {}
    clusters: dict[str, str] = {}
    for name in names:
        for score in scores.get(name, ()):
            value = _finite(score.value)
            if value is not None:
                values.setdefault(name, {})[score.item] = value
                clusters[score.item] = score.cluster
    shared = sorted(set.intersection(*(set(found) for found in values.values()))) if values else []
    if not shared:
        return {}
    groups = [clusters[item] for item in shared]
    return {name: mean_interval([found[item] for item in shared], groups) for name, found in values.items()}


def _decide(
    names: Sequence[str], means: Mapping[str, Mean], losses: Mapping[str, float | None]
) -> tuple[str, str, float | None]:
    measured = [name for name in names if name in means]
    if measured:
        best = means[max(measured, key=lambda name: means[name].mean or 0.0)]  # max() takes the first of equals
        within = (best.mean or 0.0) - (best.standard_error or 0.0)
        return next(name for name in measured if (means[name].mean or 0.0) >= within - 1e-12), BY_SCORE, within
    known = {name: loss for name in names if (loss := losses[name]) is not None}
    if known:
        return min(known, key=lambda name: known[name]), BY_LOSS, None
    return names[-1], UNSELECTED, None


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
