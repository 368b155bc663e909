"""What ``ilab data generate --dry-run`` tells: calls, tokens and cost of the whole and of each leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.allowance import Allowance
    from ilab.core.run import Engine
    from ilab.data import Chunk, Leaf
    from ilab.sdg.flow import FlowSet
    from ilab.steps.data import Generate

SHOWN = 40  # leaves, the dearest first; --json has all


@dataclass(frozen=True)
class GenerateInputs:
    """What the step ``generate`` of a build works on."""

    step: Generate
    flow: FlowSet
    leaves: Sequence[Leaf]
    chunks: Sequence[Chunk]


def generate_inputs(build: Build, engine: Engine) -> GenerateInputs:
    """Read taxonomy and documents, which is cheap, to know what there is to generate from."""
    from ilab.artifacts import Documents, Taxonomy
    from ilab.cli.pipeline import make_cheap
    from ilab.sdg.stage import found_flow
    from ilab.steps.data import CollectDocuments, Generate, ReadTaxonomy

    make_cheap(engine, build.plan)
    planned = {type(one.step): one for one in build.plan.steps.values()}
    step = planned[Generate].step
    if not isinstance(step, Generate):
        raise AssertionError("a step is of its own type")
    flow = found_flow(build.plan.found[step.flow])
    taxonomy = engine.store.open(ReadTaxonomy, planned[ReadTaxonomy].key)
    documents = engine.store.open(CollectDocuments, planned[CollectDocuments].key)
    return GenerateInputs(step, flow, Taxonomy(taxonomy.path).leaves(), Documents(documents.path).chunks())


def show_forecast(options: Options, build: Build, allowance: Allowance) -> None:
    """Say what a run would ask for, and whether that is within the allowance. Calls no teacher."""
    from ilab.cli.pipeline import engine_for
    from ilab.cli.render import console, plan_table
    from ilab.sdg.stage import expect_by_leaf

    with engine_for(build) as engine:
        given = generate_inputs(build, engine)
        previews = engine.preview(build.plan)
    teacher = build.where.teacher
    currency = teacher.currency if teacher else ""
    leaves = expect_by_leaf(given.step, given.flow, given.leaves, given.chunks, teacher)
    (ahead,) = (preview for preview in previews if preview.planned.step is given.step)
    told: dict[str, dict[str, Any]] = {one.planned.name: {**one.expected, "state": one.state} for one in previews}
    if ahead.state != "reuse":
        told[ahead.planned.name] |= {"leaves": leaves}
        if "cost" in ahead.expected:
            told[ahead.planned.name]["currency"] = currency
    if options.as_json:
        options.result(told)
        return
    console().print(plan_table(previews, currency))
    if ahead.state == "reuse":
        return
    click.echo()
    console().print(_leaf_table(leaves, currency))
    if given.flow.calls_teacher:
        click.echo("\nEstimated as if every answer had to be asked for; answers that are kept cost nothing.")
    limit = allowance.calls if allowance.calls is not None else allowance.cost
    unit = "calls" if allowance.calls is not None else "cost"
    # Held-out questions may be asked for as well.
    needed = sum(one.expected.get(unit, 0) for one in previews if one.state != "reuse")
    if limit is not None and needed > limit:
        click.echo(f"warning: the budget of {limit:g} is less than that: it would stop before the end", err=True)


def _leaf_table(leaves: Mapping[str, Mapping[str, float]], currency: str) -> Any:
    from rich.table import Table

    from ilab.cli.render import money, one_line

    names = ("rows", "calls", "tokens") if any(told["calls"] for told in leaves.values()) else ("rows",)
    cost = any("cost" in told for told in leaves.values())
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("leaf", overflow="fold")
    for name in (*names, *([f"cost ({currency})"] if cost else [])):
        table.add_column(name, justify="right", no_wrap=True)
    ranked = sorted(leaves.items(), key=lambda entry: (-entry[1]["tokens"], -entry[1]["rows"], entry[0]))
    rest = [told for _, told in ranked[SHOWN:]]
    more = {name: sum(told[name] for told in rest) for name in (*names, *(["cost"] if cost else []))}
    for leaf, told in [*ranked[:SHOWN], *([(f"{len(rest):,} more (--json has all)", more)] if rest else [])]:
        cells = [f"{told[name]:,.0f}" for name in names] + ([money(told["cost"])] if cost else [])
        table.add_row(one_line(leaf), *cells)
    return table
