"""May this model be published? Three outcomes: pass, fail, inconclusive.

One stated score, the mean of ``eval_metrics`` on the test items of the changed leaves, and five rules, all reported
even when passed. The *release* is the previous one where it was measured, else the base.

    threshold                   the candidate's score (or its lower bound) reaches ``eval_quality_threshold``
    superior on changed leaves  it beats the base there: the paired change is above zero, interval and exact test
    no harm elsewhere           on the unchanged leaves, pooled, it is not behind the release by ``margin`` or more
                                (lower bound), and no single leaf is significantly worse (Holm)
    general                     the same on the general suite, with ``general_margin``; without a suite said so
    measured                    95 % of the items have a score from every model: dropping hard ones is no way to pass

The verdict is that of the worst rule: any failure fails, else anything unknown is inconclusive and says how many items
it takes. What only a judge says that nobody calibrated decides nothing. The metrics are in ``measures``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ilab.data import Item, Score
from ilab.evaluation.compare import FEWEST_CLUSTERS, GENERAL, REGRESSED, change_on, kind_of, needed
from ilab.evaluation.measures import CALIBRATE, JUDGE, Stated, judged, state
from ilab.evaluation.statistics import DISCORDANT, LEVEL, Difference, items_needed, observed_variance
from ilab.evaluation.summary import change_with_interval, needed_text

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
MEASURED = 0.95

OnInconclusive = Literal["stop", "publish"]
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Rules:
    """What the gate asks for. ``changed``: those of today's leaves that changed since the release; ``None``: all.

    ``margin`` and ``general_margin`` (0 to 1) are the losses that are accepted elsewhere. ``on`` is what must reach the
    threshold: the estimate or the lower bound of its interval. ``judge_trusted``: its agreement with people was
    measured, and is good enough.
    """

    changed: frozenset[str] | None = None
    margin: float = 0.05
    general_margin: float = 0.02
    on: Literal["point", "lower"] = "point"
    judge_trusted: bool = False


@dataclass(frozen=True)
class Case:
    """What the rules look at: the comparison, and on which items and scores the changes are counted."""

    comparison: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, Score]]  # model to item id to score
    changed: Sequence[Item]
    unchanged: Sequence[Item]
    general: Sequence[Item]
    unmeasured: Sequence[str]  # changed leaves without a test item
    left_out: frozenset[str]  # items that only an uncalibrated judge marked
    rules: Rules

    @property
    def level(self) -> float:
        return float(self.comparison.get("level", LEVEL))

    @property
    def release(self) -> str:
        return str(self.comparison.get("previous") or self.comparison["reference"])

    def score(self, metrics: Sequence[str]) -> Stated:
        """The candidate's score on the changed leaves; on all if none changed."""
        items = self.unchanged if self.rules.changed == frozenset() else self.changed
        return state(metrics, self.scores.get(self.comparison["candidate"], {}), items, self.level)

    def change(self, name: str, items: Sequence[Item], against: str) -> Difference:
        """The candidate's change on the answerable items among ``items`` that no untrusted judge marked."""
        counted = [item for item in items if not item.unanswerable and item.id not in self.left_out]
        after = self.scores.get(self.comparison["candidate"], {})
        return change_on(name, counted, self.scores.get(against, {}), after, self.level)


def decide(
    comparison: Mapping[str, Any],
    scores: Sequence[Score],
    items: Sequence[Item],
    *,
    threshold: float,
    metrics: Sequence[str],
    on_inconclusive: OnInconclusive = "stop",
    rules: Rules = Rules(),
) -> dict[str, Any]:
    """The gate's decision as plain JSON, from the ``comparison`` and all its models' ``scores`` on the test ``items``.

    Keys: ``verdict`` (pass, fail, inconclusive), ``publish`` (what follows from it), ``line`` (score, threshold
    and verdict on one line), ``score`` with ``low`` and ``high``, ``threshold``, ``on``, ``metrics`` {name: value},
    ``items`` (scored), ``changed`` (sorted, or null for all leaves), ``release`` (what it is held against),
    ``judge_trusted``, ``on_inconclusive`` and ``rules`` [{name, verdict, detail, applies, value, low, high, n,
    needed}], with ``needed`` = {change, items} where it is inconclusive.
    Raises InputError for an unknown metric or none.
    """
    case = _case(comparison, scores, items, rules)
    stated = case.score(metrics)
    found = [
        _threshold(stated, threshold, case),
        _superior(case),
        _no_harm(case),
        _general(case),
        _measured(comparison),
    ]
    verdicts = {rule["verdict"] for rule in found}
    verdict = FAIL if FAIL in verdicts else INCONCLUSIVE if INCONCLUSIVE in verdicts else PASS
    return {
        "verdict": verdict,
        "publish": verdict == PASS or (verdict == INCONCLUSIVE and on_inconclusive == "publish"),
        "line": _line(stated, threshold, _because(verdict, found)),
        "score": stated.value,
        "low": stated.low,
        "high": stated.high,
        "threshold": threshold,
        "on": rules.on,
        "metrics": {name: value.mean for name, value in stated.metrics.items()},
        "items": stated.n,
        "changed": None if rules.changed is None else sorted(rules.changed),
        "release": case.release,
        "judge_trusted": rules.judge_trusted,
        "rules": found,
        "on_inconclusive": on_inconclusive,
    }


def _case(comparison: Mapping[str, Any], scores: Sequence[Score], items: Sequence[Item], rules: Rules) -> Case:
    table: dict[str, dict[str, Score]] = {}
    for score in scores:
        table.setdefault(score.model, {})[score.item] = score
    own = [item for item in items if kind_of(item.leaf) != GENERAL]
    leaves = {item.leaf for item in own}
    changed = leaves if rules.changed is None else rules.changed
    marked = frozenset() if rules.judge_trusted else judged(table.values())
    return Case(
        comparison,
        table,
        [item for item in own if item.leaf in changed],
        [item for item in own if item.leaf not in changed],
        [item for item in items if kind_of(item.leaf) == GENERAL],
        sorted(changed - leaves),
        marked,
        rules,
    )


def _threshold(stated: Stated, threshold: float, case: Case) -> dict[str, Any]:
    """The score, and where nobody calibrated the judge also the score without its metric: both must say the same."""
    name, figures = "threshold", {"value": stated.value, "low": stated.low, "high": stated.high, "n": stated.n}
    if stated.value is None:
        where = f" ({', '.join(stated.metrics)})" if stated.metrics else ""
        return _rule(name, INCONCLUSIVE, f"no test item has a score{where}: {_MORE}", **figures)
    verdict, detail, wanted = _reaches(stated, threshold, case)
    if stated.missing:
        detail += f"; not measured: {', '.join(stated.missing)}"
    if JUDGE in stated.metrics and stated.metrics[JUDGE].n and not case.rules.judge_trusted:
        others = [metric for metric in stated.metrics if metric != JUDGE]
        without = case.score(others) if others else None
        if without is None or without.value is None or _reaches(without, threshold, case)[0] != verdict:
            return _rule(name, INCONCLUSIVE, f"{detail}, but only by {_UNTRUSTED}", **figures)
    return _rule(name, verdict, detail, needed=wanted, **figures)


def _reaches(stated: Stated, threshold: float, case: Case) -> tuple[str, str, Figures | None]:
    """Verdict, detail, and the items it takes, of a score against the threshold."""
    score, low = stated.value or 0.0, stated.low
    detail = _relation(score, threshold)
    if low is not None and stated.high is not None:
        detail += f", interval [{low:.2f}, {stated.high:.2f}]"
    if score < threshold:
        return FAIL, detail, None
    if case.rules.on == "point" or (low is not None and low >= threshold):
        return PASS, detail, None
    gap = max(score - threshold, 0.01)
    wanted = {"change": round(gap, 4), "items": max(items_needed(gap, stated.variance, level=case.level), stated.n + 1)}
    return INCONCLUSIVE, f"{detail}: its lower bound does not reach it; {needed_text(wanted)}", wanted


def _superior(case: Case) -> dict[str, Any]:
    name, base = "superior on changed leaves", case.comparison["reference"]
    if case.comparison["candidate"] == base:
        return _rule(name, INCONCLUSIVE, f"there is no base model to compare with; {_MORE}")
    if case.rules.changed == frozenset():
        return _rule(name, PASS, "no leaf changed", applies=False)
    change = case.change(name, case.changed, base)
    if not change.n and case.left_out:
        return _rule(name, INCONCLUSIVE, f"what can be compared rests on {_UNTRUSTED}", **_figures(change))
    wanted = needed(change.n, observed_variance(change), case.level)
    detail = f"{_said(change)} percentage points against {base}{_aside(case)}"
    if change.low is None or change.high is None or change.clusters < FEWEST_CLUSTERS:
        text = f"too few items to compare with {base}: {needed_text(wanted)}"
        return _rule(name, INCONCLUSIVE, text, needed=wanted, **_figures(change))
    if change.p <= 1 - case.level and change.low > 0:
        return _rule(name, PASS, detail, **_figures(change))
    if change.p <= 1 - case.level and change.high < 0:
        return _rule(name, FAIL, f"{detail}: worse", **_figures(change))
    why = f"{base} knows all of it already" if _known(case, base) else "that may be chance"
    text = f"{detail}: {why}; {needed_text(wanted)}"
    return _rule(name, INCONCLUSIVE, text, needed=wanted, **_figures(change))


def _aside(case: Case) -> str:
    """What the change does not stand on."""
    judged_items = sum(item.id in case.left_out for item in case.changed)
    parts = [f"no test items: {', '.join(case.unmeasured)}"] if case.unmeasured else []
    parts += [f"{judged_items} judged items left out"] if judged_items else []
    return f" ({'; '.join(parts)})" if parts else ""


def _known(case: Case, model: str) -> bool:
    """Whether nothing was left to learn on the changed leaves."""
    scores = case.scores.get(model, {})
    return all(scores[item.id].value == 1.0 for item in case.changed if item.id in scores and not item.unanswerable)


def _no_harm(case: Case) -> dict[str, Any]:
    name = "no harm elsewhere"
    worse = [leaf["name"] for leaf in case.comparison["leaves"] if _regressed(leaf)]
    sure = [leaf for leaf in worse if not _only_judged(leaf, case)]
    if sure:
        return _rule(name, FAIL, f"significantly worse than {case.release}: {', '.join(sure)}")
    if worse:
        return _rule(name, INCONCLUSIVE, f"{', '.join(worse)} worse than {case.release}, but only by {_UNTRUSTED}")
    if not case.unchanged:
        return _rule(name, PASS, "no leaf got significantly worse; every leaf counts as changed")
    return _not_worse(name, "unchanged leaves", case.unchanged, case.rules.margin, case)


def _general(case: Case) -> dict[str, Any]:
    if not case.general:
        detail = "not measured: there is no general suite, so forgetting beyond the taxonomy would not show"
        return _rule(GENERAL, PASS, detail, applies=False)
    return _not_worse(GENERAL, "general suite", case.general, case.rules.general_margin, case)


def _not_worse(name: str, what: str, items: Sequence[Item], margin: float, case: Case) -> dict[str, Any]:
    """Non-inferiority: the lower bound of the change against the release lies above -``margin``.

    It fails if it is significantly worse and by the margin or more; in between nobody knows yet.
    """
    if case.release == case.comparison["candidate"]:
        return _rule(name, INCONCLUSIVE, f"{what}: there is nothing to compare with; {_MORE}")
    change = case.change(name, items, case.release)
    figures, allowed = _figures(change), f"a loss of up to {100 * margin:.2g} is accepted"
    detail = f"{what}: {_said(change, 1)} percentage points against {case.release}, {allowed}"
    if change.low is not None and change.high is not None and change.mean is not None:
        if change.low > -margin:
            return _rule(name, PASS, detail, **figures)
        if change.high < 0 and change.p <= 1 - case.level and change.mean <= -margin:
            return _rule(name, FAIL, f"{detail}: worse", **figures)
    room = max(margin + min(change.mean or 0.0, 0.0), 0.005)
    count = max(items_needed(room, observed_variance(change), level=case.level), change.n + 1)
    wanted = {"change": round(room, 4), "items": count}
    return _rule(name, INCONCLUSIVE, f"{detail}; {needed_text(wanted)}", needed=wanted, **figures)


def _measured(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Both suites, and the unanswerable questions with the others."""
    verdict, details = PASS, []
    for what, group in (("items", comparison["total"]), ("general items", comparison.get("general"))):
        if group is None:
            continue
        parts = [part for part in (group, group.get("declined")) if part]
        n, count = sum(part["n"] for part in parts), sum(part["items"] for part in parts)
        details.append(f"{n} of {count} {what} have a score from every model")
        if not count or n < MEASURED * count:
            verdict = INCONCLUSIVE
            reasons = _reasons(parts)
            details[-1] += f" ({reasons})" if reasons else ""
            details[-1] += f": n >= {max(math.ceil(MEASURED * count), 1)} needed"
    return _rule("measured", verdict, "; ".join(details))


def _reasons(parts: Sequence[Mapping[str, Any]]) -> str:
    """Why items have no score, over all models, the commonest first."""
    counts: dict[str, int] = {}
    for part in parts:
        for cell in part["models"].values():
            for reason, count in cell["unscored"].items():
                counts[reason] = counts.get(reason, 0) + count
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items(), key=lambda x: (-x[1], x[0]))[:3])


_UNTRUSTED = f"a judge that nobody has calibrated: {CALIBRATE}"


def _regressed(leaf: Mapping[str, Any]) -> bool:
    """Against the release: the previous one where it was measured, else the base."""
    return bool(leaf.get("since_previous", leaf)["verdict"] == REGRESSED)


def _only_judged(leaf: str, case: Case) -> bool:
    items = [item for item in (*case.changed, *case.unchanged) if item.leaf == leaf and not item.unanswerable]
    return bool(items) and all(item.id in case.left_out for item in items)


_MORE = needed_text(needed(0, DISCORDANT))


def _said(change: Difference, digits: int = 0) -> str:
    return change_with_interval({"value": change.mean, "low": change.low, "high": change.high}, digits)


def _figures(change: Difference) -> dict[str, Any]:
    bounds = {"value": change.mean, "low": change.low, "high": change.high}
    return {**{key: None if x is None else round(x, 6) + 0.0 for key, x in bounds.items()}, "n": change.n}


def _rule(name: str, verdict: str, detail: str, **figures: Any) -> dict[str, Any]:
    """``applies`` is false of a rule that had nothing to look at."""
    nothing = {"applies": True, "value": None, "low": None, "high": None, "n": None, "needed": None}
    return {"name": name, "verdict": verdict, "detail": detail, **nothing, **figures}


def _relation(score: float, threshold: float) -> str:
    """``0.71 >= 0.60`` with as many digits as it takes to see the relation."""
    for digits in (2, 3, 4):
        if f"{score:.{digits}f}" != f"{threshold:.{digits}f}" or score == threshold:
            break
    return f"{score:.{digits}f} {'>=' if score >= threshold else '<'} {threshold:.{digits}f}"


def _line(stated: Stated, threshold: float, because: str) -> str:
    if stated.value is None:
        return f"no score, threshold {threshold:.2f}: {because}"
    count = "1 item" if stated.n == 1 else f"{stated.n} items"
    used = " and ".join(name for name, value in stated.metrics.items() if value.mean is not None)
    return f"score {_relation(stated.value, threshold)} ({used}, {count}): {because}"


def _because(verdict: str, rules: Sequence[Mapping[str, Any]]) -> str:
    """The verdict in capitals and the rules that made it so, but for a missed threshold, which the line shows."""
    causes = [f"{rule['name']}: {rule['detail']}" for rule in rules if rule["verdict"] == verdict]
    others = [cause for cause in causes if not (verdict == FAIL and cause.startswith("threshold"))]
    return verdict.upper() if verdict == PASS or not others else f"{verdict.upper()} ({'; '.join(others)})"
