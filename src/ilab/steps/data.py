"""Steps that make data: what people wrote, documents, held-out questions, samples, mixes. See :mod:`ilab.steps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import StrictFloat, StrictInt

from ilab.artifacts import Checkpoint, Dataset, Documents, Items, Samples, Taxonomy
from ilab.core.step import Counts, Resolve, Site, Step


class ReadTaxonomy(Step):
    """The leaves people wrote, checked. ``tree`` is the hash of the leaf files alone."""

    type: ClassVar[str] = "taxonomy"
    cheap: ClassVar[bool] = True
    tree: Annotated[str, Resolve("taxonomy")]

    def run(self, *, out: Taxonomy, site: Site) -> Counts:
        from ilab.taxonomy.locate import read_found

        reading = read_found(site.locate(self.tree))
        return {"leaves": out.write(reading.leaves), "warnings": len(reading.warnings)}


class PickLeaves(Step):
    """The part of a taxonomy that a build on top of a release makes: the ``leaves`` that it has not been taught yet."""

    type: ClassVar[str] = "pick"
    cheap: ClassVar[bool] = True
    leaves: tuple[str, ...]

    def run(self, taxonomy: Taxonomy, *, out: Taxonomy, site: Site) -> Counts:
        return {"leaves": out.write(leaf for leaf in taxonomy.leaves() if leaf.path in set(self.leaves))}


class Earlier(Step):
    """The rows that a release was taught for ``leaves`` that are still the same. ``release`` is the hash of its
    datasets."""

    type: ClassVar[str] = "earlier"
    cheap: ClassVar[bool] = True
    release: Annotated[str, Resolve("earlier")]
    leaves: tuple[str, ...]

    def run(self, *, out: Dataset, site: Site) -> Counts:
        from ilab.sdg.earlier import take_earlier

        return take_earlier(site.locate(self.release), self.leaves, out)


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
    family: str = ""
    per_chunk: int = 0

    def only_reads(self) -> bool:
        return not self.flow

    def run(self, taxonomy: Taxonomy, documents: Documents, *, out: Items, site: Site) -> Counts:
        from ilab.sdg.stage import hold_out_items

        return hold_out_items(self, taxonomy, documents, out, site)

    def expect(self, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
        from ilab.sdg.stage import expect_items

        return expect_items(self, inputs, site) if self.flow else {}


class Generate(Step):
    """Synthetic data: every leaf's seed examples and chunks through a flow. ``flow`` is the hash of its files.

    ``family`` is the format of the teacher's prompts (empty: its server's own);
    ``quality`` is the lowest score (0 to 1) with which a judge lets a row pass; a teacher's pairs that are alike to at
    least ``near_duplicates`` are made once (1: kept); ``benchmarks`` is the hash of the files that must not be taught;
    ``preview`` takes only so many input rows of each leaf, within ``preview_calls`` teacher calls; of the
    question-answer samples ``instructions`` are kept at most.
    """

    type: ClassVar[str] = "generate"
    version: ClassVar[int] = 3
    flow: Annotated[str, Resolve("flow")]
    teacher: str = ""
    family: str = ""
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
