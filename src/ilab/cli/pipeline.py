"""``ilab pipeline``: plan, run, status, params, gc."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options, drop_output
from ilab.cli.process import check_teachers, detachable, go_to_background, leaving
from ilab.cli.teacher import reaching, served, teacher_of_build
from ilab.cli.threads import passive_threads
from ilab.errors import IlabError, InputError, SetupError, Stopped

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.core.run import Engine
    from ilab.teacher_at_hand import Teacher

PARAMETER = click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a pipeline parameter.")
PIPELINE = click.option("--pipeline", metavar="NAME|FILE", help="Which pipeline.  [config: pipeline]")
UNTIL = click.option("--until", metavar="STEP", help="Only this step and what it needs.")
FORCE = click.option("--force", multiple=True, metavar="STEP", help="Make this step again even if it is there.")


@click.group(name="pipeline")
def group() -> None:
    """Plan and run the whole build."""


@group.command()
@PIPELINE
@PARAMETER
@UNTIL
@FORCE
@click.option("--output", type=click.Path(dir_okay=False), help="Write the resolved plan to a file.")
@click.pass_obj
def plan(
    options: Options,
    pipeline: str | None,
    parameters: Sequence[str],
    until: str | None,
    force: Sequence[str],
    output: str | None,
) -> None:
    """Show what a build would do, why, and what it would cost. Trains nothing, calls no teacher."""
    from ilab.cli.render import console, plan_table
    from ilab.core.files import write_json

    build = prepare(options, pipeline, parameters)
    with engine_for(build) as engine:
        chosen = build.plan.until(until) if until else build.plan
        make_cheap(engine, chosen)
        previews = engine.preview(chosen, forced(build, force))
    if output:
        write_json(Path(output), build.plan.dump())
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
@PIPELINE
@PARAMETER
@UNTIL
@click.option("--only", metavar="STEP", help="Only this step; what it needs must be there.")
@FORCE
@detachable
@click.pass_obj
def run(
    options: Options,
    pipeline: str | None,
    parameters: Sequence[str],
    until: str | None,
    only: str | None,
    force: Sequence[str],
) -> None:
    """Build. What is up to date is reused; run it again after any interruption."""
    from ilab.actions import note_run
    from ilab.cli.results import show_outcome
    from ilab.core.store import disk_error
    from ilab.outcome import draw_report, outcome

    if only and until:
        raise InputError("--only and --until exclude each other")
    build, teacher = prepare_with_teacher(options, pipeline, parameters)
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
@PIPELINE
@PARAMETER
@click.pass_obj
def status(options: Options, pipeline: str | None, parameters: Sequence[str]) -> None:
    """Which steps are done, which one is running and how far it is."""
    from rich.table import Table

    from ilab.actions import step_states
    from ilab.cli.render import console, finished_text, progress_text

    build = prepare(options, pipeline, parameters)
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
@PIPELINE
@PARAMETER
@click.pass_obj
def params(options: Options, pipeline: str | None, parameters: Sequence[str]) -> None:
    """The pipeline parameters: value, where it comes from, what it does."""
    from rich.table import Table

    from ilab.actions import parameters_of
    from ilab.cli.render import console

    given = parameters_of(options.load(pipeline=pipeline), split_parameters(parameters))
    if options.as_json:
        options.result(given)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("parameter", "value", "from", "valid", "what it does"):
        table.add_column(name, overflow="fold")
    for row in given:
        value = "" if row["value"] is None else str(row["value"])
        table.add_row(row["name"], value, row["origin"], row["valid"], row["help"])
    console().print(table)


@group.command()
@PIPELINE
@PARAMETER
@click.option("--dry-run", is_flag=True, help="Say what would go, remove nothing.")
@click.pass_obj
def gc(options: Options, pipeline: str | None, parameters: Sequence[str], dry_run: bool) -> None:
    """Remove results that this pipeline no longer needs, and abandoned partial work."""
    from ilab.actions import collect_garbage

    build = prepare(options, pipeline, parameters)
    with engine_for(build) as engine:
        removed = collect_garbage(build, engine, dry_run=dry_run)
    freed = sum(item["bytes"] for item in removed)
    lines = [f"{item['path']}  {item['bytes'] / 1e6:.1f} MB" for item in removed]
    verb = "would be freed" if dry_run else "freed"
    options.result({"removed": removed, "bytes": freed}, "\n".join([*lines, f"{freed / 1e6:.1f} MB {verb}"]))


def prepare(options: Options, pipeline: str | None, parameters: Sequence[str]) -> Build:
    """The build that this command line and the project describe, with the teacher that is at hand."""
    return prepare_with_teacher(options, pipeline, parameters)[0]


def prepare_with_teacher(options: Options, pipeline: str | None, parameters: Sequence[str]) -> tuple[Build, Teacher]:
    """The same, with the teacher, which may have to be served."""
    from ilab.actions import prepare as prepare_build

    teacher, values = teacher_of_build(options, options.load(pipeline=pipeline), split_parameters(parameters))
    return prepare_build(teacher.loaded, values), teacher


def split_parameters(texts: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"-p takes NAME=VALUE, not {text!r}", hint="for example -p sdg_scale_factor=8")
        values[name.strip().lower()] = value
    return values


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
    from ilab.core.store import Store

    engine = Engine(Store(build.loaded.store), build.where)
    try:
        yield engine
    finally:
        engine.close()


def run_folder(engine: Engine) -> Path:
    """A new folder for the events and the report of one run, named so that the newest sorts last."""
    runs = engine.store.root / "runs"
    runs.mkdir(exist_ok=True)
    for count in range(1, 1000):
        folder = runs / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}.{count:03d}"
        with contextlib.suppress(FileExistsError):  # another run began in the same second
            folder.mkdir()
            return folder
    raise SetupError("too many runs began within a second", where=str(runs))


@contextlib.contextmanager
def watching(engine: Engine, folder: Path, *, quiet: bool = False) -> Iterator[None]:
    """This run's events in ``folder`` and on the terminal, and signals that stop with the work saved."""
    from ilab.cli.live import view
    from ilab.core.events import Bus, jsonl_sink

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
        with view(quiet) as shown:
            engine.bus = Bus([jsonl_sink(folder / "events.jsonl"), shown])
            yield
    except Stopped as error:
        if caught:
            error.exit_code = 128 + caught[0]  # what shells expect of a process that a signal stopped
        raise
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
        sys.stderr.flush()
