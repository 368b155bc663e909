"""Where the trainings of a plan would run: verdict and lines of ``--dry-run``, and the manifest for a cluster."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.outputs import output_file
from ilab.errors import Stopped

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.core.pipeline import Planned
    from ilab.core.run import Engine

MANIFEST_OPTIONS = (
    click.option(
        "--manifest",
        type=click.Choice(["TrainJob", "PyTorchJob"]),
        help="Let pods train: print the manifest for Kubeflow.  [config: where.train.launcher]",
    ),
    click.option(
        "--submit",
        type=click.Choice(["TrainJob", "PyTorchJob"]),
        help="Let pods train: make the job in the cluster, and wait.  "
        "[config: where.train.launcher, where.train.submit]",
    ),
    click.option("--output", "manifest_file", metavar="FILE", help="Write the manifest there."),
)


def placements(engine: Engine, build: Build) -> dict[str, dict[str, Any]]:
    """For each training that is not made yet: ``fits`` (None: not known), ``verdict``, and the ``commands``.

    There is one command for each machine where torchrun starts several processes, else none.
    """
    from ilab.training.handover import FOLDER
    from ilab.training.launch import commands

    found: dict[str, dict[str, Any]] = {}
    where = build.where.train
    for name, planned in build.plan.steps.items():
        type_ = planned.step.type
        if type_ != "train" or engine.store.record(type_, planned.key) is not None:
            continue
        folder = engine.store.partial(type_, planned.key).work / FOLDER
        several = where.launcher == "here" and where.world > 1
        lines = [shlex.join(line) for line in commands(folder.absolute(), where)] if several else []
        fits, verdict = _verdict(engine, build, planned)
        found[name] = {"fits": fits, "verdict": verdict, "commands": lines}
    return found


def show_placements(found: Mapping[str, Mapping[str, Any]]) -> None:
    """The same for people."""
    for name, told in found.items():
        first, *rest = told["verdict"].splitlines()
        click.echo("\n".join([f"\n{name}: {first}", *(f"  {line}" for line in rest)]))
        for number, line in enumerate(told["commands"]):
            by = "this command starts, without --dry-run" if number == 0 else "to type there, now or later"
            click.echo(f"  machine {number}, {by}:\n    {line}")


@contextmanager
def handing_over(options: Options, asked: bool, output: str | None) -> Iterator[None]:
    """Where a manifest was asked for and the training now waits for pods, that is the result and no failure."""
    from ilab.core.files import write_text
    from ilab.training.manifests import MARK

    target = output_file(options, output, lambda text: MARK in text) if output else None
    try:
        yield
    except Stopped as waiting:
        from ilab.training.elsewhere import HandedOver

        if not asked or not isinstance(waiting, HandedOver):
            raise
        path = waiting.manifest
        text = path.read_text(encoding="utf-8")
        if target:
            path = target
            write_text(path, text)
        if options.as_json:
            options.result({"manifest": str(path), "state": waiting.message})
            return
        if not output:
            click.echo(text, nl=False)
        click.echo(f"{waiting.message}: {path}", err=True)
        click.echo(
            f"Next: kubectl apply -f {shlex.quote(str(path))}  and, when it is done, this command again", err=True
        )


def _verdict(engine: Engine, build: Build, planned: Planned) -> tuple[bool | None, str]:
    from ilab.artifacts import Checkpoint, Dataset
    from ilab.training.forecast import forecast

    places = {}
    for given in ("dataset", "base"):
        source = build.plan.steps[str(planned.inputs[given])]
        record = engine.store.record(source.step.type, source.key)
        if record is None:
            return None, f"what it takes is known when {source.name} is made"
        places[given] = engine.store.contents(record)
    rows = Dataset(places["dataset"]).rows()
    return forecast(planned.step.fields(), rows, Checkpoint(places["base"]).model, build.where)
