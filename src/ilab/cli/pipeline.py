"""``ilab pipeline``: plan, run, status, params, gc; nightly and schedule have files of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options, drop_output
from ilab.cli.building import Asked, building
from ilab.cli.kubeflow_options import SERVER, options_of
from ilab.cli.kubeflow_runs import cancel, logs, show_runs, wait
from ilab.cli.outputs import are_variables, has_fields, output_file
from ilab.cli.pipeline_kubeflow import compile_, submit, upload
from ilab.cli.pipeline_nightly import nightly
from ilab.cli.pipeline_schedule import schedule
from ilab.cli.process import check_teachers, detachable, go_to_background, leaving
from ilab.cli.teacher import reaching, served, teacher_of_build
from ilab.cli.threads import passive_threads
from ilab.errors import IlabError, InputError, Stopped

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.core.run import Engine
    from ilab.teacher_at_hand import Teacher

UNTIL = click.option("--until", metavar="STEP", help="Only this step and what it needs.")
FORCE = click.option("--force", multiple=True, metavar="STEP", help="Make this step again even if it is there.")


@click.group(name="pipeline")
def group() -> None:
    """Plan and run the whole build."""


@group.command()
@building
@UNTIL
@FORCE
@click.option("--output", metavar="FILE", help="Write the resolved plan to a file.")
@click.pass_obj
def plan(
    options: Options,
    asked: Asked,
    until: str | None,
    force: Sequence[str],
    output: str | None,
) -> None:
    """Show what a build would do, why, and what it would cost. Trains nothing, calls no teacher."""
    from ilab.cli.render import console, plan_table
    from ilab.core.files import write_json

    target = output_file(options, output, has_fields("steps")) if output else None
    build = prepare(options, asked)
    with engine_for(build) as engine:
        chosen = build.plan.until(until) if until else build.plan
        make_cheap(engine, chosen)
        previews = engine.preview(chosen, forced(build, force))
    if target:
        write_json(target, build.plan.dump())
    if options.as_json:
        options.result(
            [
                {
                    "step": preview.planned.name,
                    "type": preview.planned.step.type,
                    "key": preview.planned.key,
                    "state": preview.state,
                    "why": preview.why,
                    "unless": list(preview.unless),
                    "expected": dict(preview.expected),
                }
                for preview in previews
            ]
        )
        return
    for note in build.notes:
        click.echo(f"note: {note}", err=True)
    console().print(plan_table(previews, build.where.teacher.currency if build.where.teacher else ""))
    work = sum(preview.state in ("run", "maybe") for preview in previews)
    click.echo(f"\n{work} of {len(previews)} steps to run." if work else "\nNothing to do: everything is up to date.")


@group.command()
@building
@UNTIL
@click.option("--only", metavar="STEP", help="Only this step; what it needs must be there.")
@FORCE
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve /metrics for Prometheus while it runs.  [config: where.monitoring.port]",
)
@detachable
@click.pass_obj
def run(
    options: Options,
    asked: Asked,
    until: str | None,
    only: str | None,
    force: Sequence[str],
    metrics_port: int | None,
) -> None:
    """Build. What is up to date is reused; run it again after any interruption."""
    from ilab.actions import note_run
    from ilab.cli.results import show_outcome
    from ilab.core.store import disk_error
    from ilab.outcome import draw_report, outcome

    if only and until:
        raise InputError("--only and --until exclude each other")
    if metrics_port is not None:
        options.sets = (*options.sets, f"where.monitoring.port={metrics_port}")
    build, teacher = prepare_with_teacher(options, asked)
    for note in build.notes:
        click.echo(f"note: {note}", err=True)
    failure: IlabError | None = None
    last = until or only
    chosen = build.plan.until(last) if last else build.plan
    again = forced(build, force)
    if leaving():
        check_teachers(build, chosen)
    go_to_background(options)
    with served(teacher) as address, engine_for(reaching(build, chosen, address, again)) as engine:
        folder = run_folder(engine)
        try:
            note_run(build, folder)
            with watching(engine, folder):
                if only:
                    engine.run_step(build.plan, build.plan.named(only).name, force=only in again)
                else:
                    engine.run(chosen, again)
        except IlabError as error:
            failure = error
        try:
            result = outcome(build, engine, draw_report(build, engine, folder))
        except OSError as error:
            raise failure or disk_error(error, engine.store.root) from error
    try:
        if options.as_json:
            options.result({**result, "error": failure.message if failure else None})
        elif not only:
            show_outcome(result)
    except BrokenPipeError:  # `ilab run | head`: what is not read is not said, but a failure stays one
        if failure is None:
            raise
        drop_output()
    if failure:
        raise failure


@group.command()
@building
@click.argument("run_id", required=False, metavar="[RUN]")
@click.option("--on", type=click.Choice(["local", "kubeflow"]), help="Runs of a cluster; implied by RUN.")
@options_of(SERVER)
@click.pass_obj
def status(options: Options, /, asked: Asked, run_id: str | None, on: str | None, **given: Any) -> None:
    """Which steps are done, which one is running and how far it is; on a cluster the runs, or the tasks of one RUN."""
    if on == "kubeflow" or (run_id and on is None):
        show_runs(options, asked, run_id, given)
        return
    if run_id:
        raise InputError("RUN is the id of a run on a cluster", hint=f"ilab pipeline status --on kubeflow {run_id}")
    from rich.table import Table

    from ilab.actions import step_states
    from ilab.cli.render import console, finished_text, progress_text

    build = prepare(options, asked)
    with engine_for(build) as engine:
        states = step_states(build, engine)
    if options.as_json:
        options.result(states)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "state", ""):
        table.add_column(name, overflow="fold")
    for state in states:
        detail = state["detail"]
        text = ""
        if detail:
            text = progress_text(detail) if state["state"] != "done" else finished_text({**detail, "state": "run"})
        table.add_row(state["step"], state["state"], text)
    console().print(table)


@group.command()
@building
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write them as variables; --parameters reads it.",
)
@click.option("--changed", is_flag=True, help="Only those that somebody gave.")
@click.pass_obj
def params(options: Options, asked: Asked, env_file: str | None, changed: bool) -> None:
    """The pipeline parameters: value, where it comes from, what it does."""
    from rich.markup import escape
    from rich.table import Table

    from ilab.actions import parameters_of
    from ilab.cli.render import console
    from ilab.core.files import write_text
    from ilab.parameters.files import as_variables

    given = parameters_of(asked.load(options), asked.values)
    known = {row["name"].upper() for row in given}
    target = output_file(options, env_file, are_variables(known)) if env_file else None
    if changed:
        given = [row for row in given if row["origin"] != "default"]
    if target:
        write_text(target, as_variables({row["name"]: row["value"] for row in given}))
        options.result({"path": env_file, "parameters": len(given)}, f"{env_file}: {len(given)} parameters")
        return
    if options.as_json:
        options.result(given)
        return
    page = ""
    for row in given:
        if row["page"] != page:
            page = row["page"]
            table = Table(title=page, title_justify="left", title_style="bold", box=None, pad_edge=False)
            for name in ("parameter", "value", "from", "valid", "what it does"):
                table.add_column(name, overflow="fold", no_wrap=name == "parameter")
            for one in (one for one in given if one["page"] == page):
                value = "" if one["value"] is None else str(one["value"])
                name = f"{one['name']} *" if one["required"] else one["name"]
                table.add_row(*map(escape, (name, value, one["origin"], one["valid"], one["help"])))
            console().print(table)
    click.echo("* needed by a run on a cluster")


@group.command()
@building
@click.option("--dry-run", is_flag=True, help="Say what would go, remove nothing.")
@click.pass_obj
def gc(options: Options, asked: Asked, dry_run: bool) -> None:
    """Remove results that this pipeline no longer needs, and abandoned partial work."""
    from ilab.actions import collect_garbage

    build = prepare(options, asked)
    with engine_for(build) as engine:
        removed = collect_garbage(build, engine, dry_run=dry_run)
    freed = sum(item["bytes"] for item in removed)
    lines = [f"{item['path']}  {item['bytes'] / 1e6:.1f} MB" for item in removed]
    verb = "would be freed" if dry_run else "freed"
    options.result({"removed": removed, "bytes": freed}, "\n".join([*lines, f"{freed / 1e6:.1f} MB {verb}"]))


def prepare(options: Options, asked: Asked) -> Build:
    """The build that this command line and the project describe, with the teacher that is at hand."""
    return prepare_with_teacher(options, asked)[0]


def prepare_with_teacher(options: Options, asked: Asked) -> tuple[Build, Teacher]:
    """The same, with the teacher, which may have to be served."""
    from ilab.actions import prepare as prepare_build

    teacher, values = teacher_of_build(options, asked.load(options), asked.values)
    return prepare_build(teacher.loaded, values), teacher


def forced(build: Build, names: Sequence[str]) -> frozenset[str]:
    return frozenset(build.plan.named(name).name for name in names)


def make_cheap(engine: Engine, plan: Any) -> None:
    """Make the steps that only read files, so that the plan can say what the rest will cost.

    The links to the latest results stay, so that the plan compares with what was built last, however often it is asked.
    """
    for name, planned in plan.steps.items():
        if planned.step.only_reads():
            engine.run_step(plan, name, latest=False)


@contextlib.contextmanager
def engine_for(build: Build) -> Iterator[Engine]:
    from ilab.core.run import Engine
    from ilab.transfer.stores import open_store

    engine = Engine(open_store(build.loaded), build.where)
    try:
        yield engine
    finally:
        engine.close()


def run_folder(engine: Engine) -> Path:
    """A new folder for the events and the report of one run."""
    from ilab.core.run import run_folder as new

    return new(engine.store)


@contextlib.contextmanager
def watching(engine: Engine, folder: Path, *, quiet: bool = False) -> Iterator[None]:
    """This run's events in ``folder`` and on the terminal, and signals that stop with the work saved."""
    from ilab.cli.live import view
    from ilab.core.events import Bus, jsonl_sink
    from ilab.monitoring import monitored

    passive_threads()
    caught: list[int] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        if caught:  # at once: finished steps are whole, unfinished ones resume, and nothing else is worth waiting for
            os._exit(128 + number)
        caught.append(number)
        engine.stop.set()
        click.echo("\nstopping: saving the work (again to stop at once) …", err=True)

    main_thread = threading.current_thread() is threading.main_thread()
    previous = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)} if main_thread else {}
    try:
        with monitored(engine.where.monitoring, folder) as counted, view(quiet) as shown:
            engine.bus = Bus([jsonl_sink(folder / "events.jsonl"), counted, shown])
            yield
    except Stopped as error:
        if caught:
            error.exit_code = 128 + caught[0]  # what shells expect of a process that a signal stopped
        raise
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
        sys.stderr.flush()


for command in (compile_, submit, upload, logs, wait, cancel, nightly, schedule):
    group.add_command(command)
