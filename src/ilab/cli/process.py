"""``ilab process``: what runs in the background; and the option that sends a command there.

@group.command()
@detachable                       adds --detach
def run(options, …):
    build = prepare(…)            whatever can be wrong is told in the foreground
    go_to_background(options)     with --detach the command ends here, and its like begins behind it
    …
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ilab.cli.app import Options
from ilab.errors import InputError, SetupError
from ilab.supervisor import MARK

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.config import Endpoint, Where
    from ilab.core.pipeline import Plan
    from ilab.processes import Process
    from ilab.sdg.flow import Flow

F = TypeVar("F", bound=Callable[..., Any])

ASKED = "ilab.detach"
DAY = 86400.0
STATES = ("running", "done", "stopped", "failed", "lost", "elsewhere")
UPSTREAM = {"errored": "failed"}  # of InstructLab's states those that have another name here
FIXED = ("id", "state", "started", "for")  # columns that are never cut: 60 characters with the space between
WIDE = 120  # columns of a terminal below which the list leaves the folders out
STATE = click.Choice([*STATES, *UPSTREAM], case_sensitive=False)
COLOURS = {"running": "cyan", "done": "green", "stopped": "yellow", "failed": "red", "lost": "red"}
IDENTITY = click.argument("identity", required=False, metavar="[ID]")
FORCE = click.option("-f", "--force", "forced", is_flag=True, hidden=True, expose_value=False)  # nothing is asked


def detachable(command: F) -> F:
    """Add ``--detach`` (``-dt``, ``--detached``), which :func:`go_to_background` answers to."""

    def note(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.meta[ASKED] = value

    return click.option(
        "-dt", "--detach", "--detached", is_flag=True, expose_value=False, callback=note,
        help="Run it in the background (see `ilab process`).",
    )(command)  # fmt: skip


def leaving() -> bool:
    """Whether the command was asked to go to the background, and is not there yet."""
    return bool(click.get_current_context().meta.get(ASKED)) and MARK not in os.environ


def go_to_background(options: Options) -> None:
    """With ``--detach``: start the same command in the background, say how to follow it, and end this one.

    Otherwise, and in the background itself, it does nothing. Called once all that can be checked is checked.
    """
    if not leaving():
        os.environ.pop(MARK, None)  # what this command starts is a command of its own
        return
    from ilab.processes import Processes

    process = Processes().start(sys.argv[1:])
    told = {
        "id": process.id,
        "pid": process.pid,
        "log": str(process.log),
        "attach": f"ilab process attach {process.id}",
    }
    options.result(told, f"{process.id} runs in the background\nlog: {process.log}\nTo follow it: {told['attach']}")
    click.get_current_context().exit(0)


def stay_for_dry_run(dry_run: bool) -> None:
    """Raises InputError where ``--detach`` is given with ``--dry-run``, which shows something at once."""
    if dry_run and leaving():
        raise InputError("--dry-run and --detach exclude each other", hint="a dry run takes no time")


def check_teachers(build: Build, plan: Plan) -> None:
    """Before leaving: whether the teachers that ``plan`` is going to ask can be asked; see :func:`meet_teachers`.

    A teacher that is going to be served there is not met.
    """
    from ilab.cli.teacher import asking
    from ilab.sdg.stage import found_flow
    from ilab.steps.data import Generate, HoldOut

    if build.where.teacher is not None and build.where.teacher.pending:
        return
    for step in asking(build, plan):
        if isinstance(step, Generate):
            flows = found_flow(build.plan.found[step.flow]).flows.values()
            meet_teachers(build.where, flows, (step.teacher, step.verifier), step.scale_factor)
        elif isinstance(step, HoldOut):
            meet_teacher(build.where.teacher, step.teacher)


def meet_teachers(where: Where, flows: Collection[Flow], names: tuple[str, str], scale: int) -> None:
    """Meet the teacher and the second one, by ``names``, so far as ``flows`` ask them; see :func:`meet_teacher`."""
    from ilab.sdg.teachers import ask_verifier

    if any(flow.calls_teacher for flow in flows):
        meet_teacher(where.teacher, names[0])
    if ask_verifier(where, flows, names[1], scale):
        meet_teacher(where.verifier, names[1])


def meet_teacher(endpoint: Endpoint | None, name: str) -> None:
    """Raises InputError where no teacher is named or its server does not serve it, ServiceError where none answers."""
    import asyncio

    from ilab.models.openai import OpenAIModel

    if endpoint is None or not name:
        hint = "add --set where.teacher.url=URL and -p sdg_teacher_model=NAME, or -p sdg_pipeline=extractive"
        raise InputError("the flow asks a teacher, and there is none", hint=hint)

    async def served() -> tuple[str, ...]:
        teacher = OpenAIModel(endpoint)
        try:
            return await teacher.models()
        finally:
            await teacher.close()

    names = asyncio.run(served())
    if names and name not in names:
        hint = f"it serves: {', '.join(names)}; give one of these names"
        raise InputError(f"this server does not serve a model named {name!r}", where=endpoint.url, hint=hint)


@click.group(name="process")
def group() -> None:
    """Commands that were started with --detach: list, follow, stop, forget."""


@group.command(name="list")
@click.option("--state", type=STATE, metavar="STATE", help=f"Only {', '.join(STATES)}.")
@click.pass_obj
def list_(options: Options, state: str | None) -> None:
    """What runs in the background, and what ran there, the oldest first."""
    from ilab.processes import Processes

    found = [one for one in Processes().all() if state is None or one.state == UPSTREAM.get(state, state)]
    if options.as_json:
        options.result([one.facts() for one in found])
    elif not found:
        click.echo("Nothing runs in the background. To send a command there: --detach", err=True)
    else:
        _show(found)


def _show(found: list[Process]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ilab.cli.render import console, one_line, seconds

    screen = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in FIXED:
        table.add_column(name, no_wrap=True)
    folding = ("command", "folder", "progress") if screen.width >= WIDE else ("command", "progress")
    texts = [
        {
            "command": one_line(" ".join(("ilab", *one.command))),
            "folder": one_line(one.directory),
            "progress": one_line(one.progress()) if one.state in ("running", "failed") else "",
        }
        for one in found
    ]
    longest = {name: max(len(name), *(len(row[name]) for row in texts)) for name in folding}
    for name, width in _shares(longest, screen.width - 60).items():
        table.add_column(name, overflow="ellipsis", no_wrap=True, max_width=width)
    for one, row in zip(found, texts, strict=True):
        state = f"{one.state} ({one.code})" if one.state == "failed" else one.state
        table.add_row(
            one.id,
            Text(state, style=COLOURS.get(one.state, "")),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.started)) if one.started else "?",
            seconds(one.seconds) if one.seconds is not None else "?",
            *(Text(row[name]) for name in folding),
        )
    screen.print(table)


def _shares(wanted: Mapping[str, int], space: int) -> dict[str, int]:
    """``space`` shared out fairly: who wants less than an even share leaves the rest to the others."""
    shares: dict[str, int] = {}
    for name, want in sorted(wanted.items(), key=lambda entry: entry[1]):
        shares[name] = max(8, min(want, (space - sum(shares.values())) // (len(wanted) - len(shares))))
    return {name: shares[name] for name in wanted}


@group.command()
@IDENTITY
@click.option("--uuid", hidden=True, help="The id, as InstructLab takes it.")
@click.option("--latest", is_flag=True, help="The newest, which it is without an id, too.")
@click.pass_context
def attach(context: click.Context, identity: str | None, uuid: str | None, latest: bool) -> None:
    """Show all that a process has said, and what it says, until it ends; then end with its exit code.

    ID may be shortened; without it the newest is shown. Ctrl-C ends the showing, not the process.
    """
    from ilab.cli.findings import printable
    from ilab.processes import Processes

    if latest and (identity or uuid):
        raise InputError("--latest and an id exclude each other")
    processes = Processes()
    process = processes.find(identity or uuid)
    try:
        with contextlib.suppress(FileNotFoundError):  # removed by somebody else, or by hand
            for line in processes.follow(process):
                click.echo(printable(line))
    except KeyboardInterrupt:
        click.echo(f"\n{process.id} goes on. To stop it: ilab process stop {process.id}", err=True)
        context.exit(130)
    ended = processes.read(process.id)
    if ended.code is None:
        raise SetupError(
            f"{ended.id} ended without a word" if ended.state == "lost" else f"{ended.id} runs on {ended.host}",
            where=str(ended.log),
            hint="it was killed, or the machine restarted: the same command goes on" if ended.state == "lost" else "",
        )
    click.echo(_ending(ended), err=True)
    context.exit(ended.code)


def _ending(process: Process) -> str:
    return f"{process.id}: {process.state}" + (f", exit code {process.code}" if process.code else "")


@group.command()
@click.argument("identity", metavar="ID")
@click.option("--force", is_flag=True, help="Kill it if it has not stopped after the time of grace.")
@click.option(
    "--grace", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds that --force waits first."
)
@click.pass_obj
def stop(options: Options, identity: str, force: bool, grace: float) -> None:
    """Stop a process as Ctrl-C does, so that its work is kept and the same command goes on; wait for its end."""
    from ilab.processes import Processes

    processes = Processes()
    process = processes.find(identity)
    if process.state == "running":  # else it is refused, and nothing is being stopped
        click.echo(f"stopping {process.id} …", err=True)
    ended = processes.stop(process, grace if force else None)
    options.result(ended.facts(), _ending(ended))


@group.command()
@click.argument("identity", metavar="ID")
@FORCE
@click.pass_obj
def remove(options: Options, identity: str) -> None:
    """Forget a process that has ended, and remove its log."""
    from ilab.processes import Processes

    processes = Processes()
    process = processes.find(identity)
    processes.remove(process)
    options.result({"removed": [process.id]}, f"removed {process.id}")


@group.command()
@click.option("--older", type=click.FloatRange(0), metavar="DAYS", help="Only those that began so long ago.")
@click.option("--state", type=STATE, metavar="STATE", help="Only done, stopped, failed, lost.")
@FORCE
@click.pass_obj
def prune(options: Options, older: float | None, state: str | None) -> None:
    """Forget all processes that have ended, and remove their logs."""
    from ilab.processes import Processes

    processes = Processes()
    ended = [
        one
        for one in processes.all()
        if one.state not in ("running", "elsewhere")
        and (state is None or one.state == UPSTREAM.get(state, state))
        and (older is None or time.time() - one.started >= older * DAY)
    ]
    for one in ended:
        processes.remove(one)
    options.result({"removed": [one.id for one in ended]}, f"removed {len(ended)}")
