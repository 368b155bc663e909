"""``ilab pipeline nightly`` and ``schedule``: the build that comes again and again, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.building import Asked, building
from ilab.cli.process import check_teachers, detachable, go_to_background, leaving
from ilab.errors import IlabError, InputError

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.config import Loaded
    from ilab.nightly import Decision

PROMOTE = click.option("--promote", is_flag=True, help="Where the gate passes, make it the stable one as well.")


@click.command()
@building
@click.option("--from-base", is_flag=True, help="Build all of it from the base model.")
@PROMOTE
@click.option("--dry-run", is_flag=True, help="Say what would be built, and why; build nothing.")
@detachable
@click.pass_obj
def nightly(options: Options, asked: Asked, from_base: bool, promote: bool, dry_run: bool) -> None:
    """Teach the last stable release what has been merged since.

    Nothing new: nothing is built. The new version gets the alias `nightly` once its gate passes.
    """
    from ilab.nightly import build_of, decide, lease_of

    loaded = asked.load(options)
    decision = decide(loaded, asked.values, from_base=from_base)
    build = None if decision.how == "nothing" else build_of(loaded, asked.values, decision)
    if dry_run:
        options.result({**decision.told(), "built": False}, _said(decision))
        return
    if build is not None and leaving():
        check_teachers(build, build.plan)
    go_to_background(options)
    lease = lease_of(loaded, decision.name)
    failure: IlabError | None = None
    told: dict[str, Any] = {"built": False, "channels": {}}
    try:
        # Another build may have ended between the decision and the lease.
        decision = decide(loaded, asked.values, from_base=from_base)
        build = None if decision.how == "nothing" else build_of(loaded, asked.values, decision)
        if not options.as_json:
            click.echo(_said(decision))
        told = _make(options, loaded, decision, build, promote)
    except IlabError as error:
        failure = error
    finally:
        lease.release()
    options.result({**decision.told(), **told, "error": failure.message if failure else None})
    if failure is not None:
        raise failure


def _make(options: Options, loaded: Loaded, decision: Decision, build: Build | None, promote: bool) -> dict[str, Any]:
    """Build what was decided and move the channels; what came of it."""
    from ilab.nightly import finish

    folder = _build(options, decision, build) if build is not None else None
    stays = decision.stable is not None and decision.version == decision.stable.version
    channels = {} if stays else finish(loaded, decision, promote=promote)
    if not options.as_json:
        for alias, version in channels.items():
            click.echo(f"{alias:<8}  {decision.name} {version}")
    return {"built": build is not None, "channels": channels, "folder": str(folder) if folder else None}


def _build(options: Options, decision: Decision, build: Build) -> Path:
    """Run the plan; draw the report and write the changelog, whatever the gate says. Returns the run's folder."""
    from ilab.actions import note_run
    from ilab.cli.pipeline import engine_for, run_folder, watching  # which has this command among its own
    from ilab.cli.results import show_outcome
    from ilab.nightly import write_papers
    from ilab.outcome import draw_report, outcome

    for note in build.notes:
        click.echo(f"note: {note}", err=True)
    with engine_for(build) as engine:
        folder = run_folder(engine)
        note_run(build, folder, apart="nightly")
        try:
            with watching(engine, folder):
                engine.run(build.plan)
        finally:
            page = draw_report(build, engine, folder)
            planned = build.plan.steps["changelog"]
            record = engine.store.record(planned.step.type, planned.key)
            if record is None and page is not None:  # a gate that stops does not stop what tells of it
                record = engine.run_step(build.plan, "changelog")
            if record is not None:
                changelog = engine.store.open(type(planned.step), planned.key)
                write_papers(changelog.report()["changelog"], decision, folder)  # type: ignore[attr-defined]
            if not options.as_json:
                show_outcome(outcome(build, engine, page))
    return folder


def _said(decision: Decision) -> str:
    seen = decision.since
    if decision.how == "nothing":
        return f"Nothing to build: {decision.reason}."
    lines = [f"  {what}: {leaf}" for what in ("added", "changed", "removed") for leaf in getattr(seen, what)]
    if decision.how == "full" or decision.stable is None:
        head = f"A full build, {decision.name} {decision.version}: {decision.reason}."
    else:
        head = f"{decision.name} {decision.version} is built on {decision.stable.version} (stable):"
        lines.append(f"  unchanged, replayed in part: {len(seen.unchanged)}")
    return "\n".join([head, *lines])


@click.command()
@click.option("--cron", default="0 2 * * *", show_default=True, help="Minute, hour, day, month, weekday; or @daily.")
@click.option("--timezone", default="", metavar="ZONE", help="As Europe/Prague.  [default: that of the cluster]")
@click.option("--name", default="", help="Name of the CronJob.  [default: ilab-nightly]")
@PROMOTE
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write the manifest there.")
@click.pass_obj
def schedule(options: Options, cron: str, timezone: str, name: str, promote: bool, output: str | None) -> None:
    """Make a CronJob of the nightly build, and apply nothing.

    The pods are those of where.train.kubernetes: image, volumes, secrets. The project lies on one of the volumes.
    """
    from ilab.core.cron import read_cron
    from ilab.core.files import write_text
    from ilab.training.manifests import cron_job

    loaded = options.load()
    if timezone and not _is_zone(timezone):
        raise InputError(f"there is no time zone {timezone!r}", where="--timezone", hint="as Europe/Prague, or Etc/UTC")
    times, folder = read_cron(cron), loaded.base.resolve()
    command = ["ilab", "-C", str(folder), "pipeline", "nightly", *(["--promote"] if promote else [])]
    text = cron_job(name or "ilab-nightly", (times.text, timezone), command, folder, loaded.config.where.train)
    if output:
        write_text(options.directory / output, text)
    told = {"schedule": times.text, "time_zone": timezone, "next": _next(times, timezone), "path": output}
    apply = f"kubectl apply -f {output}" if output else "ilab pipeline schedule | kubectl apply -f -"
    if not options.as_json:
        click.echo(f"# next: {told['next']}; apply it with: {apply}", err=True)
    options.result({**told, "manifest": text}, output or text.rstrip())


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
