"""The rows of the result table, as text and numbers: one wording for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilab.evaluation.compare import INCONCLUSIVE, UNCHANGED


def summary_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per leaf, per kind, for the total (if there is more than one group below it), for the general suite.

    A row holds ``level`` (leaf, kind, total, general), ``name``, ``items`` (scored by all models), ``clusters``,
    ``cells`` (one per model: model, value, low, high, text), ``change`` (candidate against reference: value, low,
    high, text), ``since_previous`` (the same against the release to be replaced, with its verdict, or ``None``),
    ``verdict``, ``verdict_text``, ``declined`` (text, or ``None`` without unanswerable questions), ``baselines`` (name
    to value and text) and ``unscored`` (items left out).
    """
    groups = [("leaf", group) for group in comparison["leaves"]]
    if len(comparison["leaves"]) > 1:
        kinds = comparison["kinds"] if len(comparison["kinds"]) > 1 else []
        groups += [("kind", group) for group in kinds]
        groups.append(("total", comparison["total"]))
    if comparison.get("general"):
        groups.append(("general", comparison["general"]))
    return [_row(level, group, comparison) for level, group in groups]


def percent(value: float | None) -> str:
    """``0.583`` as ``58 %``; an en dash where there is no value."""
    return "–" if value is None else f"{100 * value:.0f} %"


def with_interval(cell: Mapping[str, Any]) -> str:
    """``58 % [47, 68]``; the bounds are left out where there are none."""
    if cell["value"] is None or cell["low"] is None:
        return percent(cell["value"])
    return f"{percent(cell['value'])} [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"


def change_with_interval(delta: Mapping[str, Any] | None, digits: int = 0) -> str:
    """``+30 [+18, +43]`` in percentage points; a true minus sign; ``±0`` where nothing moved."""
    if delta is None or delta["value"] is None:
        return "–"
    if delta["low"] is None:
        return _points(delta["value"], digits)
    return f"{_points(delta['value'], digits)} [{_points(delta['low'], digits)}, {_points(delta['high'], digits)}]"


def verdict_text(group: Mapping[str, Any]) -> str:
    """The verdict with the size of change that the items could have shown, or how many items would show one."""
    if group["verdict"] == UNCHANGED and group["detectable"] is not None:
        return f"{UNCHANGED} (could detect ≥ {100 * group['detectable']:.0f} points)"
    if group["verdict"] == INCONCLUSIVE:
        return f"{INCONCLUSIVE} ({needed_text(group['needed']) if group['deltas'] else 'nothing to compare with'})"
    return str(group["verdict"])


def needed_text(needed: Mapping[str, Any]) -> str:
    """``n >= 157 items needed for a change of 10 points``."""
    points = f"{100 * needed['change']:.2g}"
    unit = "point" if points == "1" else "points"
    return f"n >= {needed['items']} items needed for a change of {points} {unit}"


def declined_text(declined: Mapping[str, Any] | None, model: str) -> str | None:
    """``says that it does not know: 40 % [17, 69] of 10``; ``None`` without unanswerable questions."""
    if declined is None:
        return None
    return f"says that it does not know: {with_interval(declined['models'][model])} of {declined['n']}"


def _change(delta: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if delta is None else {**delta, "text": change_with_interval(delta)}


def _row(level: str, group: Mapping[str, Any], comparison: Mapping[str, Any]) -> dict[str, Any]:
    candidate, since = comparison["candidate"], group.get("since_previous")
    names = {"total": "all leaves", "kind": f"all {group['name']}", "general": "general knowledge"}
    return {
        "level": level,
        "name": names.get(level, group["name"]),
        "items": group["n"],
        "clusters": group["clusters"],
        "cells": [
            {
                "model": model,
                **{key: group["models"][model][key] for key in ("value", "low", "high")},
                "text": with_interval(group["models"][model]),
            }
            for model in comparison["models"]
        ],
        "change": _change(group["deltas"].get(candidate)),
        "since_previous": None if since is None else {**(_change(since["delta"]) or {}), "verdict": since["verdict"]},
        "verdict": group["verdict"],
        "verdict_text": verdict_text(group),
        "declined": declined_text(group.get("declined"), candidate),
        "baselines": {name: {"value": value, "text": percent(value)} for name, value in group["baselines"].items()},
        "unscored": group["items"] - group["n"],
    }


def _points(value: float, digits: int) -> str:
    rounded = round(100 * value, digits)
    return "±0" if rounded == 0 else f"{'+' if rounded > 0 else '−'}{abs(rounded):.{digits}f}"
