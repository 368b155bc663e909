"""Data generation and mixing as the pipeline sees them. Artifacts in, one artifact out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ilab.artifacts import Checkpoint, Dataset, Documents, Items, Samples, Taxonomy
from ilab.core.step import Counts, Found, Site
from ilab.data import Kind
from ilab.errors import InputError
from ilab.sdg.benchmarks import open_benchmarks
from ilab.sdg.flow import SHIPPED, load_flow
from ilab.sdg.generate import Job, Preview, expected_calls, generate
from ilab.sdg.hold_out import hold_out
from ilab.sdg.mix import Recipe, by_source, mix

ITEMS_FLOW = "eval"


class Generate(Protocol):
    """The fields of the step ``generate``: digest of the flow, served name of the teacher, and the choices."""

    @property
    def flow(self) -> str: ...
    @property
    def teacher(self) -> str: ...
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


def find_flow(locator: str, folder: Path) -> Found:
    """Resolve a flow: a shipped one's name, or a directory relative to ``folder``. Loads and checks all of it."""
    if locator == ITEMS_FLOW:
        raise InputError(
            f"the flow {ITEMS_FLOW!r} makes held-out questions, not samples to train on",
            where="sdg_pipeline",
            hint="take full, llama, simple or extractive; to try it: ilab flow run eval",
        )
    path = locator if (SHIPPED / locator).is_dir() else str(folder / Path(locator).expanduser())
    flow = load_flow(path)
    return Found(f"flow:{flow.digest}", locator, details={"path": path})


def hold_out_items(taxonomy: Taxonomy, documents: Documents, per_leaf: int, seed: int, out: Items) -> Counts:
    items, dropped = hold_out(taxonomy.leaves(), documents.chunks(), per_leaf, seed)
    written = out.write(items, dropped)
    by_rule = sum(item.origin != "person" for item in items)
    return {"items": written[0], "made_by_rule": by_rule, "left_out": written[1]}


def generate_samples(
    request: Generate,
    taxonomy: Taxonomy,
    documents: Documents,
    held_out: Items,
    out: Samples,
    site: Site,
) -> Counts:
    """Run a flow over all leaves, or for a preview over a few rows of each."""
    loaded = load_flow((site.locate(request.flow).details or {})["path"])
    job = Job(
        leaves=taxonomy.leaves(),
        chunks=documents.chunks(),
        held_out=held_out.items(),
        flow=loaded,
        scale_factor=request.scale_factor,
        seed=request.seed,
        memo=site.memo,
        emit=site.emit,
        stopping=site.stopping,
        teacher=_teacher(request.teacher, site) if loaded.calls_teacher else None,
        teacher_name=request.teacher,
        in_flight=(site.where.teacher.in_flight or 64) if site.where.teacher else 64,
        quality=request.quality,
        near=request.near_duplicates,
        benchmarks=open_benchmarks(site.locate(request.benchmarks)) if request.benchmarks else (),
        preview=Preview(request.preview, request.preview_calls) if request.preview else None,
    )
    made = generate(job)
    out.write(made.samples, made.rejected, made.card)
    return made.counts


def expect_calls(flow: str, scale_factor: int, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
    """Teacher calls and tokens that generation would ask for if the memo knew none of the answers.

    ``cost`` in the endpoint's currency, where the endpoint has prices.
    """
    loaded = load_flow((site.locate(flow).details or {})["path"])
    if not loaded.calls_teacher:
        return {}
    expected = expected_calls(loaded, inputs["taxonomy"].leaves(), inputs["documents"].chunks(), scale_factor)
    teacher = site.where.teacher
    if teacher is None or teacher.price_read is None or teacher.price_written is None:
        return expected
    written = expected["tokens_written"]
    read = expected["tokens"] - written
    return {**expected, "cost": (read * teacher.price_read + written * teacher.price_written) / 1e6}


def mix_samples(
    recipe: Recipe, seed: int, samples: Samples, earlier: Dataset | None, measured: Checkpoint | None, out: Dataset
) -> Counts:
    """Mix one phase's dataset. Leaves that ``measured`` found weak are weighted up.

    A taxonomy without leaves of this phase's kind gives an empty one: every leaf has samples, or generating fails.
    """
    if measured is not None:
        recipe = recipe.model_copy(update={"weights": measured.choice()["weights"]})
    kinds: dict[str, Kind] = {leaf: told["kind"] for leaf, told in samples.card()["leaves"].items()}
    rows, summary = mix(by_source(samples.samples(), kinds), recipe, seed, earlier.rows() if earlier else ())
    return {"rows": out.write(rows, summary), "replayed": summary["replay"]["rows"]}


def _teacher(name: str, site: Site) -> Any:
    """The endpoint's client, or None where no endpoint is configured. Raises InputError without a served name."""
    if site.where.teacher is None:
        return None
    if not name:
        raise InputError(
            "the teacher's name is missing",
            where="sdg_teacher_model",
            hint=f"give the name that {site.where.teacher.url} serves: -p sdg_teacher_model=NAME",
        )
    from ilab.models.openai import OpenAIModel

    return OpenAIModel(site.where.teacher)
