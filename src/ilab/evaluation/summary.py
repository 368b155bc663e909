"""The rows of the result table, as text and numbers: one wording for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilab.evaluation.compare import INCONCLUSIVE, UNCHANGED


def summary_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per leaf, then per kind, then the total (the total alone if there is only one group below it).

    A row holds ``level`` (leaf, kind, total), ``name``, ``items`` (scored by all models), ``clusters``, ``cells``
    (one per model: model, value, low, high, text), ``change`` (candidate against reference: value, low, high,
    text), ``verdict``, ``verdict_text``, ``baselines`` (name to value and text) and ``unscored`` (items left out).
    """
    groups = [("leaf", group) for group in comparison["leaves"]]
    if len(comparison["leaves"]) > 1:
        kinds = comparison["kinds"] if len(comparison["kinds"]) > 1 else []
        groups += [("kind", group) for group in kinds]
        groups.append(("total", comparison["total"]))
    return [_row(level, group, comparison) for level, group in groups]


def percent(value: float | None) -> str:
    """``0.583`` as ``58 %``; an en dash where there is no value."""
    return "–" if value is None else f"{100 * value:.0f} %"


def with_interval(cell: Mapping[str, Any]) -> str:
    """``58 % [47, 68]``; the bounds are left out where there are none."""
    if cell["value"] is None or cell["low"] is None:
        return percent(cell["value"])
    return f"{percent(cell['value'])} [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"


def change_with_interval(delta: Mapping[str, Any] | None) -> str:
    """``+30 [+18, +43]`` in percentage points; a true minus sign; ``±0`` where nothing moved."""
    if delta is None or delta["value"] is None:
        return "–"
    if delta["low"] is None:
        return _points(delta["value"])
    return f"{_points(delta['value'])} [{_points(delta['low'])}, {_points(delta['high'])}]"


def verdict_text(group: Mapping[str, Any]) -> str:
    """The verdict with the size of change that the items could have shown."""
    if group["verdict"] == UNCHANGED and group["detectable"] is not None:
        return f"{UNCHANGED} (could detect ≥ {100 * group['detectable']:.0f} points)"
    if group["verdict"] == INCONCLUSIVE:
        return f"{INCONCLUSIVE} ({'too few items' if group['deltas'] else 'nothing to compare with'})"
    return str(group["verdict"])


def _row(level: str, group: Mapping[str, Any], comparison: Mapping[str, Any]) -> dict[str, Any]:
    delta = group["deltas"].get(comparison["candidate"])
    return {
        "level": level,
        "name": "all leaves" if level == "total" else f"all {group['name']}" if level == "kind" else group["name"],
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
        "change": None if delta is None else {**delta, "text": change_with_interval(delta)},
        "verdict": group["verdict"],
        "verdict_text": verdict_text(group),
        "baselines": {name: {"value": value, "text": percent(value)} for name, value in group["baselines"].items()},
        "unscored": group["items"] - group["n"],
    }


def _points(value: float) -> str:
    rounded = round(100 * value)
    return "±0" if rounded == 0 else f"{'+' if rounded > 0 else '−'}{abs(rounded)}"
