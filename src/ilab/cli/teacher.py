"""What commands do with the teacher that is at hand: tell who it is, and reach it when a step is going to ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.core.pipeline import Plan
    from ilab.core.step import Step
    from ilab.teacher_at_hand import Address, Teacher

GLANCE = 0.2  # seconds between two looks at a server's log


def teacher_of_build(options: Options, loaded: Any, parameters: dict[str, Any]) -> tuple[Teacher, dict[str, Any]]:
    """The teacher of a build, told in a line where it was found, and the build's parameters with its name."""
    from ilab.teacher_at_hand import teacher_of_build as of_build

    teacher, parameters = of_build(loaded, parameters, options.directory)
    tell_teacher(teacher)
    return teacher, parameters


def tell_teacher(teacher: Teacher) -> None:
    for note in teacher.notes:
        tell(f"note: {note}")


def tell(line: str) -> None:
    from ilab.cli.findings import printable

    click.echo(printable(line), err=True)


@contextmanager
def served(teacher: Teacher, *, output: bool = False) -> Iterator[Address]:
    """The teacher's server as :func:`ilab.teacher_at_hand.served`; with ``output`` all that it says is shown."""
    from ilab.teacher_at_hand import served as serve
    from ilab.teacher_at_hand import serving_log

    log = serving_log()
    with _shown(log, output and teacher.model is not None), serve(teacher, tell, log) as address:
        yield address


def asking(build: Build, plan: Plan, force: Collection[str] = ()) -> list[Step]:
    """The steps of ``plan`` that may ask a teacher when it runs: not those that are there already."""
    from ilab.cli.pipeline import engine_for
    from ilab.sdg.stage import found_flow
    from ilab.steps.data import Generate, HoldOut

    with engine_for(build) as engine:
        previews = engine.preview(plan, frozenset(force))
    ahead = [one.planned.step for one in previews if one.state in ("run", "maybe")]

    def asks(step: Step) -> bool:
        if isinstance(step, Generate):
            return found_flow(build.plan.found[step.flow]).calls_teacher
        return isinstance(step, HoldOut) and bool(step.flow)

    return [step for step in ahead if asks(step)]


def reaching(build: Build, plan: Plan, address: Address, force: Collection[str] = ()) -> Build:
    """``build`` with the address of its teacher, which is served from now on if ``plan`` is going to ask it."""
    teacher = build.where.teacher
    if teacher is None or not teacher.pending or not asking(build, plan, force):
        return build
    reached = teacher.model_copy(update={"url": address()})
    return replace(build, where=build.where.model_copy(update={"teacher": reached}))


@contextmanager
def _shown(log: Path, wanted: bool) -> Iterator[None]:
    """Show what is written to ``log``, line by line, while the block runs."""
    if not wanted:
        yield
        return
    ended = threading.Event()

    def follow() -> None:
        at = 0
        while True:
            last = ended.is_set()  # looked at first: what was written until then is still shown
            if log.is_file():
                with log.open("rb") as handle:
                    handle.seek(at)
                    for line in handle.read().splitlines(keepends=True):
                        if line.endswith(b"\n") or last:
                            at += len(line)
                            tell(f"teacher: {line.decode(errors='replace').rstrip()}")
            if last:
                return
            time.sleep(GLANCE)

    thread = threading.Thread(target=follow, name="serving-output", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
