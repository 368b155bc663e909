"""Several models on the same items, as plain JSON: what the table, the gate and the report read.

    comparison = {
      "models": ["base", "phase 1", "phase 2"],    first = reference, last = candidate
      "reference", "candidate", "level", "baselines": [names],
      "leaves":  [group, …]                        by path
      "kinds":   [group, …]                        knowledge, skills (those that have items)
      "total":   group                             all items pooled (micro average)
      "macro":   {model: mean of the leaves' values}
    }
    group = {
      "name", "kind", "items", "n", "clusters",
      "models":    {model: {"value", "low", "high", "unscored": {reason: count}}},
      "deltas":    {later model: {"value", "low", "high", "p", "p_adjusted"}},     against the reference
      "gained", "lost": item ids right for the candidate alone, and for the reference alone
      "detectable": smallest true change found with 80 % power,   "verdict",
      "baselines": {name: accuracy or null}
    }

Every figure of a group stands on the same ``n`` items: those that *all* models have a score on. The others are
counted per model with their reason. Leaves are adjusted together (Holm), each model for itself; pooled groups are
planned and stand as they are. A leaf ``improved`` or ``regressed`` only if its adjusted p says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ilab.data import Item, Score
from ilab.evaluation.statistics import (
    LEVEL,
    Difference,
    holm,
    mean_interval,
    minimum_detectable_effect,
    paired_difference,
    proportion,
)

IMPROVED = "improved"
REGRESSED = "regressed"
UNCHANGED = "no detectable change"
INCONCLUSIVE = "inconclusive"

# With fewer clusters than this no outcome at all is significant: even if every one moved the same way, the sign
# test gives 2^(1-C) > 0.05.
FEWEST_CLUSTERS = 6

RIGHT = 0.5  # a graded score above this counts as right in the lists of gained and lost items

Baselines = Mapping[str, Mapping[str, float | None]]


def compare(
    models: Mapping[str, Sequence[Score]],
    items: Sequence[Item],
    baselines: Baselines | None = None,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Compare the ``models`` (name to scores, in order) on ``items``; see the module docstring for the result.

    ``baselines`` maps a baseline's name to {leaf: accuracy}. Scores of other items are left out. Raises ValueError
    without a model.
    """
    if not models:
        raise ValueError("nothing to compare: no model was given")
    table = {name: {score.item: score for score in scores} for name, scores in models.items()}
    known = baselines or {}
    by_leaf: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: item.id):
        by_leaf.setdefault(item.leaf, []).append(item)
    leaves = [_group(leaf, by_leaf[leaf], table, known, level) for leaf in sorted(by_leaf)]
    _adjust(leaves, list(table)[1:])
    kinds = [
        _group(kind, [item for item in items if kind_of(item.leaf) == kind], table, known, level)
        for kind in ("knowledge", "skills")
        if any(kind_of(leaf) == kind for leaf in by_leaf)
    ]
    total = _group("all", items, table, known, level)
    names = list(table)
    for group in (*leaves, *kinds, total):
        _judge(group, names, level)
    return {
        "models": names,
        "reference": names[0],
        "candidate": names[-1],
        "level": level,
        "baselines": sorted(known),
        "leaves": leaves,
        "kinds": kinds,
        "total": total,
        "macro": {name: _mean([leaf["models"][name]["value"] for leaf in leaves]) for name in names},
    }


def kind_of(leaf: str) -> str:
    """``knowledge`` for leaves below ``knowledge/``, else ``skills``."""
    return "knowledge" if leaf.startswith("knowledge/") else "skills"


def unscored(score: Score | None) -> str:
    """Why a score cannot be used, or an empty string if it can."""
    if score is None:
        return "no score"
    if score.value is None:
        return score.note or "no value"
    return "" if math.isfinite(score.value) else "not a number"


def _group(
    name: str,
    items: Sequence[Item],
    table: Mapping[str, Mapping[str, Score]],
    baselines: Baselines,
    level: float,
) -> dict[str, Any]:
    """One group's figures, verdict apart."""
    ordered = sorted(items, key=lambda item: item.id)
    shared = [item for item in ordered if not any(unscored(scores.get(item.id)) for scores in table.values())]
    clusters = [item.cluster for item in shared]
    values = {model: [scores[item.id].value or 0.0 for item in shared] for model, scores in table.items()}
    first, *later = table
    candidate = (later or [first])[-1]
    moved = list(zip(shared, values[first], values[candidate], strict=True))
    differences = {model: paired_difference(values[first], values[model], clusters, level) for model in later}
    error = differences[candidate].standard_error if later else None
    return {
        "name": name,
        "kind": name if name in ("knowledge", "skills", "all") else kind_of(name),
        "items": len(items),
        "n": len(shared),
        "clusters": len(set(clusters)),
        "models": {
            model: {
                **_value(values[model], clusters, level),
                "unscored": dict(
                    sorted(Counter(reason for item in ordered if (reason := unscored(scores.get(item.id)))).items())
                ),
            }
            for model, scores in table.items()
        },
        "deltas": {model: _delta(difference) for model, difference in differences.items()},
        "gained": [item.id for item, before, after in moved if after > RIGHT >= before],
        "lost": [item.id for item, before, after in moved if before > RIGHT >= after],
        "detectable": _rounded(minimum_detectable_effect(len(set(clusters)), error, level=level)),
        "baselines": {key: _pooled(accuracy, items) for key, accuracy in sorted(baselines.items())},
    }


def _value(values: Sequence[float], clusters: Sequence[str], level: float) -> dict[str, float | None]:
    """Mean with bounds: Wilson's for right/wrong scores, Student's t for graded ones."""
    binary = all(value in (0.0, 1.0) for value in values)
    mean = proportion(values, clusters, level) if binary else mean_interval(values, clusters, level)
    return {
        "value": _rounded(mean.mean),
        "low": None if mean.low is None else _rounded(max(0.0, mean.low)),
        "high": None if mean.high is None else _rounded(min(1.0, mean.high)),
    }


def _delta(difference: Difference) -> dict[str, float | None]:
    p = float(f"{difference.p:.4g}")
    return {
        "value": _rounded(difference.mean),
        "low": _rounded(difference.low),
        "high": _rounded(difference.high),
        "p": p,
        "p_adjusted": p,
    }


def _adjust(leaves: Sequence[dict[str, Any]], models: Sequence[str]) -> None:
    """Holm over those leaves that could show something at all: too few items are no test."""
    tested = [leaf for leaf in leaves if leaf["clusters"] >= FEWEST_CLUSTERS]
    for model in models:
        adjusted = holm([leaf["deltas"][model]["p"] for leaf in tested])
        for leaf, p in zip(tested, adjusted, strict=True):
            leaf["deltas"][model]["p_adjusted"] = float(f"{p:.4g}")


def _judge(group: dict[str, Any], names: Sequence[str], level: float) -> None:
    """The verdict on the candidate against the reference."""
    delta = group["deltas"].get(names[-1])
    if delta is None or group["clusters"] < FEWEST_CLUSTERS:
        group["verdict"] = INCONCLUSIVE
    elif delta["p_adjusted"] <= 1 - level and delta["value"]:
        group["verdict"] = IMPROVED if delta["value"] > 0 else REGRESSED
    else:
        group["verdict"] = UNCHANGED


def _pooled(accuracy: Mapping[str, float | None], items: Sequence[Item]) -> float | None:
    """A baseline over several leaves: each leaf counts by its multiple-choice items."""
    counts = Counter(item.leaf for item in items if item.kind == "mcq")
    known = [(value, counts[leaf]) for leaf, value in accuracy.items() if value is not None and counts[leaf]]
    total = sum(count for _, count in known)
    return _rounded(math.fsum(value * count for value, count in known) / total) if total else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(math.fsum(known) / len(known)) if known else None


def _rounded(value: float | None) -> float | None:
    """Six decimals: the last bits of ``exp`` and ``lgamma`` differ between machines, reports should not."""
    return None if value is None else round(value, 6) + 0.0  # + 0.0 turns -0.0 into 0.0
