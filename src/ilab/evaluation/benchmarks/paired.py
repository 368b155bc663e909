"""Two models on the same benchmark, question by question: what changed, and what may be chance.

InstructLab lists every group whose mean moved as improved or regressed; with nothing changed at all, 30 questions are
listed so four times in five. Here a group moves only if its paired difference says so
(:mod:`ilab.evaluation.compare`: clustered, corrected for the number of groups). The files that InstructLab's pipeline
reads keep their names and keys; ``summary`` stands in them as the JSON string that it expects, and as an object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ilab.data import Item, Score
from ilab.evaluation.benchmarks.judged import error_rate
from ilab.evaluation.benchmarks.result import BenchmarkResult, Row
from ilab.evaluation.compare import IMPROVED, REGRESSED, compare
from ilab.evaluation.statistics import Interval, Mean, mean_interval, proportion

TITLES = {
    "mmlu": "KNOWLEDGE EVALUATION REPORT",
    "mmlu_branch": "KNOWLEDGE EVALUATION REPORT",
    "mt_bench": "SKILLS EVALUATION REPORT",
    "mt_bench_branch": "SKILLS EVALUATION REPORT",
    "dk_bench": "DK-BENCH REPORT",
    "tasks": "TASKS REPORT",
    "leaves": "LEAF EVALUATION REPORT",
}
BASE, CANDIDATE = "base", "candidate"


def compare_results(base: BenchmarkResult, candidate: BenchmarkResult) -> dict[str, Any]:
    """The comparison of :func:`ilab.evaluation.compare.compare`, groups as leaves, scores as shares of the scale."""
    rows = {row.id: row for row in (*base.rows, *candidate.rows)}
    items = [
        Item(
            id=row.id,
            leaf=row.group,
            split="test",
            kind="free",
            question=row.question,
            gold=row.reference or "",
            cluster=str(row.details.get("cluster", row.details.get("question_id", row.id))),
        )
        for row in rows.values()
    ]
    return compare({BASE: scores_of(base), CANDIDATE: scores_of(candidate)}, items)


def compared(
    results: Mapping[str, BenchmarkResult],
) -> tuple[BenchmarkResult, BenchmarkResult | None, dict[str, Any] | None]:
    """Candidate, base and their comparison, of results by role; the latter two are None without a base.

    Raises ``KeyError`` without a candidate.
    """
    candidate, base = results[CANDIDATE], results.get(BASE)
    return candidate, base, compare_results(base, candidate) if base else None


def scores_of(result: BenchmarkResult) -> list[Score]:
    """The rows as scores in 0..1."""
    low, high = result.scale
    return [
        Score(
            item=row.id,
            leaf=row.group,
            model=result.model,
            kind="free",
            cluster=str(row.details.get("cluster", row.details.get("question_id", row.id))),
            value=None if row.score is None else (row.score - low) / (high - low),
            answer=row.answer,
            note=row.note,
        )
        for row in result.rows
    ]


def summary(base: BenchmarkResult, candidate: BenchmarkResult, comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The four lists of InstructLab's report, by verdict: improvements, regressions, no_changes, new.

    Scores are means over the questions that both models have a score on; ``new`` are groups that the base has not.
    Skills go by the file of their leaf, as in InstructLab's report.
    """
    file = "/qna.yaml" if candidate.benchmark == "mt_bench_branch" else ""
    low, high = candidate.scale
    known = {group.name for group in base.groups if group.n}
    own = {group.name: group.score for group in candidate.groups if group.n}
    lists: dict[str, list[dict[str, Any]]] = {"improvements": [], "regressions": [], "no_changes": [], "new": []}
    for leaf in comparison["leaves"]:
        name = leaf["name"]
        if name not in known:
            if name in own:
                lists["new"].append({"qna": f"{name}{file}", "average_score": own[name]})
            continue
        means = [_on_scale(leaf["models"][model]["value"], low, high) for model in (BASE, CANDIDATE)]
        if None in means:
            continue
        before, after = (round(mean or 0.0, 4) for mean in means)
        if leaf["verdict"] in (IMPROVED, REGRESSED):
            entry = {
                "task": f"{name}{file}",
                "base_score": before,
                "new_score": after,
                "delta": round(after - before, 4),
            }
            lists["improvements" if leaf["verdict"] == IMPROVED else "regressions"].append(entry)
        else:
            lists["no_changes"].append({"task": f"{name}{file}", "average_score": after})
    for moved in (lists["improvements"], lists["regressions"]):
        moved.sort(key=lambda entry: (-abs(entry["delta"]), entry["task"]))
    return lists


def branch_data(
    benchmark: str,
    candidate: BenchmarkResult | None,
    base: BenchmarkResult | None = None,
    comparison: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``mmlu_branch_data.json`` and ``mt_bench_branch_data.json`` as InstructLab's pipeline writes them.

    Without a candidate (the benchmark was skipped) every key is there all the same, and the scores are null.
    """
    lists = summary(base, candidate, comparison) if base and candidate and comparison else _nothing()
    judged = benchmark == "mt_bench_branch"
    data: dict[str, Any] = {
        "report_title": TITLES[benchmark],
        "max_score": "10.0" if judged else "1.0",
        "model": candidate.model if candidate else None,
        "trained_model_score": candidate.score if candidate else None,
        "base_model": base.model if base else None,
        "base_model_score": base.score if base else None,
        "summary": json.dumps(lists, sort_keys=True, ensure_ascii=False),
        "summary_object": lists,
    }
    if judged:
        rates = [error_rate(result) for result in (base, candidate) if result]
        data["judge_model"] = candidate.judge if candidate else None
        data["error_rate"] = round(sum(rates) / len(rates), 6) if rates else None
    return data


def pipeline_files() -> dict[str, dict[str, Any]]:
    """The three files that InstructLab's pipeline opens after a build, by name, as they are where nothing was measured.

    Its metrics step opens all of them: without this, a taxonomy of knowledge or of skills alone would break it.
    """
    return {
        "mmlu_branch_data.json": branch_data("mmlu_branch", None),
        "mt_bench_branch_data.json": branch_data("mt_bench_branch", None),
        "mt_bench_data.json": {"best_model": None, "best_score": None, "reports": []},
    }


def interval(result: BenchmarkResult) -> Interval:
    """Bounds of the score on its scale: of all rows where it is their mean, else of a plain mean of groups.

    Groups share no question, so their distances to the bounds add up in squares (MOVER: Zou and Donner 2008): unlike
    standard errors these are not zero where a group is all right or all wrong. None where a group cannot tell.
    """
    low, high = result.scale
    if result.score is None:
        return Interval(None, None)
    if result.score == result.micro:
        bounds = _mean_of(result, [row for row in result.rows if row.score is not None])
        return Interval(_on_scale(bounds.low, low, high), _on_scale(bounds.high, low, high))
    names = [group.name for group in result.groups if group.n]
    means = [_mean_of(result, [r for r in result.rows if r.group == name and r.score is not None]) for name in names]
    if not means or any(one.mean is None or one.low is None or one.high is None for one in means):
        return Interval(None, None)
    known = [(one.mean or 0.0, one.low or 0.0, one.high or 0.0) for one in means]
    middle = math.fsum(mean for mean, _, _ in known) / len(known)
    below = math.sqrt(math.fsum((mean - lower) ** 2 for mean, lower, _ in known)) / len(known)
    above = math.sqrt(math.fsum((upper - mean) ** 2 for mean, _, upper in known)) / len(known)
    return Interval(_on_scale(max(0.0, middle - below), low, high), _on_scale(min(1.0, middle + above), low, high))


def _mean_of(result: BenchmarkResult, rows: Sequence[Row]) -> Mean:
    """The mean of scored rows as a share of the scale, clustered: Wilson's bounds for right or wrong, else t's."""
    low, high = result.scale
    values = [((row.score or 0.0) - low) / (high - low) for row in rows]
    clusters = [str(row.details.get("cluster", row.details.get("question_id", row.id))) for row in rows]
    binary = all(value in (0.0, 1.0) for value in values)
    found = proportion(values, clusters) if binary else mean_interval(values, clusters)
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def _nothing() -> dict[str, Any]:
    return {"improvements": [], "regressions": [], "no_changes": [], "new": []}


def _on_scale(share: float | None, low: float, high: float) -> float | None:
    return None if share is None else round(low + share * (high - low), 6)
