"""``ilab data``: synthetic data, without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.data_export import export, subset
from ilab.cli.data_forecast import generate_inputs, show_forecast
from ilab.cli.data_look import list_, show, why
from ilab.cli.data_mask import mask
from ilab.cli.data_options import (
    Wanted,
    check_together,
    is_flat,
    parameters_of,
    settings_of,
    upstream_options,
    wanted_of,
)
from ilab.cli.process import check_teachers, detachable, go_to_background, leaving
from ilab.cli.teacher import reaching, served, teacher_of_build
from ilab.errors import InputError, ServiceError, Stopped

if TYPE_CHECKING:
    from ilab.actions import Build, Part
    from ilab.allowance import Allowance
    from ilab.amount import Ask
    from ilab.core.run import Engine
    from ilab.data import Sample
    from ilab.export import Exported
    from ilab.provenance import Run
    from ilab.teacher_at_hand import Address

    Means = tuple[Allowance, Address]  # what may be spent, and where it is

PARAMETER = click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a pipeline parameter.")
SHOWN = 2  # samples of each leaf that are printed


@click.group(name="data")
def group() -> None:
    """Make synthetic data, look at it, and take it elsewhere."""


@group.command()
@click.option("--taxonomy-path", metavar="PATH", help="Folder of the taxonomy, or one qna.yaml.")
@click.option(
    "--taxonomy-base", metavar="REF", help="Only leaves that changed since this branch, tag or commit; `empty`: all."
)
@click.option("--pipeline", "flow", metavar="NAME|DIR", help="The flow: extractive, simple, full, llama, or a folder.")
@click.option("--model", metavar="NAME|PATH", help="The teacher: as a server calls it, or a downloaded model.")
@click.option(
    "--model-family", metavar="NAME", help="Ask by plain prompts in its format: granite, llama, mistral, qwen, …"
)
@click.option("--endpoint-url", metavar="URL", help="An OpenAI-compatible server that plays the teacher.")
@click.option("--api-key", metavar="REF", help="env:NAME or file:PATH that holds its key.")
@click.option("--tls-insecure", is_flag=True, default=None, help="Do not check the server's certificate.")
@click.option("--tls-client-cert", metavar="FILE", help="Certificate to show to the server.")
@click.option("--tls-client-key", metavar="FILE", help="Its private key.")
@click.option("--tls-client-passwd", metavar="REF", help="env:NAME or file:PATH that holds the key's password.")
@click.option("--sdg-scale-factor", type=click.IntRange(1), help="Instructions to make per seed example.")
@click.option("--num-instructions", type=click.IntRange(1), metavar="N", help="Instructions in all; never more.")
@click.option("--chunk-word-count", type=click.IntRange(1), metavar="N", help="Most words of a document chunk.")
@click.option("--server-ctx-size", type=click.IntRange(1), metavar="N", help="The teacher's context window, in tokens.")
@click.option("--max-num-tokens", type=click.IntRange(1), metavar="N", help="Most tokens of one of its answers.")
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="GPUs of a teacher that is served here by vLLM.")
@click.option("--enable-serving-output", is_flag=True, help="Show what that teacher's server says.")
@click.option("--teacher-model-id", metavar="ID", help="The teacher, by its id in models.named.")
@click.option("--student-model-id", metavar="ID", help="Write the system message of this model of models.named.")
@click.option("--batch-size", type=click.IntRange(0), metavar="N", help="Requests in flight per worker.")
@click.option("--output-dir", metavar="DIR", help="Write the files that InstructLab's tools read to a new folder here.")
@click.option("--legacy", is_flag=True, help="With --output-dir: train_*, test_* and generated_* in the folder itself.")
@click.option("--system-prompt", metavar="TEXT", help="With --output-dir: the system message of the written rows.")
@click.option("--preview", type=click.IntRange(1), metavar="N", help="Only N input rows of each leaf, to look at.")
@click.option("--max-calls", type=click.IntRange(1), metavar="N", help="Most teacher calls of a preview.")
@click.option("--budget", metavar="CALLS|COST", help="Stop before it takes more: 500 calls, or 2.50 in money.")
@click.option("--dry-run", is_flag=True, help="Say what it would ask for, and ask for nothing.")
@click.option("--quiet", is_flag=True, help="Print neither progress nor samples.")
@detachable
@PARAMETER
@upstream_options
@click.pass_obj
def generate(options: Options, /, dry_run: bool, preview: int | None, max_calls: int | None, **given: Any) -> None:
    """Make samples for a taxonomy with a teacher, or by rule where there is none.

    The teacher is the server that is named, else one that runs on this machine, else a downloaded model, which is
    served until the samples are made. The same steps as in `ilab run`, in the same store: a build goes on from what
    this made. A preview shows a few samples and says why rows were refused.
    """
    from ilab.actions import Part
    from ilab.allowance import Allowance

    flat = is_flat()
    given |= {"preview": preview, "max_calls": max_calls}
    check_together(given)
    loaded = options.load(**settings_of(given))
    wanted = wanted_of(options, loaded, given, flat)
    teacher, values = teacher_of_build(options, loaded, parameters_of(loaded, given))
    loaded = teacher.loaded
    part = Part("generate", preview, max_calls, wanted.number, look=bool(preview))
    allowance = Allowance.parse(given["budget"], loaded.config.where.teacher) if given["budget"] else Allowance()
    aims = bool(wanted.number and not given["sdg_scale_factor"])
    if dry_run:
        _forecast(options, (loaded, values, part), wanted if aims else None, allowance)
        return
    if leaving():
        build = _prepared(loaded, values, part)
        check_teachers(build, build.plan)
    go_to_background(options)
    with served(teacher, output=given["enable_serving_output"]) as address:
        if aims:
            run = _run_for(options, loaded, values, wanted, (allowance, address))
        else:
            run = _run(_prepared(loaded, values, part), (allowance, address), wanted.quiet)
    _finish(options, run, wanted)


def _forecast(
    options: Options, asked: tuple[Any, dict[str, Any], Part], wanted: Wanted | None, limit: Allowance
) -> None:
    """What a run would ask for; of one that aims at a number ``wanted``, its first round."""
    from ilab.amount import ask_for

    loaded, values, part = asked
    if leaving():
        raise InputError("--dry-run and --detach exclude each other", hint="a dry run takes no time")
    build = _prepared(loaded, values, part)
    inputs = _input_rows(build) if wanted else {}
    if wanted and wanted.number and inputs:
        values, part = _asking(values, wanted.number, ask_for(wanted.number, inputs))
        build = _prepared(loaded, values, part, quiet=True)
    show_forecast(options, build, limit)


def _prepared(loaded: Any, values: Mapping[str, Any], part: Any, *, quiet: bool = False) -> Build:
    from ilab.actions import prepare

    build = prepare(loaded, values, part)
    for note in () if quiet else build.notes:
        click.echo(f"note: {note}", err=True)
    return build


def _run(build: Build, means: Means, quiet: bool) -> Run:
    from ilab.allowance import LimitedEngine
    from ilab.cli.pipeline import run_folder, watching
    from ilab.provenance import Run
    from ilab.transfer.stores import open_store

    allowance, address = means
    build = reaching(build, build.plan, address)
    engine = LimitedEngine(open_store(build.loaded), build.where, allowance)
    folder = run_folder(engine)
    try:
        with watching(engine, folder, quiet=quiet):
            records = engine.run(build.plan)
        return Run(engine.store, list(records.values())[-1])
    except Stopped:
        if allowance.refused:
            _so_far(build, engine, folder)
        raise
    finally:
        engine.close()


def _so_far(build: Build, engine: Engine, folder: Path) -> None:
    """Put what a spent budget gave into the run's folder: it is no result, but it is paid for."""
    from ilab.artifacts import Samples
    from ilab.steps.data import Generate

    planned = next(one for one in build.plan.steps.values() if one.step.type == Generate.type)
    made = Samples(engine.store.partial(planned.step.type, planned.key).artifact)
    if not (made.path / "card.json").is_file():  # it ended before, at the held-out questions
        return
    samples, rejected = made.samples(), made.rejected()
    Samples(folder).write(samples, rejected, made.card())
    click.echo(f"so far: {len(samples)} samples, {len(rejected)} rows refused or not finished: {folder}", err=True)


def _run_for(options: Options, loaded: Any, values: Mapping[str, Any], wanted: Wanted, means: Means) -> Run:
    """Generate until enough instructions are accepted, or asking for more gives few more.

    Where the budget ends in a later round, what the earlier ones gave is written and shown first.
    """
    from ilab.actions import Part, prepare
    from ilab.amount import ROUNDS, ask_again, ask_for, worth_asking

    number = wanted.number or 0
    build = _prepared(loaded, values, Part("generate", most=number))
    inputs = _input_rows(build)
    if not inputs:  # rules cost nothing, so there is nothing to save
        return _run(build, means, wanted.quiet)
    ask = ask_for(number, inputs)
    best: Run | None = None
    before = 0
    for turn in range(ROUNDS):
        try:
            run = _run(prepare(loaded, *_asking(values, number, ask)), means, wanted.quiet)
        except Stopped:
            if best is not None and means[0].refused:
                _finish(options, best, wanted)
            raise
        gained = len(run.samples) - (len(best.samples) if best else 0)
        best = run if gained > 0 else best
        asked = ask.samples(inputs)
        if len(run.samples) >= number or turn == ROUNDS - 1 or (turn and not worth_asking(gained, asked - before)):
            break
        before, ask = asked, ask_again(number, len(run.samples), ask, inputs)
        click.echo(
            f"note: {len(run.samples):,} of {number:,} instructions are accepted: asking for {ask.samples(inputs):,} "
            f"samples instead of {asked:,}",
            err=True,
        )
    return best or run


def _asking(values: Mapping[str, Any], number: int, ask: Ask) -> tuple[dict[str, Any], Part]:
    """The parameters and the part of a build that asks for so much, to keep ``number`` of it."""
    from ilab.actions import Part

    return {**values, "sdg_scale_factor": ask.scale}, Part("generate", ask.rows, most=number)


def _input_rows(build: Build) -> dict[str, int]:
    """How many input rows each leaf gives the flow; empty for a flow that calls no teacher."""
    from ilab.cli.pipeline import engine_for
    from ilab.sdg.generate import starts_of

    with engine_for(build) as engine:
        given = generate_inputs(build, engine)
    if not given.flow.calls_teacher:
        return {}
    return dict(Counter(start.row.leaf for start in starts_of(given.leaves, given.chunks, given.flow)))


def _finish(options: Options, run: Run, wanted: Wanted) -> None:
    """Write the files, print what was made. Nothing accepted ends with 4 (2 by rule)."""
    from ilab.export import SYSTEM, export_legacy, export_run

    samples = run.samples
    exported: Exported | None = None
    if wanted.output and samples:
        write = export_legacy if wanted.legacy else export_run
        exported = write(run, samples, wanted.output, SYSTEM if wanted.system is None else wanted.system)
    if options.as_json:
        _as_json(options, run, samples, exported)
    else:
        _as_text(run, samples, wanted.quiet)
        click.echo(f"samples: {run.path / 'samples.jsonl'}")
        if exported:
            for part, file in exported.files.items():
                click.echo(f"{part}: {exported.folder / file}")
        click.echo(f"Next: ilab data show, or {_to_train(options, exported, wanted.legacy)}")
    if not samples:
        raise _nothing(run)
    if wanted.number and len(samples) < wanted.number:
        refused = Counter(row.reason.partition(":")[0] for row in run.rejected)
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in refused.most_common()) or "there was no more to ask"
        )
        click.echo(
            f"warning: {len(samples)} of {wanted.number} instructions were accepted: "
            f"{len(run.rejected)} rows were refused ({reasons}). To ask for more: --sdg-scale-factor N",
            err=True,
        )


def _to_train(options: Options, exported: Exported | None, legacy: bool) -> str:
    """The command that trains on what was made."""
    from ilab.config import find_project

    if exported is None or find_project(options.directory) is not None:
        return "ilab run"
    if legacy:
        return f"ilab train --input-dir {exported.folder}"
    phases = (
        " --strategy lab-multiphase" if {"knowledge_train_msgs", "skills_train_msgs"} <= set(exported.files) else ""
    )
    return f"ilab model train{phases} --data-path {exported.folder}"


def _as_json(options: Options, run: Run, samples: Sequence[Sample], exported: Exported | None) -> None:
    shown = [sample.model_dump(mode="json") for sample in samples[:20]]
    told: dict[str, Any] = {"run": run.record.key, "path": str(run.path), "counts": run.record.counts}
    written = {"folder": str(exported.folder), "files": dict(exported.files)} if exported else None
    leaves = run.card["leaves"]
    options.result({**told, "leaves": leaves, "taken": len(samples), "samples": shown, "exported": written})


def _as_text(run: Run, samples: Sequence[Sample], quiet: bool) -> None:
    from ilab.cli.findings import printable

    for leaf, told in run.card["leaves"].items():
        refused = ", ".join(f"{count} {reason}" for reason, count in told["rejected"].items())
        counts = f"{told['accepted']} of {told['rows']} accepted"
        click.echo(printable(f"{leaf}: {counts}" + (f" ({refused})" * bool(refused))))
        mine = [] if quiet else [sample for sample in samples if sample.leaf == leaf]
        for sample in sorted(mine, key=lambda sample: sample.train_on == "all")[:SHOWN]:  # pairs before passages
            click.echo(printable(f"  Q: {_short(sample.question)}"))
            click.echo(printable(f"  A: {_short(sample.answer)}"))


def _nothing(run: Run) -> InputError | ServiceError:
    reasons = "".join(f"\n  {entry.id}: {entry.reason}" for entry in run.rejected[:3])
    counts = run.record.counts
    kind = ServiceError if counts["calls"] or counts["calls_from_memo"] else InputError
    return kind(f"no sample was accepted: {len(run.rejected)} rows were refused{reasons}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:199]}…"


for command in (list_, show, why, export, subset, mask):
    group.add_command(command)
