"""Evaluation as the pipeline sees it: score, select, compare, gate. Artifacts in, one artifact out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilab.artifacts import Candidates, Checkpoint, Report
from ilab.core.files import take_over
from ilab.core.step import Counts, Site
from ilab.data import Chunk, Item, Score
from ilab.errors import Stopped
from ilab.evaluation.baseline import choices_only, open_book
from ilab.evaluation.choose import By, choose, leaf_weights
from ilab.evaluation.compare import compare
from ilab.evaluation.gate import OnInconclusive, decide


def evaluate(models: Mapping[str, Path], items: Sequence[Item], split: str, out: Report, site: Site) -> Counts:
    """Score every model on every item. A split without items gives an empty report, not an error."""
    scores: list[Score] = []
    for name, folder in models.items() if items else ():
        scores += _scores_of(name, folder, items, site)
    means: dict[str, Any] = {name: _mean([score.value for score in scores if score.model == name]) for name in models}
    out.write({"split": split, "items": len(items), "mean": means}, scores)
    return {"models": len(models), "items": len(items)}


def _scores_of(name: str, folder: Path, items: Sequence[Item], site: Site) -> list[Score]:
    """One model's scores. Raises ``Stopped`` where some are missing; those that there are, are not asked for again."""
    from ilab.evaluation.asking import Asking
    from ilab.evaluation.leaf import score_items
    from ilab.models.device import pick_device

    asking = Asking(pick_device(site.where.device), site.where.threads, "auto", {})
    scores = score_items(name, folder, items, asking, site)
    if len(scores) < len(items):
        raise Stopped("evaluation stopped", hint="run the same command to go on")
    return scores


def select(candidates: Candidates, evaluation: Report | None, by: By, out: Checkpoint) -> Counts:
    """Take over the chosen candidate, with the rule and the weights of leaves that are still weak."""
    scores: dict[str, list[Score]] = {}
    for score in evaluation.scores() if evaluation else ():
        scores.setdefault(score.model, []).append(score)
    choice = choose(candidates.index(), scores, by)
    name = choice["name"]
    shutil.copytree(candidates.models()[name], out.model, copy_function=take_over)
    out.write_choice({**choice, "weights": leaf_weights(scores.get(name, []))})
    return {"candidates": len(candidates.index())}


def compare_models(models: Mapping[str, Report], items: Sequence[Item], chunks: Sequence[Chunk], out: Report) -> Counts:
    """All models on the same items, with the baselines that need no model beside them."""
    # The mapping's order in the pipeline file says which is the base and which the candidate.
    scores = {name: report.scores() for name, report in models.items()}
    baselines = {"open book": open_book(items, chunks), "choices only": choices_only(items)}
    comparison = compare(scores, items, baselines)
    out.write(
        comparison, [score.model_copy(update={"model": name}) for name, found in scores.items() for score in found]
    )
    return {"models": len(models), "items": len(items), "leaves": len(comparison["leaves"])}


def gate(
    evaluation: Report,
    items: Sequence[Item],
    rule: tuple[float, Sequence[str], OnInconclusive],
    out: Report,
) -> Counts:
    """Write the verdict. ``rule`` is (threshold, metrics, what to do when nobody can know yet)."""
    comparison = evaluation.report()
    candidate = [score for score in evaluation.scores() if score.model == comparison["candidate"]]
    threshold, metrics, on_inconclusive = rule
    decision = decide(
        comparison, candidate, items, threshold=threshold, metrics=metrics, on_inconclusive=on_inconclusive
    )
    out.write(decision)
    return {"items": decision["items"], "published": int(decision["publish"])}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None
