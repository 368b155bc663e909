"""Several models on the same items, as plain JSON: what the table, the gate and the report read.

    comparison = {
      "models": ["base", "previous", "phase 1", "phase 2"],   in the order given; first = reference, last = candidate
      "reference", "candidate", "level", "baselines": [names],
      "previous":  "previous", or null             the release that is to be replaced, if it was measured
      "leaves":    [group, …]                      the taxonomy's own, by path
      "kinds":     [group, …]                      knowledge, skills (those that have items)
      "total":     group                           all items of the taxonomy pooled (micro average)
      "macro":     {model: mean of the leaves' values}
      "general":   {…group, "subjects": [group, …]} or null     the leaves ``general/<subject>``, apart from all above
    }
    group = {
      "name", "kind", "items", "n", "clusters", "dropped": items - n,
      "models":    {model: {"value", "low", "high", "unscored": {reason: count}}},
      "deltas":    {later model: {"value", "low", "high", "p", "p_adjusted"}},     against the reference
      "gained", "lost": item ids right for the candidate alone, and for the reference alone
      "base_known": how many items the reference had right,
      "gap_closed": (candidate - reference) / (1 - reference): the share of what was to be learnt, or null
      "detectable": smallest true change found with 80 % power,   "verdict",
      "needed":    {"change", "items"}: so many items would show a change that these cannot
      "baselines": {name: accuracy or null},
      "metrics":   {name of Score.metrics: {model: mean over the items on which all models have it}}
      "declined":  {"items", "n", "models": {model: {"value", "low", "high", "unscored"}}} or null
      "since_previous": {"delta": …, "verdict", "gained", "lost"}     the candidate; only where there is a previous
    }

Every figure of a group stands on the same ``n`` items: those that *all* models have a score on. The others are
counted per model with their reason. Unanswerable items are in no figure but ``declined``: does a model say that it
does not know? Leaves are adjusted together (Holm), each model for itself; pooled groups are planned and stand as they
are. A leaf ``improved`` or ``regressed`` only if its adjusted p says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ilab.data import Item, Score, seed_from
from ilab.evaluation.statistics import (
    LEVEL,
    Difference,
    holm,
    items_needed,
    mean_interval,
    minimum_detectable_effect,
    observed_variance,
    paired_change,
    proportion,
)

PREVIOUS = "previous"  # the name under which the release to be replaced is given

OWN, GENERAL = ("knowledge", "skills"), "general"  # the kinds of the taxonomy's leaves, and what stands beside it

IMPROVED = "improved"
REGRESSED = "regressed"
UNCHANGED = "no detectable change"
INCONCLUSIVE = "inconclusive"

# With fewer clusters than this no outcome at all is significant: even if every one moved the same way, the sign
# test gives 2^(1-C) > 0.05.
FEWEST_CLUSTERS = 6

RIGHT = 0.5  # a graded score above this counts as right in the lists of gained and lost items

STEPS = (0.1, 0.05, 0.02, 0.01)  # changes that people ask for: the first that the items cannot show is named

Baselines = Mapping[str, Mapping[str, float | None]]
Table = Mapping[str, Mapping[str, Score]]  # model to item id to score


def compare(
    models: Mapping[str, Sequence[Score]],
    items: Sequence[Item],
    baselines: Baselines | None = None,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Compare the ``models`` (name to scores, in order) on ``items``; see the module docstring for the result.

    A model named ``previous`` is the release to be replaced, wherever it stands: never reference, never candidate,
    unless it is alone. ``baselines`` maps a baseline's name to {leaf: accuracy}. Scores of other items are left out.
    Raises ValueError without a model.
    """
    if not models:
        raise ValueError("nothing to compare: no model was given")
    names = _ordered(list(models))
    table = {name: {score.item: score for score in models[name]} for name in names}
    known = baselines or {}
    by_leaf: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: item.id):
        by_leaf.setdefault(item.leaf, []).append(item)

    def family(paths: Sequence[str]) -> list[dict[str, Any]]:
        groups = [_group(leaf, by_leaf[leaf], table, known, level) for leaf in paths]
        _adjust(groups)
        return groups

    def pool(name: str, kinds: Sequence[str]) -> dict[str, Any]:
        return _group(name, [item for item in items if kind_of(item.leaf) in kinds], table, known, level)

    leaves = family([leaf for leaf in sorted(by_leaf) if kind_of(leaf) != GENERAL])
    subjects = family([leaf for leaf in sorted(by_leaf) if kind_of(leaf) == GENERAL])
    kinds = [pool(kind, [kind]) for kind in OWN if any(leaf["kind"] == kind for leaf in leaves)]
    total = pool("all", OWN)
    general = {**pool(GENERAL, [GENERAL]), "subjects": subjects} if subjects else None
    for group in (*leaves, *subjects, *kinds, total, *([general] if general else [])):
        _judge(group, names[-1], level)
    return {
        "models": names,
        "reference": names[0],
        "candidate": names[-1],
        "previous": PREVIOUS if PREVIOUS in names[1:-1] else None,
        "level": level,
        "baselines": sorted(known),
        "leaves": leaves,
        "kinds": kinds,
        "total": total,
        "macro": {name: _mean([leaf["models"][name]["value"] for leaf in leaves]) for name in names},
        "general": general,
    }


def kind_of(leaf: str) -> str:
    """``knowledge`` and ``general`` for what is below ``knowledge/`` and ``general/``, else ``skills``."""
    top = leaf.split("/", 1)[0]
    return top if top in ("knowledge", GENERAL) else "skills"


def unscored(score: Score | None) -> str:
    """Why a score cannot be used, or an empty string if it can."""
    if score is None:
        return "no score"
    if score.value is None:
        return score.note or "no value"
    return "" if math.isfinite(score.value) else "not a number"


def change_on(
    name: str, items: Sequence[Item], before: Mapping[str, Score], after: Mapping[str, Score], level: float = LEVEL
) -> Difference:
    """The paired change between two models on those ``items`` that both have a score on. ``name`` seeds its test."""
    shared = _shared(items, {"before": before, "after": after})
    values = [[scores[item.id].value or 0.0 for item in shared] for scores in (before, after)]
    return paired_change(values[0], values[1], [item.cluster for item in shared], level, seed_from(name, 0))


def needed(n: int, variance: float, level: float = LEVEL) -> dict[str, Any]:
    """The largest change of ``STEPS`` that ``n`` items cannot show, and how many items it takes."""
    counts = {change: items_needed(change, variance, level=level, fewest=FEWEST_CLUSTERS) for change in STEPS}
    change = next((change for change, count in counts.items() if count > n), STEPS[-1])
    return {"change": change, "items": counts[change]}


def _ordered(names: Sequence[str]) -> list[str]:
    """The names with ``previous`` neither first nor last, where there are others enough."""
    others = [name for name in names if name != PREVIOUS]
    if PREVIOUS not in names or len(others) < 2:
        return [*([PREVIOUS] if PREVIOUS in names else []), *others]
    at = min(max(names.index(PREVIOUS), 1), len(others) - 1)
    return [*others[:at], PREVIOUS, *others[at:]]


def _shared(items: Sequence[Item], table: Table) -> list[Item]:
    """The items, by id, that every model has a score on."""
    ordered = sorted(items, key=lambda item: item.id)
    return [item for item in ordered if not any(unscored(scores.get(item.id)) for scores in table.values())]


def _group(name: str, every: Sequence[Item], table: Table, baselines: Baselines, level: float) -> dict[str, Any]:
    """One group's figures, verdict apart."""
    items = [item for item in every if not item.unanswerable]
    shared = _shared(items, table)
    clusters = [item.cluster for item in shared]
    values = {model: [scores[item.id].value or 0.0 for item in shared] for model, scores in table.items()}
    first, *later = table
    candidate = (later or [first])[-1]

    def change(before: str, after: str) -> Difference:
        return paired_change(values[before], values[after], clusters, level, seed_from(f"{name}\0{after}", 0))

    differences = {model: change(first, model) for model in later}
    measured = differences.get(candidate) or change(first, candidate)
    error = measured.standard_error if later else None
    known = sum(value > RIGHT for value in values[first])
    group = {
        "name": name,
        "kind": name if name in (*OWN, GENERAL, "all") else kind_of(name),
        "items": len(items),
        "n": len(shared),
        "clusters": len(set(clusters)),
        "dropped": len(items) - len(shared),
        "models": _cells(items, shared, table, level),
        "deltas": {model: _delta(difference) for model, difference in differences.items()},
        **_flips(shared, values[first], values[candidate]),
        "base_known": known,
        "gap_closed": _gap_closed(values[first], values[candidate]) if later else None,
        "detectable": _rounded(minimum_detectable_effect(len(set(clusters)), error, level=level)),
        "needed": needed(len(shared), observed_variance(measured), level),
        "baselines": {key: _pooled(accuracy, items) for key, accuracy in sorted(baselines.items())},
        "metrics": _metrics(shared, table),
        "declined": _declined([item for item in every if item.unanswerable], table, level),
    }
    if PREVIOUS in later[:-1]:
        moved = _flips(shared, values[PREVIOUS], values[candidate])
        group["since_previous"] = {"delta": _delta(change(PREVIOUS, candidate)), **moved}
    return group


def _cells(items: Sequence[Item], shared: Sequence[Item], table: Table, level: float) -> dict[str, Any]:
    """Each model's mean over the shared items, and why it has no score on others."""
    clusters = [item.cluster for item in shared]
    cells = {}
    for model, scores in table.items():
        reasons = Counter(reason for item in items if (reason := unscored(scores.get(item.id))))
        values = [scores[item.id].value or 0.0 for item in shared]
        cells[model] = {**_value(values, clusters, level), "unscored": dict(sorted(reasons.items()))}
    return cells


def _flips(shared: Sequence[Item], before: Sequence[float], after: Sequence[float]) -> dict[str, list[str]]:
    moved = list(zip(shared, before, after, strict=True))
    return {
        "gained": [item.id for item, left, right in moved if right > RIGHT >= left],
        "lost": [item.id for item, left, right in moved if left > RIGHT >= right],
    }


def _gap_closed(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Of what the reference had not, how much was won (below 0: lost)."""
    left = math.fsum(1 - value for value in before)
    return _rounded((math.fsum(after) - math.fsum(before)) / left) if left > 0 else None


def _metrics(shared: Sequence[Item], table: Table) -> dict[str, dict[str, float | None]]:
    """Means of the further figures, each over the items on which every model has it."""
    names = {name for scores in table.values() for item in shared for name in scores[item.id].metrics}
    found = {}
    for name in sorted(names):
        rows = [[scores[item.id].metrics.get(name, math.nan) for scores in table.values()] for item in shared]
        whole = [row for row in rows if all(map(math.isfinite, row))]
        if whole:
            found[name] = {model: _mean([row[at] for row in whole]) for at, model in enumerate(table)}
    return found


def _declined(items: Sequence[Item], table: Table, level: float) -> dict[str, Any] | None:
    """Of the questions that the documents do not answer: how often each model says that it does not know."""
    if not items:
        return None
    shared = _shared(items, table)
    return {"items": len(items), "n": len(shared), "models": _cells(items, shared, table, level)}


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


def _adjust(leaves: Sequence[dict[str, Any]]) -> None:
    """Holm over those leaves that could show something at all: too few items are no test."""
    tested = [_tests(leaf) for leaf in leaves if leaf["clusters"] >= FEWEST_CLUSTERS]
    for model in tested[0] if tested else ():
        for test, p in zip(tested, holm([test[model]["p"] for test in tested]), strict=True):
            test[model]["p_adjusted"] = float(f"{p:.4g}")


def _tests(group: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The deltas against the reference, and the one against the previous release."""
    since = {"": group["since_previous"]["delta"]} if "since_previous" in group else {}
    return {**group["deltas"], **since}


def _judge(group: dict[str, Any], candidate: str, level: float) -> None:
    """The verdict on the candidate against the reference, and against the previous release."""
    group["verdict"] = _verdict(group, group["deltas"].get(candidate), level)
    if "since_previous" in group:
        group["since_previous"]["verdict"] = _verdict(group, group["since_previous"]["delta"], level)


def _verdict(group: Mapping[str, Any], delta: Mapping[str, Any] | None, level: float) -> str:
    if delta is None or group["clusters"] < FEWEST_CLUSTERS:
        return INCONCLUSIVE
    if delta["p_adjusted"] <= 1 - level and delta["value"]:
        return IMPROVED if delta["value"] > 0 else REGRESSED
    return UNCHANGED


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
