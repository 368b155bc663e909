"""Two reports side by side: what changed between their candidates, leaf by leaf, and what was set differently.

Where both have the same items scored the change is paired, which is far more exact; else it is the difference of two
shares, without an interval. A report is a file that anybody may hand over: what is read from it is checked first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ilab.errors import InputError
from ilab.evaluation.compare import FEWEST_CLUSTERS, IMPROVED, INCONCLUSIVE, REGRESSED, UNCHANGED
from ilab.evaluation.statistics import LEVEL, holm, paired_difference
from ilab.evaluation.summary import change_with_interval, percent

SCHEMA = "ilab-report/1"


class _Part(BaseModel):
    """What is needed of a report; everything else in it is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Value(_Part):
    value: float | None = None


class _Group(_Part):
    name: str
    n: int
    models: dict[str, _Value]


class _Comparison(_Part):
    candidate: str
    reference: str
    leaves: tuple[_Group, ...]
    total: _Group


class _Verdict(_Part):
    verdict: str
    line: str


class Scored(_Part):
    """One item's values by model."""

    id: str
    leaf: str
    cluster: str
    values: dict[str, float | None]


class Told(_Part):
    """What one report says."""

    title: str
    gate: _Verdict
    comparison: _Comparison
    settings: dict[str, Any] = Field(default_factory=dict)
    leaves: dict[str, str] = Field(default_factory=dict)
    causes: dict[str, int] = Field(default_factory=dict)
    scored: tuple[Scored, ...] = ()


def read_told(plain: Any, where: str) -> Told:
    """The report in ``plain`` JSON. Raises InputError for anything that is no report of ours."""
    if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
        raise InputError("this is no report", where=where, hint="give the report.json that `ilab run` wrote")
    try:
        return Told.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise InputError(f"this report is damaged at {at}: {first['msg']}", where=where) from error


def diff(before: Told, after: Told) -> dict[str, Any]:
    """What changed from one report to the other, as plain JSON.

    Keys: ``titles``, ``verdicts``, ``leaves`` and ``total`` ({name, before, after, shared, change, p, verdict, text,
    gained, lost}), ``only`` (leaves that one of them has), ``edited`` (leaves with other contents), ``settings``
    ({name: [before, after]}), ``causes`` ({cause: [before, after]}).
    """
    names = [[group.name for group in told.comparison.leaves] for told in (before, after)]
    shared = [name for name in names[0] if name in names[1]]
    leaves = [_change(name, before, after) for name in shared]
    tested = [leaf for leaf in leaves if leaf["clusters"] >= FEWEST_CLUSTERS]
    for leaf, p in zip(tested, holm([leaf["p"] for leaf in tested]), strict=True):
        leaf["p"] = float(f"{p:.4g}")
    total = _change("", before, after)
    for leaf in (*leaves, total):
        leaf["verdict"] = _verdict(leaf)
    return {
        "titles": [before.title, after.title],
        "verdicts": [before.gate.verdict, after.gate.verdict],
        "lines": [before.gate.line, after.gate.line],
        "models": [before.comparison.candidate, after.comparison.candidate],
        "leaves": leaves,
        "total": total,
        "only": [sorted(set(names[0]) - set(names[1])), sorted(set(names[1]) - set(names[0]))],
        "edited": sorted(
            name for name in before.leaves.keys() & after.leaves.keys() if before.leaves[name] != after.leaves[name]
        ),
        "settings": _other(before.settings, after.settings),
        "causes": _other(before.causes, after.causes, nothing=0),
    }


def _change(leaf: str, before: Told, after: Told) -> dict[str, Any]:
    """One leaf, or with an empty name everything that both have."""
    values = [_values(told, leaf) for told in (before, after)]
    ids = sorted(values[0].keys() & values[1].keys())
    pairs = [(values[0][name], values[1][name]) for name in ids]
    clusters = [pair[0][1] for pair in pairs]
    difference = paired_difference([pair[0][0] for pair in pairs], [pair[1][0] for pair in pairs], clusters, LEVEL)
    shares = [_share(told, leaf) for told in (before, after)]
    if pairs:  # on the same questions, as the change is
        shares = [round(math.fsum(pair[side][0] for pair in pairs) / len(pairs), 6) for side in (0, 1)]
    known = None if shares[0] is None or shares[1] is None else round(shares[1] - shares[0], 6)
    change: dict[str, float | None] = {"value": known, "low": None, "high": None}
    if pairs:
        change = {"value": difference.mean, "low": difference.low, "high": difference.high}
        change = {key: None if value is None else round(value, 6) + 0.0 for key, value in change.items()}
    return {
        "name": leaf or "all leaves",
        "before": shares[0],
        "after": shares[1],
        "shared": len(pairs),
        "clusters": len(set(clusters)),
        "change": change,
        "text": change_with_interval(change),
        "shares": [percent(share) for share in shares],
        "p": float(f"{difference.p:.4g}"),
        "gained": [name for name in ids if values[1][name][0] > 0.5 >= values[0][name][0]],
        "lost": [name for name in ids if values[0][name][0] > 0.5 >= values[1][name][0]],
    }


def _values(told: Told, leaf: str) -> dict[str, tuple[float, str]]:
    """The candidate's value and the cluster of each item of ``leaf`` (of the taxonomy) that has one."""
    model = told.comparison.candidate
    own = {group.name for group in told.comparison.leaves}
    found = {}
    for item in told.scored:
        value = item.values.get(model)
        if value is not None and (item.leaf == leaf if leaf else item.leaf in own):
            found[item.id] = (value, item.cluster)
    return found


def _share(told: Told, leaf: str) -> float | None:
    groups = {group.name: group for group in told.comparison.leaves}
    cell = (groups[leaf] if leaf else told.comparison.total).models.get(told.comparison.candidate)
    return cell.value if cell else None


def _verdict(leaf: Mapping[str, Any]) -> str:
    if leaf["clusters"] < FEWEST_CLUSTERS:
        return INCONCLUSIVE
    if leaf["p"] <= 1 - LEVEL and leaf["change"]["value"]:
        return IMPROVED if leaf["change"]["value"] > 0 else REGRESSED
    return UNCHANGED


def _other(before: Mapping[str, Any], after: Mapping[str, Any], nothing: Any = None) -> dict[str, Sequence[Any]]:
    """What differs between two mappings; of a report from before these were kept there is nothing to say."""
    names = sorted({*before, *after}) if before and after else []
    pairs = {name: [before.get(name, nothing), after.get(name, nothing)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
