"""What the judged benchmarks share: judgments become rows, rows a result, and failures are counted and not scored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ilab.data import Judgment
from ilab.errors import ServiceError
from ilab.evaluation.benchmarks.result import BenchmarkResult, Group, Row
from ilab.evaluation.judge import NO_ANSWER, Judge, disagreement
from ilab.evaluation.rubric import Asked, Rubric
from ilab.evaluation.rule_judge import BY_RULE
from ilab.evaluation.statistics import clustered_standard_error


def row_of(asked: Asked, found: Judgment, rubric: Rubric, **details: Any) -> Row:
    """One judged answer, its score on the rubric's scale."""
    score = None if found.mark is None else round(rubric.mark(found.mark), 6)
    told = {"marks": list(found.marks), "judgment": "\n\n".join(found.replies), **details}
    return Row(
        id=asked.item,
        group=asked.leaf,
        question=asked.question,
        answer=asked.answer,
        reference=asked.reference,
        score=score,
        note=found.note,
        details=told,
    )


def result_of(
    benchmark: str, judge: Judge, rubric: Rubric, rows: Sequence[Row], judgments: Sequence[Judgment], **told: Any
) -> BenchmarkResult:
    """The result of one model. ``n`` counts what is scored; ``told`` are the other fields.

    Raises ``ServiceError`` where nothing could be scored, with the reasons.
    """
    model = judgments[0].model if judgments else ""
    scored = [row.score for row in rows if row.score is not None]
    unscored = reasons(rows)
    if not scored:
        raise _nothing(benchmark, model, judge, unscored, len(rows))
    groups = [
        group_of(name, [row for row in rows if row.group == name]) for name in dict.fromkeys(r.group for r in rows)
    ]
    notes = list(told.pop("notes", ()))
    if judge.by_rule:
        notes.append(f"judge {judge.name}: {BY_RULE}")
    apart = disagreement(judgments)
    if apart is not None:
        notes.append(f"the order of reference and answer moved the judge's mark by {apart:.2f} on average")
    return BenchmarkResult(
        benchmark=benchmark,
        model=model,
        judge=judge.name,
        scale=(rubric.low, rubric.high),
        **{"score": mean(scored), "groups": tuple(groups), **told},
        micro=mean(scored),
        macro=mean([group.score for group in groups if group.score is not None]),
        n=len(scored),
        unscored=unscored,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def group_of(name: str, rows: Sequence[Row]) -> Group:
    """A group's mean; rows of one question (its turns) are one cluster for the standard error."""
    scored = [(row.score, str(row.details.get("question_id", row.id))) for row in rows if row.score is not None]
    values = [score for score, _ in scored]
    error = clustered_standard_error(values, [cluster for _, cluster in scored])
    return Group(
        name=name,
        score=mean(values),
        standard_error=None if error is None else round(error, 6),
        n=len(values),
        unscored=reasons(rows),
    )


def reasons(rows: Sequence[Row]) -> dict[str, int]:
    """Why rows have no score, and how many of each."""
    return dict(sorted(Counter(row.note.partition(":")[0] for row in rows if row.score is None).items()))


def error_rate(result: BenchmarkResult) -> float:
    """The share of rows without a score."""
    return round(1 - result.n / len(result.rows), 6) if result.rows else 0.0


def mean(values: Sequence[float]) -> float | None:
    return round(math.fsum(values) / len(values), 6) if values else None


def _nothing(benchmark: str, model: str, judge: Judge, unscored: dict[str, int], rows: int) -> ServiceError:
    why = "; ".join(f"{name} ({count})" for name, count in unscored.items())
    hint = f"try the judge by itself: ilab endpoint check URL --model {judge.name}"
    if set(unscored) == {NO_ANSWER}:
        hint = f"ask the model something by itself: ilab model chat --model {model}"
    return ServiceError(f"{benchmark}: none of {rows} answers of {model} could be scored: {why}", hint=hint)
