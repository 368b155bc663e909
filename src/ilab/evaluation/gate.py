"""May this model be published? Three outcomes: pass, fail, inconclusive.

One stated score, the mean of ``eval_metrics`` on the test items, and four rules, all reported even when passed:

    threshold    the candidate's score reaches ``eval_quality_threshold``
    better       it beats the base on the pooled items: the interval of the paired difference lies above zero
    no harm      no leaf got significantly worse (Holm-adjusted over the leaves)
    measured     at least 95 % of the items have a score from every model; dropping the hard ones is no way to pass

The verdict is that of the worst rule: any failure fails, else anything unknown is inconclusive. Metrics:

    accuracy     share of right answers over ``mcq`` and ``exact`` items
    f1           mean over all items: token F1 of the answer against the gold for ``exact`` and ``free``; right
                 or wrong for ``mcq`` (an option is chosen, not written)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ilab.data import Item, Score
from ilab.errors import InputError
from ilab.evaluation.answers import token_f1
from ilab.evaluation.compare import REGRESSED, unscored
from ilab.evaluation.summary import change_with_interval

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
METRICS = ("accuracy", "f1")
MEASURED = 0.95

OnInconclusive = Literal["stop", "publish"]


def decide(
    comparison: Mapping[str, Any],
    scores: Sequence[Score],
    items: Sequence[Item],
    *,
    threshold: float,
    metrics: Sequence[str],
    on_inconclusive: OnInconclusive = "stop",
) -> dict[str, Any]:
    """The gate's decision as plain JSON, from the ``comparison`` and the candidate's ``scores`` on the test
    ``items``.

    Keys: ``verdict`` (pass, fail, inconclusive), ``publish`` (what follows from it), ``line`` (score, threshold
    and verdict on one line), ``score``, ``threshold``, ``metrics`` {name: value}, ``items`` (scored), ``rules``
    [{name, verdict, detail}], ``on_inconclusive``. Raises InputError for an unknown metric or none.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise InputError(
            f"unknown evaluation metric {unknown[0]!r}" if unknown else "no evaluation metric is named",
            hint=f"set eval_metrics to one or more of: {', '.join(METRICS)}",
        )
    measured = {name: _metric(name, scores, items) for name in dict.fromkeys(metrics)}
    known = [value for value, _ in measured.values() if value is not None]
    score = round(math.fsum(known) / len(known), 6) if known else None
    count = max((n for _, n in measured.values()), default=0)
    rules = [
        _reaches(score, threshold),
        _better(comparison),
        _no_harm(comparison),
        _measured(comparison["total"]),
    ]
    verdicts = {rule["verdict"] for rule in rules}
    verdict = FAIL if FAIL in verdicts else INCONCLUSIVE if INCONCLUSIVE in verdicts else PASS
    used = [name for name, (value, _) in measured.items() if value is not None]
    return {
        "verdict": verdict,
        "publish": verdict == PASS or (verdict == INCONCLUSIVE and on_inconclusive == "publish"),
        "line": _line(score, threshold, " and ".join(used), count, _because(verdict, rules)),
        "score": score,
        "threshold": threshold,
        "metrics": {name: value for name, (value, _) in measured.items()},
        "items": count,
        "rules": rules,
        "on_inconclusive": on_inconclusive,
    }


def _metric(name: str, scores: Sequence[Score], items: Sequence[Item]) -> tuple[float | None, int]:
    """The value of a metric, rounded, and how many items it stands on."""
    by_id = {item.id: item for item in items}
    values = []
    for score in scores:
        item = by_id.get(score.item)
        if item is None or unscored(score) or score.value is None:
            continue
        if name == "f1" and item.kind == "exact":
            values.append(token_f1(score.answer or "", item.gold))
        elif name == "f1" or item.kind != "free":
            values.append(score.value)
    return (round(math.fsum(values) / len(values), 6) if values else None), len(values)


def _rule(name: str, verdict: str, detail: str) -> dict[str, str]:
    return {"name": name, "verdict": verdict, "detail": detail}


def _reaches(score: float | None, threshold: float) -> dict[str, str]:
    if score is None:
        return _rule("threshold", INCONCLUSIVE, "no test item has a score")
    return _rule("threshold", PASS if score >= threshold else FAIL, _relation(score, threshold))


def _better(comparison: Mapping[str, Any]) -> dict[str, str]:
    delta = comparison["total"]["deltas"].get(comparison["candidate"])
    if delta is None:
        return _rule("better", INCONCLUSIVE, "there is no base model to compare with")
    if delta["low"] is None:
        return _rule("better", INCONCLUSIVE, "too few items to compare with the base")
    detail = f"{change_with_interval(delta)} percentage points against {comparison['reference']}"
    if delta["low"] > 0:
        return _rule("better", PASS, detail)
    if delta["high"] < 0:
        return _rule("better", FAIL, f"{detail}: worse")
    return _rule("better", INCONCLUSIVE, f"{detail}: the interval includes no change")


def _no_harm(comparison: Mapping[str, Any]) -> dict[str, str]:
    worse = [leaf["name"] for leaf in comparison["leaves"] if leaf["verdict"] == REGRESSED]
    if worse:
        return _rule("no harm", FAIL, f"significantly worse: {', '.join(worse)}")
    return _rule("no harm", PASS, "no leaf got significantly worse")


def _measured(total: Mapping[str, Any]) -> dict[str, str]:
    detail = f"{total['n']} of {total['items']} items have a score from every model"
    enough = total["items"] and total["n"] >= MEASURED * total["items"]
    return _rule("measured", PASS if enough else INCONCLUSIVE, detail)


def _relation(score: float, threshold: float) -> str:
    """``0.71 >= 0.60`` with as many digits as it takes to see the relation."""
    for digits in (2, 3, 4):
        if f"{score:.{digits}f}" != f"{threshold:.{digits}f}" or score == threshold:
            break
    return f"{score:.{digits}f} {'>=' if score >= threshold else '<'} {threshold:.{digits}f}"


def _line(score: float | None, threshold: float, metrics: str, items: int, because: str) -> str:
    if score is None:
        return f"no score, threshold {threshold:.2f}: {because}"
    count = "1 item" if items == 1 else f"{items} items"
    return f"score {_relation(score, threshold)} ({metrics}, {count}): {because}"


def _because(verdict: str, rules: Sequence[Mapping[str, str]]) -> str:
    """The verdict in capitals and the rules that made it so, but for the threshold, which the line shows."""
    causes = [f"{rule['name']}: {rule['detail']}" for rule in rules if rule["verdict"] == verdict]
    others = [cause for cause in causes if not (verdict == FAIL and cause.startswith("threshold"))]
    return verdict.upper() if verdict == PASS or not others else f"{verdict.upper()} ({'; '.join(others)})"
