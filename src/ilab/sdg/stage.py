"""Data generation and mixing as the pipeline sees them. Artifacts in, one artifact out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from ilab.artifacts import Checkpoint, Dataset, Documents, Items, Samples, Taxonomy
from ilab.config import Endpoint, data_homes
from ilab.core.step import Counts, Found, Site
from ilab.data import Chunk, Kind, Leaf, TrainingRow
from ilab.errors import InputError
from ilab.models.chat import ChatModel
from ilab.sdg.benchmarks import open_benchmarks
from ilab.sdg.engine import Start
from ilab.sdg.eval_items import ORIGIN
from ilab.sdg.flow import SHIPPED, FlowSet, load_flow, shipped
from ilab.sdg.generate import Job, Preview, check_leaves, expected, few, produce, starts_of
from ilab.sdg.hold_out import hold_out, set_apart
from ilab.sdg.item_flow import ItemJob, make_items
from ilab.sdg.mix import Mixture, by_source, mix, repeated
from ilab.sdg.precomputed import with_system
from ilab.sdg.recipe import Recipe, found_recipe
from ilab.sdg.teachers import open_teacher, open_verifier

ITEMS_FLOW = "eval"


@dataclass(frozen=True)
class Before:
    """What a mix may stand on besides the samples: the earlier phase's dataset, what was measured, the passages."""

    earlier: Dataset | None = None
    measured: Checkpoint | None = None
    documents: Documents | None = None


class Generate(Protocol):
    """The fields of the step ``generate``: digest of the flow, the teacher (name, prompt format), and the choices."""

    @property
    def flow(self) -> str: ...
    @property
    def teacher(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def verifier(self) -> str: ...
    @property
    def scale_factor(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def quality(self) -> float: ...
    @property
    def near_duplicates(self) -> float: ...
    @property
    def benchmarks(self) -> str: ...
    @property
    def preview(self) -> int | None: ...
    @property
    def preview_calls(self) -> int | None: ...
    @property
    def instructions(self) -> int | None: ...


class HoldOut(Protocol):
    """The fields of the step ``items``: most items per leaf and split; and for those of a teacher its served name, the
    digest of the flow, and the questions per chunk.
    """

    @property
    def per_leaf(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def flow(self) -> str: ...
    @property
    def teacher(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def per_chunk(self) -> int: ...


def find_flow(locator: str, folder: Path, tokens: int | None = None) -> Found:
    """Resolve a flow by name or as a directory relative to ``folder``; see :func:`flow_folder`. Checks all of it.

    With ``tokens`` no answer is asked for that is longer; they stand at the end of the digest, see
    :func:`tokens_of`. It is loaded by :func:`found_flow`.
    """
    if locator == ITEMS_FLOW:
        raise InputError(
            f"the flow {ITEMS_FLOW!r} makes held-out questions, not samples to train on",
            where="sdg_pipeline",
            hint="take full, llama, simple or extractive; to try it: ilab flow run eval",
        )
    path = flow_folder(locator, folder)
    details = {"path": path}
    if Path(path).is_absolute() and locator in shipped():
        details["note"] = f"the flow {locator!r} is your own, in {path}"
    digest = f"flow:{load_flow(path).digest}" + (f":{tokens}" if tokens else "")
    return Found(digest, locator, details=details)


def flow_folder(locator: str, folder: Path) -> str:
    """Where a flow is: one of the user's or the site's own in ``sdg/pipelines/`` of a data folder, the name of one that
    ships with ilab, or a directory relative to ``folder``.
    """
    named = locator == Path(locator).name and locator not in ("", ".", "..")
    for home in data_homes() if named else ():
        own = home / "sdg" / "pipelines" / locator
        if own.is_dir():
            return str(own)
    return locator if (SHIPPED / locator).is_dir() else str(folder / Path(locator).expanduser())


def found_flow(found: Found) -> FlowSet:
    """The flow that :func:`find_flow` found."""
    flow, tokens = load_flow((found.details or {})["path"]), tokens_of(found.digest)
    return flow.capped(tokens) if tokens else flow


def tokens_of(digest: str) -> int | None:
    """The most tokens of an answer, by the digest of a flow; None where its blocks alone say."""
    _, _, tokens = digest.removeprefix("flow:").partition(":")
    return int(tokens) if tokens else None


def find_items_flow(locator: str) -> Found:
    """Resolve the flow that makes held-out items, which is one that ships with ilab."""
    return Found(f"flow:{load_flow(locator).digest}", locator, details={"path": locator})


def hold_out_items(request: HoldOut, taxonomy: Taxonomy, documents: Documents, out: Items, site: Site) -> Counts:
    """Write the held-out items, and what was dropped of them."""
    leaves, chunks = taxonomy.leaves(), documents.chunks()
    if not request.flow:
        items, dropped = hold_out(leaves, chunks, request.per_leaf, request.seed)
        written = out.write(items, dropped)
        by_rule = sum(item.origin != "person" for item in items)
        return {"items": written[0], "made_by_rule": by_rule, "left_out": written[1]}
    loaded = found_flow(site.locate(request.flow))
    made = make_items(
        ItemJob(
            leaves=leaves,
            chunks=set_apart(leaves, chunks, request.seed),
            flow=loaded,
            per_chunk=request.per_chunk,
            seed=request.seed,
            site=site,
            teacher_name=request.teacher,
            teacher_family=request.family,
        )
    )
    items, dropped = hold_out(leaves, chunks, request.per_leaf, request.seed, made.items)
    written = out.write(items, sorted([*made.dropped, *dropped], key=lambda entry: entry.leaf))
    origins = Counter(item.origin for item in items)
    counts = {"items": written[0], "made_by_rule": origins["rule"], "made_by_teacher": origins[ORIGIN]}
    return {**counts, "left_out": written[1], **made.counts}


def expect_items(request: HoldOut, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
    """Teacher calls and tokens for the held-out items; see :func:`expect_calls`."""
    loaded = found_flow(site.locate(request.flow))
    leaves = [leaf for leaf in inputs["taxonomy"].leaves() if leaf.kind in loaded.flows]
    chunks = set_apart(leaves, inputs["documents"].chunks(), request.seed)
    return _priced(expected(starts_of(leaves, chunks, loaded), request.per_chunk), site.where.teacher)


def generate_samples(
    request: Generate,
    taxonomy: Taxonomy,
    documents: Documents,
    held_out: Items,
    out: Samples,
    site: Site,
) -> Counts:
    """Run a flow over all leaves, or for a preview over a few rows of each."""
    loaded = found_flow(site.locate(request.flow))
    leaves, items = taxonomy.leaves(), held_out.items()
    flows, scale = loaded.flows.values(), request.scale_factor
    job = Job(
        leaves=leaves,
        chunks=documents.chunks(),
        held_out=items,
        flow=loaded,
        scale_factor=request.scale_factor,
        seed=request.seed,
        memo=site.memo,
        emit=site.emit,
        stopping=site.stopping,
        teacher=_teacher(request, loaded, site) if loaded.calls_teacher else None,
        teacher_name=request.teacher,
        teacher_family=request.family,
        verifier=open_verifier(site.where, flows, request.verifier, scale, site.emit),
        verifier_name=request.verifier,
        in_flight=(site.where.teacher.in_flight or 64) if site.where.teacher else 64,
        quality=request.quality,
        near=request.near_duplicates,
        benchmarks=open_benchmarks(site.locate(request.benchmarks)) if request.benchmarks else (),
        preview=Preview(request.preview, request.preview_calls) if request.preview else None,
        most=request.instructions,
    )
    made = produce(job)
    out.write(made.samples, made.rejected, made.card)  # first: what a run gave can be looked at even if it fails
    check_leaves(job, made)
    return made.counts


def expect_calls(request: Generate, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
    """Teacher calls and tokens that generation would ask for if the memo knew none of the answers.

    ``cost`` in the endpoint's currency, where the endpoint has prices.
    """
    loaded = found_flow(site.locate(request.flow))
    if not loaded.calls_teacher:
        return {}
    starts = _starts(request, loaded, inputs["taxonomy"].leaves(), inputs["documents"].chunks())
    return _priced(expected(starts, request.scale_factor), site.where.teacher)


def expect_by_leaf(
    request: Generate, flow: FlowSet, leaves: Sequence[Leaf], chunks: Sequence[Chunk], teacher: Endpoint | None
) -> dict[str, dict[str, float]]:
    """The same for each leaf, with its input ``rows``."""
    by_leaf: dict[str, list[Start]] = {leaf.path: [] for leaf in sorted(leaves, key=lambda leaf: leaf.path)}
    for start in _starts(request, flow, leaves, chunks):
        by_leaf[start.row.leaf].append(start)
    return {
        leaf: {"rows": len(starts), **_priced(expected(starts, request.scale_factor), teacher)}
        for leaf, starts in by_leaf.items()
    }


def _starts(request: Generate, flow: FlowSet, leaves: Sequence[Leaf], chunks: Sequence[Chunk]) -> list[Start]:
    starts = starts_of(leaves, chunks, flow)
    if request.preview is None:
        return starts
    return few(starts, Preview(request.preview, request.preview_calls), request.scale_factor, request.seed)


def _priced(told: dict[str, float], teacher: Endpoint | None) -> dict[str, float]:
    """``told`` with its ``cost``, where the endpoint has prices."""
    if teacher is None or teacher.price_read is None or teacher.price_written is None:
        return told
    written = told["tokens_written"]
    read = told["tokens"] - written
    return {**told, "cost": (read * teacher.price_read + written * teacher.price_written) / 1e6}


def mix_samples(
    mixture: Mixture, chosen: tuple[str, int], samples: Samples, before: Before, out: Dataset, site: Site
) -> Counts:
    """Mix one phase's dataset. ``chosen`` is the digest of the recipe (or empty) and the seed.

    Leaves that were measured and found weak are weighted up. A taxonomy without leaves of this phase's kind gives an
    empty dataset: every leaf has samples, or generating fails.
    """
    digest, seed = chosen
    if mixture.distractors and before.documents is None:
        raise InputError(
            "questions among passages need the passages",
            where="step mix",
            hint="add `documents: documents` to `from:` of the step in the pipeline file",
        )
    if before.measured is not None:
        mixture = mixture.model_copy(update={"weights": before.measured.choice()["weights"]})
    recipe = found_recipe(digest, site.locate(digest)) if digest else Recipe(())
    kinds: dict[str, Kind] = {leaf: told["kind"] for leaf, told in samples.card()["leaves"].items()}
    found = by_source(samples.samples(), kinds)
    earlier = before.earlier.rows() if before.earlier else ()
    chunks = before.documents.chunks() if before.documents and mixture.distractors else ()
    rows, summary = mix(found, mixture, seed, earlier, chunks, recipe.count)
    if digest:
        summary["precomputed"] = recipe.told()
    written = out.write(_under(recipe.system, chain(rows, recipe.rows(seed))), summary)
    again = repeated(summary) + sum(told["repeated"] for told in recipe.told().values())
    counts = {"rows": written, "replayed": summary["replay"]["rows"]}
    if not again:
        return counts
    site.emit.progress(written, written, "rows", note=f"{again:,} rows stand there again: fewer than were asked for")
    return {**counts, "repeated": again}


def _under(system: str | None, rows: Iterable[TrainingRow]) -> Iterator[TrainingRow]:
    """``rows`` with the recipe's system message where they have none of their own."""
    for row in rows:
        if system is None or not row.messages or row.messages[0].role == "system":
            yield row
        else:
            yield row.model_copy(update={"messages": with_system(row.messages, system)})


def _teacher(request: Generate, loaded: FlowSet, site: Site) -> ChatModel | None:
    """The endpoint's client, or None where no endpoint is configured. Raises InputError without a served name."""
    if site.where.teacher is not None and not request.teacher:
        raise InputError(
            "the teacher's name is missing",
            where="sdg_teacher_model",
            hint=f"give the name that {site.where.teacher.url} serves: -p sdg_teacher_model=NAME",
        )
    return open_teacher(
        site.where, loaded.flows.values(), request.teacher, request.scale_factor, site.emit, request.family
    )
