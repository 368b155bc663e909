"""``ilab pipeline schedule``: when the nightly build comes, as a CronJob or as a recurring run of Kubeflow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.building import Asked, building
from ilab.cli.kubeflow_options import SERVER, TARGET, loaded_for, options_of, server_of, six_fields, target_of
from ilab.cli.outputs import holds_lines, output_file
from ilab.cli.pipeline_nightly import PROMOTE
from ilab.cli.teacher import tell
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.kubeflow.client import Kubeflow
    from ilab.kubeflow.nights import Caller

NAME = "ilab-nightly"
ZONES = ("", "UTC", "Etc/UTC")  # of a recurring run: Kubeflow reads times in its server's zone


@click.command()
@building
@click.option("--cron", default="0 2 * * *", show_default=True, help="Minute, hour, day, month, weekday; or @daily.")
@click.option("--timezone", default="", metavar="ZONE", help="As Europe/Prague.  [default: that of the cluster]")
@click.option("--name", default=NAME, show_default=True, help="Name of the CronJob or recurring run.")
@PROMOTE
@click.option("--on", type=click.Choice(["cronjob", "kubeflow"]), default="cronjob", help="What calls it.")
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write the CronJob's manifest there.")
@click.option("--list", "listed", is_flag=True, help="On kubeflow: show the recurring runs, change nothing.")
@click.option("--delete", is_flag=True, help="On kubeflow: remove the recurring run of that name.")
@options_of(SERVER, TARGET)
@click.pass_obj
def schedule(options: Options, /, asked: Asked, on: str, **given: Any) -> None:
    """Have the nightly build made again and again.

    Writes a CronJob, and applies nothing: the pods are those of where.train.kubernetes, and the project lies on one of
    the volumes. With --on kubeflow a recurring run is made, or replaced by one of the same name: its task calls `ilab
    pipeline nightly --on kubeflow`.
    """
    cron, zone, name, promote, output, listed, delete = (
        given.pop(key) for key in ("cron", "timezone", "name", "promote", "output", "listed", "delete")
    )
    if zone and not _is_zone(zone):
        raise InputError(f"there is no time zone {zone!r}", where="--timezone", hint="as Europe/Prague, or Etc/UTC")
    command = ["pipeline", "nightly", *(["--promote"] if promote else []), *_parameters(options, asked)]
    if on == "cronjob":
        if listed or delete:
            hint = "add --on kubeflow; of CronJobs: kubectl get cronjobs, kubectl delete cronjob NAME"
            raise InputError("--list and --delete are for recurring runs", hint=hint)
        chosen = {"--pipeline": asked.pipeline, "--env": asked.environment}
        command += [word for option, value in chosen.items() if value for word in (option, value)]
        _cron_job(options, options.load(), (cron, zone), command, name, output)
        return
    if output:
        raise InputError("a recurring run has no manifest", where="--output", hint="leave it out")
    if zone not in ZONES:
        hint = "give --cron in the server's time (UTC, unless its operator set another), or write a CronJob"
        raise InputError("Kubeflow takes no time zone", where="--timezone", hint=hint)
    loaded = loaded_for(options, asked, given)
    if listed:
        _list(options, loaded)
    elif delete:
        _delete(options, loaded, name)
    else:
        _recur(options, loaded, cron, command, name)


def _cron_job(
    options: Options, loaded: Loaded, when: tuple[str, str], command: list[str], name: str, output: str | None
) -> None:
    from ilab.core.cron import read_cron
    from ilab.core.files import write_text
    from ilab.training.manifests import cron_job

    target = output_file(options, output, holds_lines("kind: CronJob", "- ilab", "- nightly")) if output else None
    times, folder = read_cron(when[0]), loaded.base.resolve()
    whole = ["ilab", "-C", str(folder), *command]
    text = cron_job(name, (times.text, when[1]), whole, folder, loaded.config.where.train)
    if target:
        write_text(target, text)
    told = {"schedule": times.text, "time_zone": when[1], "next": _next(times, when[1]), "path": output}
    apply = f"kubectl apply -f {output}" if output else "ilab pipeline schedule | kubectl apply -f -"
    if not options.as_json:
        click.echo(f"# next: {told['next']}; apply it with: {apply}", err=True)
    options.result({**told, "manifest": text}, output or text.rstrip())


def _recur(options: Options, loaded: Loaded, cron: str, command: list[str], name: str) -> None:
    """Make the recurring run, then remove those of the same name that were there before."""
    from ilab.kubeflow.client import need_kfp

    need_kfp()
    from ilab.kubeflow.definition import compile_to
    from ilab.kubeflow.nights import caller_pipeline

    times, caller = six_fields(cron, "--cron"), _caller(loaded, command)
    server, experiment = server_of(loaded), loaded.config.where.kubeflow.experiment
    before = server.schedules(experiment, name)
    with tempfile.TemporaryDirectory(prefix="ilab-") as folder:
        package = Path(folder) / "pipeline.yaml"
        compile_to(package, caller_pipeline(caller))
        made = server.recur(package, name, experiment, times, {})
    for old in before:
        server.unschedule(old.id)
    told = {"recurring": made, "name": name, "cron": times, "replaced": [old.id for old in before]}
    again = " in place of the one before" if before else ""
    called = f"ilab {' '.join(caller.arguments)}"
    options.result({**told, "command": called}, f"{made} {name!r} at {times}{again}\nIts task calls: {called}")


def _caller(loaded: Loaded, command: list[str]) -> Caller:
    """The task that calls the nightly build in a pod, which finds the server of its namespace by itself."""
    from ilab.actions import parameters_of, shipped_pipelines
    from ilab.kubeflow.nights import TO_SHARE, Caller, live_of, patched
    from ilab.kubeflow.secret_names import SECRETS

    place, target = loaded.config.where.kubeflow, target_of(loaded)
    store = place.store or loaded.bucket
    if not (store or place.claim):
        message = "the nights on a cluster share no store: each would know nothing of the one before"
        raise InputError(message, where="where.kubeflow.store", hint=TO_SHARE)
    pipeline = loaded.config.pipeline
    if pipeline not in shipped_pipelines():
        hint = f"one of {', '.join(shipped_pipelines())}; one's own goes with a CronJob in the project's folder"
        raise InputError(f"the pod has no file {pipeline}", where="pipeline", hint=hint)
    if loaded.config.parameters:
        tell("note: the pod has no ilab.yaml: parameters are those of the ConfigMap, and of -p and --parameters here")
    given = {
        "pipeline": pipeline,
        "image": target.image,
        "experiment": place.experiment,
        "namespace": place.namespace,
        "run-store": store,
        "claim": place.claim,
        "access-mode": place.access_mode if place.claim else "",
        "storage-secret": place.storage_secret,
        "env": loaded.config.environment,
    }
    values = {row["name"]: row["value"] for row in parameters_of(patched(loaded, live_of(loaded)), {})}
    return Caller(
        target.image,
        (*command, "--on", "kubeflow", *(f"--{option}={value}" for option, value in given.items() if value)),
        {name: str(values[name]) for name in SECRETS if values[name]},
        place.storage_secret,
        place.claim,
    )


def _parameters(options: Options, asked: Asked) -> list[str]:
    """The parameters that the command line gives, for a command in another place: their files are read here."""
    from ilab.parameters.files import read_parameters

    values: dict[str, Any] = {}
    for file in asked.files:
        values |= read_parameters(options.directory / Path(file).expanduser())
    values |= asked.values
    return [word for name, value in values.items() for word in ("-p", f"{name}={value}")]


def _list(options: Options, loaded: Loaded) -> None:
    from rich.table import Table

    from ilab.cli.render import console

    found = server_of(loaded).schedules(loaded.config.where.kubeflow.experiment)
    if options.as_json:
        options.result([{"recurring": one.id, "name": one.name, "cron": one.cron, "on": one.enabled} for one in found])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("recurring run", "name", "at", "on"):
        table.add_column(column, overflow="fold")
    for one in found:
        table.add_row(one.id, one.name, one.cron, "yes" if one.enabled else "no")
    console().print(table)


def _delete(options: Options, loaded: Loaded, name: str) -> None:
    server: Kubeflow = server_of(loaded)
    found = server.schedules(loaded.config.where.kubeflow.experiment, name)
    if not found:
        hint = "which there are: ilab pipeline schedule --on kubeflow --list"
        raise InputError(f"there is no recurring run {name!r}", where="--name", hint=hint)
    for one in found:
        server.unschedule(one.id)
    options.result({"removed": [one.id for one in found]}, f"{name} comes no more; what it started stays")


def _is_zone(name: str) -> bool:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _next(times: Any, timezone: str) -> str:
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    found = times.next(datetime.now(ZoneInfo(timezone) if timezone else UTC))
    return found.isoformat(timespec="minutes") if found else ""
