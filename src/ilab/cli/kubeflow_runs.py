"""The runs of a cluster: ``ilab pipeline wait | logs | cancel``, and those that `status` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.building import Asked
from ilab.cli.kubeflow_options import SERVER, loaded_for, options_of, server_of
from ilab.errors import GateError, InputError, ServiceError

if TYPE_CHECKING:
    from ilab.kubeflow.client import Kubeflow
    from ilab.kubeflow.run_details import Run, Task

RUN = click.argument("run_id", metavar="RUN")


def show_runs(options: Options, asked: Asked, run_id: str | None, given: dict[str, Any]) -> None:
    """The newest runs on the cluster; of one run every task."""
    from rich.table import Table

    from ilab.cli.render import console

    loaded = loaded_for(options, asked, given)
    server = server_of(loaded)
    found = [server.run(run_id)] if run_id else server.runs(loaded.config.where.kubeflow.experiment)
    if options.as_json:
        options.result([_json(run) for run in found])
        return
    if not found:
        click.echo(f"No runs yet in the experiment {loaded.config.where.kubeflow.experiment}: ilab pipeline submit")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "state", "seconds") if run_id else ("run", "name", "state"):
        table.add_column(column, overflow="fold")
    if run_id:
        for task in found[0].tasks:
            table.add_row(task.name, task.state, "" if task.seconds is None else f"{task.seconds:.0f}")
    else:
        for run in found:
            table.add_row(run.id, run.name, run.state)
    console().print(table)


@click.command()
@options_of(SERVER)
@RUN
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Give up after so long; the run goes on.")
@click.pass_obj
def wait(options: Options, /, run_id: str, timeout: float | None, **given: Any) -> None:
    """Follow a run until it has ended. Exit code 0 where it succeeded, 4 where a task failed, 5 at the gate."""
    wait_for(options, server_of(loaded_for(options, Asked(), given)), run_id, timeout)


@click.command()
@options_of(SERVER)
@RUN
@click.argument("task", required=False, metavar="[TASK]")
@click.pass_obj
def logs(options: Options, /, run_id: str, task: str | None, **given: Any) -> None:
    """What the tasks of a run printed; of one TASK alone, by its name in `ilab pipeline status RUN`."""
    server = server_of(loaded_for(options, Asked(), given))
    run = server.run(run_id)
    chosen = [one for one in run.tasks if task is None or task in (one.name, one.step)]
    if not chosen:
        known = ", ".join(one.name for one in run.tasks) or "none yet"
        raise InputError(f"the run has no task {task!r}", where=run_id, hint=f"its tasks: {known}")
    for one in chosen:
        for line in server.log(run_id, one):
            click.echo(f"{one.name}: {line}" if task is None else line)


@click.command()
@options_of(SERVER)
@click.option("--context", metavar="NAME", help="Where its training is.  [config: where.kubeflow.context]")
@RUN
@click.pass_obj
def cancel(options: Options, /, run_id: str, **given: Any) -> None:
    """Stop a run, and delete its training jobs. What it made stays, and the next run goes on from there."""
    from ilab.kubeflow.training_jobs import end_jobs_of

    loaded = loaded_for(options, Asked(), given)
    server_of(loaded).cancel(run_id)
    place = loaded.config.where.kubeflow
    ended, note = end_jobs_of(run_id, place.namespace, place.host, place.context)
    lines = [f"{run_id} is being stopped", *(f"{job} is deleted" for job in ended)]
    if note:
        click.echo(f"note: {note}", err=True)
    options.result({"run": run_id, "state": "canceling", "deleted": ended}, "\n".join(lines))


def wait_for(options: Options, server: Kubeflow, run_id: str, timeout: float | None) -> None:
    run = follow(server, run_id, timeout)
    options.result(_json(run), f"{run.id}: {run.state.lower()}")
    must_have_succeeded(server, run)


def follow(server: Kubeflow, run_id: str, timeout: float | None = None) -> Run:
    """The run when it has ended; until then what its tasks do is said."""
    shown: dict[str, str] = {}

    def seen(run: Run) -> None:
        for task in run.tasks:
            if shown.get(task.name) != task.state:
                shown[task.name] = task.state
                took = f" ({task.seconds:.0f} s)" if task.seconds is not None else ""
                click.echo(f"{task.name}: {task.state.lower()}{took}", err=True)

    return server.wait(run_id, timeout, seen)


def must_have_succeeded(server: Kubeflow, run: Run) -> None:
    """Raises GateError where the gate ended a run, ServiceError where something else did."""
    if run.state == "SUCCEEDED":
        return
    failed = [task for task in run.tasks if task.state == "FAILED"]
    if any(_gate_said_no(server, run.id, task) for task in failed):
        raise GateError(
            "the run ended before packaging", hint="the report of the task Results says what the gate found"
        )
    where = f" at {failed[0].name}" if failed else ""
    task = f" {failed[0].step}" if failed and failed[0].step else ""
    raise ServiceError(
        f"the run ended as {run.state.lower()}{where}{f': {run.error}' if run.error else ''}",
        where=run.id,
        hint=f"ilab pipeline logs {run.id}{task}; submitted again it goes on from what is made",
    )


def _gate_said_no(server: Kubeflow, run_id: str, task: Task) -> bool:
    """Whether a task ended with the gate's exit code, by its log; packaging whose log is gone is taken for it."""
    from ilab.kubeflow.tasks import ENDED

    code = None
    try:
        for line in server.log(run_id, task):
            _, mark, rest = line.partition(ENDED)
            code = rest.partition(";")[0].strip() if mark else code
    except ServiceError:
        pass
    return task.step == "package" if code is None else code == str(GateError.exit_code)


def _json(run: Run) -> dict[str, Any]:
    tasks = [{"name": task.name, "state": task.state, "seconds": task.seconds} for task in run.tasks]
    return {"run": run.id, "name": run.name, "state": run.state, "error": run.error, "tasks": tasks}
