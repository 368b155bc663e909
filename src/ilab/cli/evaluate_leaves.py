"""The benchmark ``leaves``: the project's held-out questions, asked and marked as its runs do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ilab.errors import InputError, Stopped

if TYPE_CHECKING:
    from ilab.cli.evaluate_run import Job
    from ilab.cli.model_evaluate import Measured
    from ilab.config import Loaded
    from ilab.data import Item, Judgment, Score
    from ilab.evaluation.benchmarks.result import BenchmarkResult
    from ilab.evaluation.judge import Judge


def items_of(loaded: Loaded) -> list[Item]:
    """The project's held-out items. Raises ``InputError`` where it has none yet."""
    from ilab.artifacts import Items
    from ilab.transfer.stores import latest_of

    folder = latest_of(loaded, "items")
    found = Items(folder).items() if folder.is_dir() else []
    if not found:
        raise InputError("this project has no held-out items yet", where=str(loaded.base), hint="ilab run")
    return found


def measure_leaves(job: Job) -> dict[str, BenchmarkResult]:
    """The result of each model by its role. With a judge, written answers get its marks, as in a run."""
    from ilab.artifacts import Documents
    from ilab.evaluation.drawn import drawn
    from ilab.evaluation.judging import judge_scores
    from ilab.evaluation.passages import passages
    from ilab.transfer.stores import latest_of

    every = [item for item in items_of(job.loaded) if item.split == "test"]
    items = drawn(every, job.given["limit"], job.given["seed"], lambda item: (item.leaf, item.id))
    documents = latest_of(job.loaded, "documents")
    read = passages(items, Documents(documents).chunks()) if documents.is_dir() else {}
    judge = job.judge() if job.given["judge_model"] or job.given["judge_endpoint"] else None
    results = {}
    for role, model in job.models.items():
        scores = _scores(job, model, items, read)
        if len(scores) < len(items):
            raise Stopped("evaluation stopped", hint="run the same command to go on")
        judgments: list[Judgment] = []
        if judge is not None:
            scores, judgments = judge_scores(scores, items, job.subject(model), judge)
        result = _result(model.name, items, scores, judgments)
        results[role] = result if judge is None else _judged(result, judge, judgments)
    return results


def _scores(job: Job, model: Measured, items: Sequence[Item], read: Mapping[str, str]) -> list[Score]:
    from ilab.evaluation.asking import Asking
    from ilab.evaluation.leaf import Source, score_items, score_with
    from ilab.models.device import pick_device

    if model.folder is None:
        served = job.served(model)
        return score_with(
            model.name, Source(served.identity, lambda: (served, served.likelihoods)), items, read, job.site
        )
    where, batch = job.engine.where, job.given["batch_size"]
    asking = Asking(pick_device(where.device), where.threads, "auto" if batch == "auto" else int(batch), read)
    return score_items(model.name, model.folder, items, asking, job.site)


def _result(
    model: str, items: Sequence[Item], scores: Sequence[Score], judgments: Sequence[Judgment]
) -> BenchmarkResult:
    """Scores of held-out items as a benchmark's result, with what the judge said of each."""
    from ilab.evaluation.benchmarks.choices import summarise
    from ilab.evaluation.benchmarks.result import Row

    asked = {item.id: item for item in items}
    said: dict[str, dict[str, Any]] = {
        one.item: {"marks": list(one.marks), "judgment": "\n\n".join(one.replies)} for one in judgments
    }
    rows = [
        Row(
            id=score.item,
            group=score.leaf,
            question=asked[score.item].question,
            answer=score.answer,
            reference=asked[score.item].gold,
            score=score.value,
            note=score.note,
            details={"kind": score.kind, "cluster": score.cluster, **score.metrics, **said.get(score.item, {})},
        )
        for score in scores
    ]
    how = "held-out items of the test split, closed book; plain mean of the leaves"
    return summarise("leaves", model, rows, how)


def _judged(result: BenchmarkResult, judge: Judge, judgments: Sequence[Judgment]) -> BenchmarkResult:
    """``result`` with the judge's name, what its marks come to, and what they hang on."""
    from ilab.evaluation.judge import disagreement
    from ilab.evaluation.rule_judge import BY_RULE

    marks = [one.mark for one in judgments if one.mark is not None]
    notes = [f"judge {judge.name}: {len(marks)} of {len(judgments)} answers marked"]
    if marks:
        notes[0] += f", {sum(marks) / len(marks):.2f} of 1 on average"
    if judge.by_rule:
        notes.append(f"judge {judge.name}: {BY_RULE}")
    apart = disagreement(judgments)
    if apart is not None:
        notes.append(f"the order of reference and answer moved the judge's mark by {apart:.2f} on average")
    return result.model_copy(update={"judge": judge.name, "notes": (*result.notes, *notes)})
