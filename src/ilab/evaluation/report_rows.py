"""The figures of a run as a table for other programs: one row for each number.

    run, suite, leaf, model, metric, value, se, ci_low, ci_high, n, n_unscored

``suite`` is ``leaves``, ``general`` or ``gate``; ``leaf`` a leaf's path, a kind, ``all``, or a subject of the general
suite. ``metric``: ``score`` (share of right answers, or the mean mark), ``change`` (against the reference, paired),
``declined`` (says that it does not know, where nobody can), ``baseline`` (no model), or one that items carry besides
(``f1``, ``open``, ``judge`` …). Shares are in 0..1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ilab.data import Item, Score
from ilab.evaluation.compare import kind_of, unscored
from ilab.evaluation.statistics import clustered_standard_error

COLUMNS = ("run", "suite", "leaf", "model", "metric", "value", "se", "ci_low", "ci_high", "n", "n_unscored")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would take for a formula at the beginning of a cell

JSON = Mapping[str, Any]
Row = dict[str, Any]


def metric_rows(
    run: str, comparison: JSON, gate: JSON, items: Sequence[Item], scores: Mapping[str, Sequence[Score]]
) -> list[Row]:
    """One row per number, in a fixed order."""
    errors = _Errors(items, scores)
    groups = [("leaves", group) for group in (*comparison["leaves"], *comparison["kinds"], comparison["total"])]
    general = comparison.get("general")
    if general:
        groups += [("general", group) for group in (*general.get("subjects", ()), general)]
    rows = [row for suite, group in groups for row in _group(suite, group, comparison, errors)]
    rows += [
        _row("gate", "all", comparison["candidate"], name, value=value, n=gate["items"])
        for name, value in gate["metrics"].items()
    ]
    return [{"run": run, **row} for row in rows]


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV. Text that a spreadsheet would run as a formula is kept from it by an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
    return out.getvalue()


def _group(suite: str, group: JSON, comparison: JSON, errors: _Errors) -> Iterator[Row]:
    name, n = group["name"], group["n"]
    for model, cell in group["models"].items():
        missing = sum(cell["unscored"].values())
        yield _row(
            suite, name, model, "score", **_bounds(cell), se=errors.of(suite, group, model), n=n, n_unscored=missing
        )
    for model, delta in group["deltas"].items():
        against = errors.of(suite, group, model, comparison["reference"])
        yield _row(suite, name, model, "change", **_bounds(delta), se=against, n=n)
    for metric, means in (group.get("metrics") or {}).items():
        for model, value in means.items():
            yield _row(suite, name, model, metric, value=value, n=n)
    declined = group.get("declined") or {"models": {}, "n": 0}
    for model, cell in declined["models"].items():
        yield _row(suite, name, model, "declined", **_bounds(cell), n=declined["n"])
    for baseline, value in group["baselines"].items():
        yield _row(suite, name, baseline, "baseline", value=value, n=n)


class _Errors:
    """Clustered standard errors of a group's means and paired changes, over the items that all models answered."""

    def __init__(self, items: Sequence[Item], scores: Mapping[str, Sequence[Score]]) -> None:
        self._scores = {model: {score.item: score for score in found} for model, found in scores.items()}
        self._items = [
            item
            for item in sorted(items, key=lambda item: item.id)
            if not item.unanswerable and not any(unscored(found.get(item.id)) for found in self._scores.values())
        ]

    def of(self, suite: str, group: JSON, model: str, reference: str = "") -> float | None:
        """Of ``model``'s mean, or of its paired change against ``reference``."""
        chosen = [item for item in self._items if _belongs(item.leaf, suite, group)]
        if len(chosen) != group["n"] or model not in self._scores or (reference and reference not in self._scores):
            return None  # the scores at hand are not those that the comparison was made from
        before = self._scores[reference] if reference else {}
        values = [
            (self._scores[model][item.id].value or 0.0) - ((before[item.id].value or 0.0) if reference else 0.0)
            for item in chosen
        ]
        error = clustered_standard_error(values, [item.cluster for item in chosen])
        return None if error is None else round(error, 6)


def _belongs(leaf: str, suite: str, group: JSON) -> bool:
    general = leaf.startswith("general/")
    if group["name"] == leaf:
        return True
    if suite == "general":
        return general and "subjects" in group
    return not general and (group["name"] == "all" or group["name"] == kind_of(leaf))


def _bounds(cell: JSON) -> Row:
    return {"value": cell["value"], "ci_low": cell["low"], "ci_high": cell["high"]}


def _row(suite: str, leaf: str, model: str, metric: str, **figures: Any) -> Row:
    known = {"value": None, "se": None, "ci_low": None, "ci_high": None, "n": None, "n_unscored": 0, **figures}
    return {"suite": suite, "leaf": leaf, "model": model, "metric": metric, **known}


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
