"""``ilab step``: one step of a plan made earlier, in this process. What a pod on a cluster runs."""

from __future__ import annotations

import click

from ilab.cli.app import Options
from ilab.cli.process import detachable, go_to_background
from ilab.errors import InputError


@click.group(name="step")
def group() -> None:
    """Run one step of a plan."""


@group.command()
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(exists=True, dir_okay=False),
    required=True,
    help="From `ilab plan --output`.",
)
@click.option("--step", "name", required=True, help="Name of the step.")
@click.option("--force", is_flag=True, help="Make it again even if it is there.")
@detachable
@click.pass_obj
def run(options: Options, plan_file: str, name: str, force: bool) -> None:
    """Reuse or make one step whose inputs are in the store."""
    from pathlib import Path

    from ilab.actions import absolute_where
    from ilab.brought import brought
    from ilab.cli.pipeline import run_folder, watching
    from ilab.core.files import read_json
    from ilab.core.pipeline import Plan
    from ilab.core.run import Engine
    from ilab.steps import STEPS
    from ilab.transfer.stores import open_store

    loaded = options.load()
    try:
        plan = Plan.load(read_json(Path(plan_file)), STEPS)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "make one with: ilab plan --output FILE"
        raise InputError("is not a plan", where=plan_file, hint=hint) from error
    planned = plan.named(name)
    go_to_background(options)
    engine = Engine(open_store(loaded), absolute_where(loaded, plan.parameters))
    with watching(engine, run_folder(engine)):
        try:
            if force or engine.store.record(planned.step.type, planned.key) is None:
                plan = brought(loaded, plan, planned.name)
            record = engine.run_step(plan, planned.name, force=force)
        finally:
            engine.close()
    options.result(record.model_dump(mode="json"), f"{record.type} {record.key}")
