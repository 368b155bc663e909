"""Two models on the same benchmark, question by question: what changed, and what may be chance.

InstructLab lists every group whose mean moved as improved or regressed; with nothing changed at all, 30 questions are
listed so four times in five. Here a group moves only if its paired difference says so
(:mod:`ilab.evaluation.compare`: clustered, corrected for the number of groups). The files that InstructLab's pipeline
reads keep their names and keys; ``summary`` stands in them as the JSON string that it expects, and as an object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ilab.data import Item, Score
from ilab.evaluation.benchmarks.result import BenchmarkResult
from ilab.evaluation.compare import IMPROVED, REGRESSED, compare
from ilab.evaluation.statistics import LEVEL, Interval, clustered_standard_error, proportion, t_quantile

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
            cluster=str(row.details.get("cluster", row.id)),
        )
        for row in rows.values()
    ]
    return compare({BASE: scores_of(base), CANDIDATE: scores_of(candidate)}, items)


def scores_of(result: BenchmarkResult) -> list[Score]:
    """The rows as scores in 0..1."""
    low, high = result.scale
    return [
        Score(
            item=row.id,
            leaf=row.group,
            model=result.model,
            kind="free",
            cluster=str(row.details.get("cluster", row.id)),
            value=None if row.score is None else (row.score - low) / (high - low),
            answer=row.answer,
            note=row.note,
        )
        for row in result.rows
    ]


def summary(base: BenchmarkResult, candidate: BenchmarkResult, comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The four lists of InstructLab's report, by verdict: improvements, regressions, no_changes, new.

    Scores are means over the questions that both models have a score on; ``new`` are groups that the base has not.
    """
    low, high = candidate.scale
    known = {group.name for group in base.groups if group.n}
    own = {group.name: group.score for group in candidate.groups if group.n}
    lists: dict[str, list[dict[str, Any]]] = {"improvements": [], "regressions": [], "no_changes": [], "new": []}
    for leaf in comparison["leaves"]:
        name = leaf["name"]
        if name not in known:
            if name in own:
                lists["new"].append({"qna": name, "average_score": own[name]})
            continue
        before, after = (_on_scale(leaf["models"][model]["value"], low, high) for model in (BASE, CANDIDATE))
        if before is None or after is None:
            continue
        if leaf["verdict"] in (IMPROVED, REGRESSED):
            entry = {"task": name, "base_score": before, "new_score": after, "delta": round(after - before, 4)}
            lists["improvements" if leaf["verdict"] == IMPROVED else "regressions"].append(entry)
        else:
            lists["no_changes"].append({"task": name, "average_score": after})
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


def mt_bench_data(result: BenchmarkResult | None) -> dict[str, Any]:
    """``mt_bench_data.json``: the one model that was measured is the best. Null where the benchmark was skipped."""
    if result is None:
        return {"best_model": None, "best_score": None, "reports": []}
    turns = {group.name: group.score for group in result.groups if group.name.startswith("turn")}
    report = {
        "report_title": TITLES["mt_bench"],
        "model": result.model,
        "judge_model": result.judge,
        "max_score": "10.0",
        "overall_score": result.score,
        "turn_scores": [turns[name] if turns[name] is not None else "N/A" for name in sorted(turns)],
        "qa_scores": [
            {
                "question_id": row.id,
                "score": row.score,
                "category": row.group,
                "question": row.question,
                "answer": row.answer,
            }
            for row in result.rows
        ],
        "error_rate": error_rate(result),
    }
    return {"best_model": result.model, "best_score": result.score, "reports": [report]}


def error_rate(result: BenchmarkResult) -> float:
    """The share of rows that nobody could score."""
    return round(sum(row.score is None for row in result.rows) / len(result.rows), 6) if result.rows else 0.0


def interval(result: BenchmarkResult) -> Interval:
    """Bounds of the score on its scale. For a mean of groups the groups' errors add up: they share no question.

    None where a group has too few questions to tell.
    """
    low, high = result.scale
    scored = [row for row in result.rows if row.score is not None]
    if result.score is None or not scored:
        return Interval(None, None)
    clusters = [str(row.details.get("cluster", row.id)) for row in scored]
    if result.score == result.micro and all(row.score in result.scale for row in scored):
        share = proportion([((row.score or 0.0) - low) / (high - low) for row in scored], clusters)
        return Interval(_on_scale(share.low, low, high), _on_scale(share.high, low, high))
    if result.score == result.micro:
        error, freedom = (
            clustered_standard_error([row.score or 0.0 for row in scored], clusters),
            len(set(clusters)) - 1,
        )
    else:
        errors = [group.standard_error for group in result.groups if group.n]
        known = [one for one in errors if one is not None]
        freedom = len(set(clusters)) - len(errors)
        error = math.sqrt(math.fsum(one * one for one in known)) / len(errors) if len(known) == len(errors) else None
    if error is None or freedom < 1:
        return Interval(None, None)
    reach = t_quantile(LEVEL, freedom) * error
    return Interval(round(max(low, result.score - reach), 6), round(min(high, result.score + reach), 6))


def _nothing() -> dict[str, Any]:
    return {"improvements": [], "regressions": [], "no_changes": [], "new": []}


def _on_scale(share: float | None, low: float, high: float) -> float | None:
    return None if share is None else round(low + share * (high - low), 6)
