"""Steps that measure models, choose among them and decide. See :mod:`ilab.steps`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from ilab.artifacts import Candidates, Checkpoint, Dataset, Documents, Items, Report, Taxonomy
from ilab.core.step import Counts, Resolve, Site, Step
from ilab.data import Split
from ilab.errors import InputError


class Suite(Step):
    """What models are measured on at the end: the held-out items, and questions that have nothing to do with the
    taxonomy (did training cost what the base knew?). ``general`` is the hash of the latter; empty: none. Before each of
    them stand ``shots`` solved ones of its subject.
    """

    type: ClassVar[str] = "suite"
    version: ClassVar[int] = 2
    cheap: ClassVar[bool] = True
    general: Annotated[str, Resolve("general")] = ""
    shots: int = 0

    def run(self, items: Items, *, out: Items, site: Site) -> Counts:
        from ilab.evaluation.general import read_general, with_shots

        details = site.locate(self.general).details if self.general else None
        general = with_shots(read_general(Path(details["path"])), self.shots) if details else []
        return {"items": out.write([*items.items(), *general], [])[0], "general": len(general)}


class Calibrate(Step):
    """Does the judge agree with people? ``marks`` is the hash of a file of answers that people marked."""

    type: ClassVar[str] = "calibrate"
    judge: str = ""
    marks: Annotated[str, Resolve("marks")] = ""

    def run(self, *, out: Report, site: Site) -> Counts:
        from ilab.evaluation.judging import calibrate_judge

        return calibrate_judge(self.judge, site.locate(self.marks) if self.marks else None, out, site)


class Evaluate(Step):
    """Scores of one model, or of all candidates of a phase, on the held-out items of one split.

    A ``judge`` marks written answers, also to questions that are multiple choice otherwise. With ``open_book`` each
    item is asked a second time beside its passage.
    """

    type: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 2
    split: Split
    judge: str = ""
    open_book: bool = False

    def run(
        self,
        model: Candidates | Checkpoint,
        items: Items,
        documents: Documents | None = None,
        *,
        out: Report,
        site: Site,
    ) -> Counts:
        from ilab.evaluation.stage import evaluate

        chunks = documents.chunks() if documents and self.open_book else []
        return evaluate(model.models(), (self.split, items.items(self.split)), chunks, self.judge, out, site)

    def expect(self, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
        from ilab.evaluation.judging import expect_judgments

        return expect_judgments(self.judge, len(inputs["model"].models()), inputs["items"].items(self.split))


class Select(Step):
    """The checkpoint a phase hands on: the earliest within one standard error of the best on the dev items.

    ``by`` takes the score (of the leaves' items, or a judge's, whichever is wired), the loss on held-out rows, the
    ``last``, or the first of these that there is.
    """

    type: ClassVar[str] = "select"
    by: Literal["auto", "score", "loss", "last"] = "auto"

    def run(self, candidates: Candidates, evaluation: Report | None = None, *, out: Checkpoint, site: Site) -> Counts:
        from ilab.evaluation.stage import select

        return select(candidates, evaluation, self.by, out)


class Answers(Step):
    """What several models answer to the questions of a dataset, beside the answers that are expected."""

    type: ClassVar[str] = "answers"
    max_tokens: int = 200

    def run(self, models: Mapping[str, Checkpoint], questions: Dataset, *, out: Report, site: Site) -> Counts:
        from ilab.evaluation.before_after import compare_answers

        folders = {name: checkpoint.model for name, checkpoint in models.items()}
        return compare_answers(folders, questions.rows(), self.max_tokens, out, site)


class MtBench(Step):
    """General skills in conversation, marked by the judge; without a judge nothing. ``questions`` is their hash."""

    type: ClassVar[str] = "mt-bench"
    judge: str = ""
    questions: Annotated[str, Resolve("mt-bench")] = ""

    def run(self, models: Mapping[str, Checkpoint], *, out: Report, site: Site) -> Counts:
        from ilab.evaluation.judging import mt_bench

        questions = site.locate(self.questions) if self.questions else None
        return mt_bench(self.judge, questions, models, out, site)


class MtBenchBranch(Step):
    """The seed examples of all skills, asked again and marked by the judge; without a judge nothing."""

    type: ClassVar[str] = "mt-bench-branch"
    judge: str = ""

    def run(self, taxonomy: Taxonomy, models: Mapping[str, Checkpoint], *, out: Report, site: Site) -> Counts:
        from ilab.evaluation.judging import mt_bench_branch

        return mt_bench_branch(self.judge, taxonomy.leaves(), models, out, site)


class Compare(Step):
    """The final evaluation: all models on the same test items, per leaf, paired, with intervals and baselines.

    ``order`` names the models, the base first and the candidate last: what is wired by name has none of its own.
    """

    type: ClassVar[str] = "compare"
    version: ClassVar[int] = 3
    order: tuple[str, ...]

    def run(
        self,
        models: Mapping[str, Report],
        items: Items,
        documents: Documents,
        *,
        out: Report,
        site: Site,
    ) -> Counts:
        from ilab.evaluation.stage import compare_models

        if sorted(self.order) != sorted(models):
            hint = f"order: [{', '.join(models)}], the base first and the candidate last"
            raise InputError("`order` names other models than are wired", where="step compare", hint=hint)
        ordered = {name: models[name] for name in self.order}
        return compare_models(ordered, items.items("test"), documents.chunks(), out)


class Gate(Step):
    """May this model be published? Always writes its verdict; a failed or open one is a result too.

    ``margin`` and ``general_margin`` are the losses that are borne on unchanged leaves and on the general suite;
    ``score`` is what must reach the threshold, the estimate or its lower bound; ``publish_anyway`` lets it through
    whatever the verdict, and the lineage says so.
    """

    type: ClassVar[str] = "gate"
    version: ClassVar[int] = 2
    threshold: float = 0.8
    metrics: tuple[str, ...] = ("accuracy", "f1")
    margin: float = 0.05
    general_margin: float = 0.03
    score: Literal["point", "lower"] = "point"
    on_inconclusive: Literal["stop", "publish"] = "stop"
    publish_anyway: bool = False

    def run(
        self,
        evaluation: Report,
        items: Items,
        taxonomy: Taxonomy | None = None,
        previous: Candidates | None = None,
        judge: Report | None = None,
        *,
        out: Report,
        site: Site,
    ) -> Counts:
        from ilab.evaluation.stage import Release, gate

        return gate(self, evaluation, items.items("test"), Release(taxonomy, previous, judge), out)
