"""Every step of the product on one page: its fields are its identity, ``run`` hands over to the stage that does it.

A step's inputs and output are the annotations of ``run``; how the steps are wired is data (``pipelines/*.yaml``).
Whatever is imported inside ``run`` is heavy and only needed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import StrictFloat, StrictInt

from ilab.artifacts import (
    Candidates,
    Checkpoint,
    Dataset,
    Documents,
    Items,
    Package,
    Report,
    Samples,
    Taxonomy,
)
from ilab.core.step import Counts, Resolve, Site, Step
from ilab.data import Split


class ReadTaxonomy(Step):
    """The leaves people wrote, checked. ``tree`` is the hash of the leaf files alone."""

    type: ClassVar[str] = "taxonomy"
    cheap: ClassVar[bool] = True
    tree: Annotated[str, Resolve("taxonomy")]

    def run(self, *, out: Taxonomy, site: Site) -> Counts:
        from ilab.taxonomy.locate import read_found

        reading = read_found(site.locate(self.tree))
        return {"leaves": out.write(reading.leaves), "warnings": len(reading.warnings)}


class CollectDocuments(Step):
    """The documents the leaves refer to, as Markdown, cut into chunks. ``sources`` is the hash of the files.

    ``tokenizer`` counts ``chunk_tokens``; ``context`` is the teacher's window, which a request must fit into.
    ``policy`` says what becomes of text that speaks to a model instead of a reader.
    """

    type: ClassVar[str] = "documents"
    version: ClassVar[int] = 2
    cheap: ClassVar[bool] = True
    sources: Annotated[str, Resolve("documents")]
    tokenizer: Annotated[str, Resolve("tokenizer")] = ""
    chunk_tokens: int = 500
    chunk_words: int | None = None
    context: int | None = None
    policy: str = "warn"
    converter: Literal["builtin", "docling"] = "builtin"

    def run(self, taxonomy: Taxonomy, *, out: Documents, site: Site) -> Counts:
        from ilab.documents.stage import Limits, collect_documents

        limits = Limits(self.chunk_tokens, self.chunk_words, self.context)
        found, reading = (self.sources, self.tokenizer), (self.policy, self.converter)
        return collect_documents(taxonomy.leaves(), found, limits, reading, out, site)


class HoldOut(Step):
    """The questions kept apart from training: people's, and by rule for leaves where people wrote none.

    With a ``flow`` a ``teacher`` writes ``per_chunk`` of them for chunks of knowledge leaves, beside people's.
    """

    type: ClassVar[str] = "items"
    cheap: ClassVar[bool] = True
    per_leaf: int = 100
    seed: int = 42
    flow: Annotated[str, Resolve("items-flow")] = ""
    teacher: str = ""
    per_chunk: int = 0

    def only_reads(self) -> bool:
        return not self.flow

    def run(self, taxonomy: Taxonomy, documents: Documents, *, out: Items, site: Site) -> Counts:
        from ilab.sdg.stage import hold_out_items

        return hold_out_items(self, taxonomy, documents, out, site)

    def expect(self, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
        from ilab.sdg.stage import expect_items

        return expect_items(self, inputs, site) if self.flow else {}


class MakeBase(Step):
    """The model to start from: the tiny built-in one, made on the spot, or a Hugging Face directory.

    ``chat_template`` is the hash of the template that it gets; without one it keeps its own, and a model that has none
    gets the one that its special tokens name.
    """

    type: ClassVar[str] = "base"
    model: Annotated[str, Resolve("model")]
    chat_template: Annotated[str, Resolve("chat-template")] = ""

    def run(self, *, out: Checkpoint, site: Site) -> Counts:
        from ilab.training.base import make_base

        chosen = self.chat_template
        return make_base(site.locate(self.model), out, (chosen, site.locate(chosen)) if chosen else None)


class Generate(Step):
    """Synthetic data: every leaf's seed examples and chunks through a flow. ``flow`` is the hash of its files.

    ``quality`` is the lowest score (0 to 1) with which a judge lets a row pass; a teacher's pairs that are alike to at
    least ``near_duplicates`` are made once (1: kept); ``benchmarks`` is the hash of the files that must not be taught;
    ``preview`` takes only so many input rows of each leaf, within ``preview_calls`` teacher calls; of the
    question-answer samples ``instructions`` are kept at most.
    """

    type: ClassVar[str] = "generate"
    version: ClassVar[int] = 3
    flow: Annotated[str, Resolve("flow")]
    teacher: str = ""
    verifier: str = ""
    scale_factor: int = 30
    quality: float = 0.7
    near_duplicates: float = 0.8
    benchmarks: Annotated[str, Resolve("benchmarks")] = ""
    seed: int = 42
    preview: int | None = None
    preview_calls: int | None = None
    instructions: int | None = None

    def run(self, taxonomy: Taxonomy, documents: Documents, held_out: Items, *, out: Samples, site: Site) -> Counts:
        from ilab.sdg.stage import generate_samples

        return generate_samples(self, taxonomy, documents, held_out, out, site)

    def expect(self, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
        from ilab.sdg.stage import expect_calls

        return expect_calls(self, inputs, site)


class Mix(Step):
    """What one phase trains on: samples of some ``sources``, replay of the earlier phase, weak leaves weighted up.

    ``recipe`` is the hash of datasets made before that go in too; ``distractors`` (0: none) and ``oracle`` make
    questions among passages. The other fields are those of ``ilab.sdg.mix.Mixture``.
    """

    type: ClassVar[str] = "mix"
    sources: tuple[Literal["knowledge", "document", "skill"], ...]
    recipe: Annotated[str, Resolve("recipe")] = ""
    sampling_size: StrictInt | StrictFloat = 1.0
    max_per_leaf: int | None = None
    distractors: int = 0
    oracle: float = 0.8
    variants: int = 1
    noise: float = 0.0
    replay: float = 0.0
    seed: int = 42

    def run(
        self,
        samples: Samples,
        earlier: Dataset | None = None,
        measured: Checkpoint | None = None,
        documents: Documents | None = None,
        *,
        out: Dataset,
        site: Site,
    ) -> Counts:
        from ilab.sdg.mix import Mixture
        from ilab.sdg.stage import Before, mix_samples

        mixture = Mixture.model_validate(self.model_dump(exclude={"recipe", "seed"}))
        return mix_samples(mixture, (self.recipe, self.seed), samples, Before(earlier, measured, documents), out, site)


class ReadRows(Step):
    """Training data that was made elsewhere, as a dataset. ``data`` is the hash of the file."""

    type: ClassVar[str] = "rows"
    version: ClassVar[int] = 2
    cheap: ClassVar[bool] = True
    data: Annotated[str, Resolve("rows")]

    def run(self, *, out: Dataset, site: Site) -> Counts:
        from ilab.training.rows import rows_of

        rows, empty = rows_of(self.data, site.locate(self.data))
        written = out.write(rows, {"given": {"rows": len(rows), "empty": empty}})
        return {"rows": written, "without_answer": empty}


class Stack(Step):
    """The datasets of several phases as one, for a training in a single run."""

    type: ClassVar[str] = "stack"

    def run(self, datasets: Mapping[str, Dataset], *, out: Dataset, site: Site) -> Counts:
        from ilab.training.rows import stacked

        found = {name: dataset.rows() for name, dataset in datasets.items()}
        told = {"stacked": {name: len(rows) for name, rows in found.items()}}
        return {"rows": out.write(stacked(found), told)}


class Train(Step):
    """One phase of fine-tuning, by a ``method``. Saves a candidate every ``save_every`` epochs (or ``save_unit``).

    The fields are those of :class:`ilab.training.settings.TrainSettings`, which says what each means.
    """

    type: ClassVar[str] = "train"
    version: ClassVar[int] = 2
    epochs: int
    batch: int
    learning_rate: float
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    precision: Literal["fp32", "bf16"] = "fp32"
    train_on: Literal["assistant", "last", "all"] = "assistant"
    over_length: Literal["drop", "truncate", "split", "error"] = "drop"
    max_length: int = 2048
    max_batch_tokens: int = 5000
    method: Literal["full", "lora", "qlora", "osft"] = "full"
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()
    lora_variant: Literal["plain", "rslora", "dora"] = "plain"
    osft_share: float = 0.25
    save_every: int = 1
    save_unit: Literal["epochs", "steps", "samples", "tokens"] = "epochs"
    keep: int | None = None
    validation: float = 0.0
    seed: int = 42

    def run(self, dataset: Dataset, base: Checkpoint, *, out: Candidates, site: Site) -> Counts:
        from ilab.training.stage import train_phase

        return train_phase(self.fields(), dataset, base, out, site)

    def expect(self, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
        from ilab.training.start import expect_training

        return expect_training(self.fields(), inputs["dataset"].rows(), inputs["base"].model, site.where)


class Suite(Step):
    """What models are measured on at the end: the held-out items, and questions that have nothing to do with the
    taxonomy (did training cost what the base knew?). ``general`` is the hash of the latter; empty: none.
    """

    type: ClassVar[str] = "suite"
    cheap: ClassVar[bool] = True
    general: Annotated[str, Resolve("general")] = ""

    def run(self, items: Items, *, out: Items, site: Site) -> Counts:
        from ilab.evaluation.general import read_general

        details = site.locate(self.general).details if self.general else None
        general = read_general(Path(details["path"])) if details else []
        return {"items": out.write([*items.items(), *general], [])[0], "general": len(general)}


class PreviousRelease(Step):
    """The model that this build is to replace, to be measured beside the new one. Empty: this is the first."""

    type: ClassVar[str] = "previous"
    model: Annotated[str, Resolve("previous")] = ""

    def run(self, *, out: Candidates, site: Site) -> Counts:
        from ilab.packaging.previous import take_previous

        return take_previous(site.locate(self.model) if self.model else None, site.work, out)


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
    """The final evaluation: all models on the same test items, per leaf, paired, with intervals and baselines."""

    type: ClassVar[str] = "compare"
    version: ClassVar[int] = 2

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

        return compare_models(models, items.items("test"), documents.chunks(), out)


class Gate(Step):
    """May this model be published? Always writes its verdict; a failed or open one is a result too.

    ``margin`` and ``general_margin`` are the losses that are borne on unchanged leaves and on the general suite; ``on``
    is what must reach the threshold, the estimate or its lower bound; ``publish_anyway`` lets the model through
    whatever the verdict, and says so in its lineage.
    """

    type: ClassVar[str] = "gate"
    version: ClassVar[int] = 2
    threshold: float = 0.8
    metrics: tuple[str, ...] = ("accuracy", "f1")
    margin: float = 0.05
    general_margin: float = 0.03
    on: Literal["point", "lower"] = "point"
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


class PackageModel(Step):
    """An OCI image layout with the model, its card and its lineage. Refuses a model that the gate did not pass."""

    type: ClassVar[str] = "package"
    version: ClassVar[int] = 2
    name: str
    model_version: str

    def run(
        self,
        model: Checkpoint,
        taxonomy: Taxonomy,
        samples: Samples,
        evaluation: Report,
        gate: Report,
        *,
        out: Package,
        site: Site,
    ) -> Counts:
        from ilab.packaging.stage import package

        reports = {"card": samples.card(), "evaluation": evaluation.report(), "gate": gate.report()}
        return package((self.name, self.model_version), model, taxonomy.leaves(), reports, out, site)


class Register(Step):
    """An entry in the model registry, which lies outside the store: checked again at every run."""

    type: ClassVar[str] = "register"
    name: str
    model_version: str

    def run(self, package: Package, evaluation: Report, gate: Report, *, out: Report, site: Site) -> Counts:
        from ilab.packaging.stage import register

        return register((self.name, self.model_version), package, evaluation.report(), gate.report(), out, site)

    def still_holds(self, out: Report, site: Site) -> bool:
        from ilab.packaging.stage import is_registered

        return is_registered(out.report(), site)


STEPS: dict[str, type[Step]] = {
    step.type: step
    for step in (
        ReadTaxonomy,
        CollectDocuments,
        HoldOut,
        MakeBase,
        PreviousRelease,
        Suite,
        Generate,
        Mix,
        ReadRows,
        Stack,
        Train,
        Calibrate,
        Evaluate,
        Select,
        Answers,
        MtBench,
        MtBenchBranch,
        Compare,
        Gate,
        PackageModel,
        Register,
    )
}
