"""Evaluation as the pipeline sees it: score, select, compare, gate. Artifacts in, one artifact out."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ilab.artifacts import Candidates, Checkpoint, Report, Taxonomy
from ilab.core.files import take_over
from ilab.core.step import Counts, Site
from ilab.data import Chunk, Item, Judgment, Score
from ilab.errors import Stopped
from ilab.evaluation.baseline import choices_only, open_book
from ilab.evaluation.choose import By, choose, leaf_weights
from ilab.evaluation.compare import GENERAL, compare, kind_of
from ilab.evaluation.gate import OnInconclusive, Rules, decide
from ilab.evaluation.judging import JUDGE, judge_scores, the_judge, told
from ilab.evaluation.subject import local_subject


class GateFields(Protocol):
    """The fields of the step ``gate``."""

    @property
    def threshold(self) -> float: ...
    @property
    def metrics(self) -> Sequence[str]: ...
    @property
    def margin(self) -> float: ...
    @property
    def general_margin(self) -> float: ...
    @property
    def score(self) -> Literal["point", "lower"]: ...
    @property
    def on_inconclusive(self) -> OnInconclusive: ...
    @property
    def publish_anyway(self) -> bool: ...


@dataclass(frozen=True)
class Release:
    """What the gate looks at besides scores: today's leaves, the release to be replaced, the judge's calibration."""

    taxonomy: Taxonomy | None = None
    previous: Candidates | None = None
    judge: Report | None = None

    def changed(self) -> frozenset[str] | None:
        """Today's leaves that teach something else than the release was taught; None (all) where nobody knows."""
        taught = next((one.get("leaves") for one in self.previous.index()), None) if self.previous else None
        if not taught or self.taxonomy is None:
            return None
        return frozenset(leaf.path for leaf in self.taxonomy.leaves() if taught.get(leaf.path) != leaf.digest)


def evaluate(
    models: Mapping[str, Path],
    asked: tuple[str, Sequence[Item]],
    chunks: Sequence[Chunk],
    judge: str,
    out: Report,
    site: Site,
) -> Counts:
    """Score every model on every item of a split; ``asked`` is (split, items). No items or models: an empty report.

    With ``chunks`` the items are asked beside their passage as well. What is scored, answered or judged is kept one by
    one, by contents: nothing is asked twice, and a checkpoint is scored once whatever it is called.
    """
    from ilab.evaluation.asking import Asking
    from ilab.evaluation.leaf import score_items
    from ilab.evaluation.passages import passages
    from ilab.models.device import pick_device

    split, items = asked
    own = [item for item in items if kind_of(item.leaf) != GENERAL]
    final, place = split == "test", site.where.evaluate
    batch = (place.final_batch if final else None) or place.batch or "auto"
    asking = Asking(pick_device(site.where.device), site.where.threads, batch, passages(own, chunks) if chunks else {})
    chosen = the_judge(judge, site, place.final_workers if final else None) if own else None
    scores: list[Score] = []
    judgments: list[Judgment] = []
    for name, folder in models.items() if items else ():
        found = score_items(name, folder, items, asking, site)
        if len(found) < len(items):
            raise Stopped("evaluation stopped", hint="run the same command to go on")
        if chosen is not None:
            found, said = judge_scores(found, items, local_subject(name, folder, site), chosen)
            judgments += said
        scores += found
    means = {name: _mean([score.value for score in scores if score.model == name]) for name in models}
    report = {"split": split, "items": len(items), "mean": means, "judging": told(judge, judgments)}
    out.write(report, scores, judgments)
    return {"models": len(models), "items": len(items), **({"judged": len(judgments)} if chosen else {})}


def select(candidates: Candidates, evaluation: Report | None, by: By, out: Checkpoint) -> Counts:
    """Take over the chosen candidate, with the rule and the weights of leaves that are still weak.

    Where a judge has marked the answers, its marks choose and weigh.
    """
    scores: dict[str, list[Score]] = {}
    for score in evaluation.scores() if evaluation else ():
        scores.setdefault(score.model, []).append(_as_judged(score))
    choice = choose(candidates.index(), scores, by)
    name = choice["name"]
    shutil.copytree(candidates.models()[name], out.model, copy_function=take_over)
    judging = evaluation.report().get("judging", {}) if evaluation else {}
    out.write_choice({**choice, "judge": judging.get("judge"), "weights": leaf_weights(scores.get(name, []))})
    return {"candidates": len(candidates.index())}


def _as_judged(score: Score) -> Score:
    mark = score.metrics.get(JUDGE)
    return score if mark is None else score.model_copy(update={"value": mark})


def compare_models(models: Mapping[str, Report], items: Sequence[Item], chunks: Sequence[Chunk], out: Report) -> Counts:
    """All models on the same items, with the baselines that need no model beside them.

    The first of ``models`` is the base, the last the candidate. A model that there is none of (no previous release) is
    left out.
    """
    found = {name: report.scores() for name, report in models.items()}
    first, last = next(iter(found)), next(reversed(found))
    scores = {name: one for name, one in found.items() if one or name in (first, last) or not items}
    own = [item for item in items if kind_of(item.leaf) != GENERAL]
    baselines = {"open book": open_book(own, chunks), "choices only": choices_only(own)}
    comparison = compare(scores, items, baselines)
    judging = [report.report().get("judging", {}) for report in models.values()]
    comparison["judging"] = _together([one for one in judging if one.get("judge")])
    out.write(
        comparison,
        [score.model_copy(update={"model": name}) for name, one in scores.items() for score in one],
        [said.model_copy(update={"model": name}) for name, report in models.items() for said in report.judgments()],
    )
    return {"models": len(scores), "items": len(items), "leaves": len(comparison["leaves"])}


def _together(judging: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said of the judge over all models; without one that there is none."""
    if not judging:
        return told("", [])
    unscored: Counter[str] = Counter()
    for one in judging:
        unscored.update(one["unscored"])
    marked = sum(one["marked"] for one in judging)
    return {**judging[0], "marked": marked, "unscored": dict(sorted(unscored.items())), "passes_apart": None}


def gate(fields: GateFields, evaluation: Report, items: Sequence[Item], release: Release, out: Report) -> Counts:
    """Write the verdict, and whether the model is let through in spite of it."""
    judge = release.judge.report() if release.judge else {}
    rules = Rules(
        changed=release.changed(),
        margin=fields.margin,
        general_margin=fields.general_margin,
        on=fields.score,
        judge_trusted=bool(judge.get("trusted")),
    )
    decision = decide(
        evaluation.report(),
        evaluation.scores(),
        items,
        threshold=fields.threshold,
        metrics=fields.metrics,
        on_inconclusive=fields.on_inconclusive,
        rules=rules,
    )
    anyway = fields.publish_anyway and not decision["publish"]
    if anyway:
        line = f"{decision['line']}; published anyway (publish_anyway)"
        decision = {**decision, "publish": True, "line": line}
    out.write({**decision, "published_anyway": anyway, "judge": judge})
    return {"items": decision["items"], "published": int(decision["publish"])}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None
