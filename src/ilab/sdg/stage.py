"""Data generation and mixing as the pipeline sees them. Artifacts in, one artifact out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilab.artifacts import Checkpoint, Dataset, Documents, Items, Samples, Taxonomy
from ilab.core.step import Counts, Found, Site
from ilab.data import Kind
from ilab.errors import InputError
from ilab.sdg.flow import SHIPPED, load_flow
from ilab.sdg.generate import Job, expected_calls, generate
from ilab.sdg.hold_out import hold_out
from ilab.sdg.mix import Recipe, by_source, mix


def find_flow(locator: str, folder: Path) -> Found:
    """Resolve a flow: a shipped one's name, or a directory relative to ``folder``. Loads and checks all of it."""
    path = locator if (SHIPPED / locator).is_dir() else str(folder / Path(locator).expanduser())
    flow = load_flow(path)
    return Found(f"flow:{flow.digest}", locator, details={"path": path})


def hold_out_items(taxonomy: Taxonomy, documents: Documents, per_leaf: int, seed: int, out: Items) -> Counts:
    items, dropped = hold_out(taxonomy.leaves(), documents.chunks(), per_leaf, seed)
    written = out.write(items, dropped)
    by_rule = sum(item.origin != "person" for item in items)
    return {"items": written[0], "made_by_rule": by_rule, "left_out": written[1]}


def generate_samples(
    request: tuple[str, str, int, int],
    taxonomy: Taxonomy,
    documents: Documents,
    held_out: Items,
    out: Samples,
    site: Site,
) -> Counts:
    """Run a flow over all leaves. ``request`` is (flow digest, teacher's served name, scale factor, seed)."""
    flow, teacher, scale_factor, seed = request
    loaded = load_flow((site.locate(flow).details or {})["path"])
    job = Job(
        leaves=taxonomy.leaves(),
        chunks=documents.chunks(),
        held_out=held_out.items(),
        flow=loaded,
        scale_factor=scale_factor,
        seed=seed,
        memo=site.memo,
        emit=site.emit,
        stopping=site.stopping,
        teacher=_teacher(teacher, site) if loaded.calls_teacher else None,
        teacher_name=teacher,
        in_flight=(site.where.teacher.in_flight or 64) if site.where.teacher else 64,
    )
    made = generate(job)
    out.write(made.samples, made.rejected, made.card)
    return made.counts


def expect_calls(flow: str, scale_factor: int, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
    """Teacher calls and tokens that generation would ask for if the memo knew none of the answers."""
    loaded = load_flow((site.locate(flow).details or {})["path"])
    if not loaded.calls_teacher:
        return {}
    return expected_calls(loaded, inputs["taxonomy"].leaves(), inputs["documents"].chunks(), scale_factor)


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
