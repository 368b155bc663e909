"""``ilab pipeline nightly``: what has been merged is taught to the stable release, here or on a cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.building import Asked, building
from ilab.cli.kubeflow_options import SERVER, TARGET, loaded_for, options_of, server_of, target_of, wanted_of
from ilab.cli.kubeflow_runs import follow, must_have_succeeded
from ilab.cli.process import check_teachers, detachable, go_to_background, leaving
from ilab.cli.teacher import reaching, served, teacher_of_build, tell
from ilab.errors import IlabError, InputError

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.config import Loaded
    from ilab.core.lease import Held
    from ilab.kubeflow.client import Kubeflow
    from ilab.nightly import Decision
    from ilab.packaging.stages import Stages
    from ilab.teacher_at_hand import Teacher

PROMOTE = click.option("--promote", is_flag=True, help="Where the gate passes, make it the stable one as well.")


@dataclass
class Night:
    """What one night is asked for, and what came of it so far: told at the end, also of one that fails."""

    options: Options
    loaded: Loaded
    parameters: dict[str, Any]
    from_base: bool
    promote: bool
    told: dict[str, Any] = field(default_factory=lambda: {"built": False, "channels": {}})
    lease: Held | None = None

    def decide(self) -> Decision:
        from ilab.nightly import decide

        decision = decide(self.loaded, self.parameters, from_base=self.from_base)
        self.told |= decision.told()
        return decision

    def build(self, decision: Decision) -> Build | None:
        from ilab.nightly import build_of

        return None if decision.how == "nothing" else build_of(self.loaded, self.parameters, decision)

    def say(self, line: str) -> None:
        if not self.options.as_json:
            click.echo(line)

    def only_decide(self) -> None:
        """The end of ``--dry-run``: what would be built, and that it can be."""
        decision = self.decide()
        self.build(decision)
        self.options.result(self.told, _said(decision))

    def move(self, name: str, version: str) -> None:
        """Move the channels to what is built, and say where they are."""
        from ilab.packaging.channels import finish

        self.check_lease()
        with self.told_on(name) as stages:
            self.channels(name, finish(stages, name, version, promote=self.promote))

    @contextmanager
    def told_on(self, name: str) -> Iterator[Stages]:
        """The registry's channels, and the registries beside it hear of what is moved."""
        from ilab.actions import parameters_of
        from ilab.nightly import stages_of
        from ilab.packaging.sinks import followed
        from ilab.where import where_for

        values = {row["name"]: row["value"] for row in parameters_of(self.loaded, self.parameters)}
        stages = stages_of(self.loaded)
        with followed(stages, name, where_for(self.loaded, values)):
            yield stages

    def channels(self, name: str, moved: dict[str, str]) -> None:
        self.told["channels"] = moved
        for alias, version in moved.items():
            self.say(f"{alias:<8}  {name} {version}")

    def check_lease(self) -> None:
        """Before what must not happen twice: this machine may have slept for longer than its lease holds."""
        if self.lease is not None:
            self.lease.check()

    def under_lease(self, name: str, work: Callable[[], None]) -> None:
        """Do it while no other build of that model does; tell what came of it."""
        from ilab.nightly import lease_of

        self.lease = lease_of(self.loaded, name)
        failure: IlabError | None = None
        try:
            work()
        except IlabError as error:
            failure = error
        finally:
            self.lease.release()
        self.options.result({**self.told, "error": failure.message if failure else None})
        if failure is not None:
            raise failure


@click.command()
@building
@click.option("--from-base", is_flag=True, help="Build all of it from the base model.")
@PROMOTE
@click.option("--dry-run", is_flag=True, help="Say what would be built, and why; build nothing.")
@click.option("--on", type=click.Choice(["local", "kubeflow"]), default="local", help="Where it is built.")
@click.option("--no-wait", is_flag=True, help="On a cluster: leave when it is submitted; the next call moves channels.")
@options_of(SERVER, TARGET)
@detachable
@click.pass_obj
def nightly(options: Options, /, asked: Asked, on: str, **given: Any) -> None:
    """Teach the last stable release what has been merged since.

    Nothing new: nothing is built. The new version gets the alias `nightly` once its gate passes. With --on kubeflow it
    is decided here and built by a run on the cluster; both need one store: --run-store s3://…, or a volume claim.
    """
    from_base, promote, dry_run, no_wait = (given.pop(name) for name in ("from_base", "promote", "dry_run", "no_wait"))
    if on == "kubeflow":
        night = Night(options, _seen_by_pods(options, asked, given), asked.values, from_base, promote)
        _on_kubeflow(night, dry_run=dry_run, waits=not no_wait)
        return
    if no_wait:
        raise InputError("--no-wait goes with --on kubeflow", hint="here it runs in the background with --detach")
    teacher, values = teacher_of_build(options, asked.load(options), asked.values)
    _here(Night(options, teacher.loaded, values, from_base, promote), teacher, dry_run)


def _here(night: Night, teacher: Teacher, dry_run: bool) -> None:
    if dry_run:
        night.only_decide()
        return
    decision = night.decide()
    build = night.build(decision)
    if build is not None and leaving():
        check_teachers(build, build.plan)
    go_to_background(night.options)

    def work() -> None:
        decided = night.decide()  # again: another build may have ended between the decision and the lease
        build = night.build(decided)
        night.say(_said(decided))
        folder = _run(night.options, decided, build, teacher) if build is not None else None
        night.told |= {"built": build is not None, "folder": str(folder) if folder else None}
        if not _stays(decided):
            night.move(decided.name, decided.version)

    night.under_lease(decision.name, work)


def _run(options: Options, decision: Decision, build: Build, teacher: Teacher) -> Path:
    """Run the plan; draw the report and write the changelog, whatever the gate says. Returns the run's folder."""
    from ilab.actions import note_run
    from ilab.cli.pipeline import engine_for, run_folder, watching  # which has this command among its own
    from ilab.cli.results import show_outcome
    from ilab.nightly import write_papers
    from ilab.outcome import draw_report, outcome

    for note in build.notes:
        tell(f"note: {note}")
    with served(teacher) as address, engine_for(reaching(build, build.plan, address)) as engine:
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
                model = decision.name, decision.version
                write_papers(changelog.report()["changelog"], model, folder)  # type: ignore[attr-defined]
            if not options.as_json:
                show_outcome(outcome(build, engine, page))
    return folder


def _seen_by_pods(options: Options, asked: Asked, given: dict[str, Any]) -> Loaded:
    """The configuration that pods are going to find: their store, their Secrets' servers, the ConfigMap as it is."""
    from ilab.core.trust import trust_bundle
    from ilab.kubeflow import nights
    from ilab.kubeflow.tasks import show_key

    trust_bundle()
    show_key()
    own = loaded_for(options, asked, given)
    nights.shared(own)  # said before anything is asked
    live = nights.live_of(own)
    if live.note:
        tell(f"note: {live.note}")
    return nights.patched(nights.shared(loaded_for(options, asked, given, nights.of_pods(own, live))), live)


def _on_kubeflow(night: Night, *, dry_run: bool, waits: bool) -> None:
    """Decide here, build on the cluster. A run of an earlier call is caught up with, never submitted twice."""
    from ilab.actions import parameters_of
    from ilab.kubeflow.nights import check_reachable, newest
    from ilab.packaging.channels import catch_up

    values = {row["name"]: row["value"] for row in parameters_of(night.loaded, night.parameters)}
    check_reachable(values)
    target_of(night.loaded)  # raises for what is missing
    if dry_run:
        night.only_decide()
        return
    server, name = server_of(night.loaded), str(values["output_model_name"])
    go_to_background(night.options)

    def work() -> None:
        last = newest(server.named(night.loaded.config.where.kubeflow.experiment, f"{name} "), name)
        if last is not None and not last[0].ended:
            run, version = last
            reason = f"the run {run.id} is under way"
            night.told |= {"how": "under way", "reason": reason, "name": name, "version": version}
            night.say(f"{name} {version} is not submitted again: {reason}.")
            _end(night, server, run.id, version, waits)
            return
        if last is not None:
            with night.told_on(name) as stages:
                night.channels(name, catch_up(stages, name, last[1], promote=night.promote))
        _begin(night, server, waits)

    night.under_lease(name, work)


def _begin(night: Night, server: Kubeflow, waits: bool) -> None:
    """Decide, and submit what is to be built."""
    decision = night.decide()
    build = night.build(decision)
    night.say(_said(decision))
    if build is not None:
        for note in build.notes:
            tell(f"note: {note}")
        _end(night, server, _submitted(night, server, decision, build), decision.version, waits)
    elif not _stays(decision):
        night.move(decision.name, decision.version)


def _submitted(night: Night, server: Kubeflow, decision: Decision, build: Build) -> str:
    """Submit the cut pipeline, every parameter as it was decided and the taxonomy at its commit; the run's id."""
    from ilab.actions import pipeline_of
    from ilab.kubeflow.definition import compile_to, defaults, kubeflow_pipeline
    from ilab.kubeflow.nights import run_name
    from ilab.kubeflow.tasks import pinned
    from ilab.nightly import cut_of

    values = pinned(build)
    form = defaults(values)
    target = target_of(night.loaded, tuple(sorted(form)))
    cut = cut_of(night.loaded, decision).cut(pipeline_of(night.loaded))
    with tempfile.TemporaryDirectory(prefix="ilab-") as folder:
        package = Path(folder) / "pipeline.yaml"
        compile_to(package, kubeflow_pipeline(cut, values, wanted_of(values, target), target))
        name = run_name(decision.name, decision.version)
        night.check_lease()
        run = server.submit(package, name, night.loaded.config.where.kubeflow.experiment, form)
    night.say(f"{run} {name!r}")
    return run


def _end(night: Night, server: Kubeflow, run_id: str, version: str, waits: bool) -> None:
    """Wait for the run and move the channels; or say how to follow it."""
    night.told["run"] = run_id
    if not waits:
        night.say(f"To follow it: ilab pipeline wait {run_id}; the channels are moved by the next nightly build")
        return
    must_have_succeeded(server, follow(server, run_id))
    night.told["built"] = True
    night.move(night.told["name"], version)


def _stays(decision: Decision) -> bool:
    """Whether there is nothing but the stable release, which no channel has to move to."""
    return decision.stable is not None and decision.version == decision.stable.version


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
