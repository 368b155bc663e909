"""``ilab data``: synthetic data, without training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.data_export import export, subset
from ilab.cli.data_forecast import generate_inputs, show_forecast
from ilab.cli.data_look import list_, show, why
from ilab.cli.data_mask import mask
from ilab.cli.data_options import upstream_options
from ilab.cli.process import check_teachers, detachable, go_to_background, leaving
from ilab.errors import InputError, ServiceError, SetupError, Stopped

if TYPE_CHECKING:
    from ilab.actions import Build, Part
    from ilab.allowance import Allowance
    from ilab.amount import Ask
    from ilab.core.run import Engine
    from ilab.data import Sample
    from ilab.export import Exported
    from ilab.provenance import Run

PARAMETER = click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a pipeline parameter.")
NO_KEYS = ("no_api_key", "EMPTY")  # what old scripts give a server that wants no key
SHOWN = 2  # samples of each leaf that are printed


@click.group(name="data")
def group() -> None:
    """Make synthetic data, look at it, and take it elsewhere."""


@dataclass(frozen=True)
class Wanted:
    """What becomes of the samples: at most ``number`` of them, written to ``output``."""

    number: int | None
    output: Path | None
    legacy: bool
    system: str | None
    quiet: bool


@group.command()
@click.option("--taxonomy-path", metavar="PATH", help="Folder of the taxonomy, or one qna.yaml.")
@click.option(
    "--taxonomy-base", metavar="REF", help="Only leaves that changed since this branch, tag or commit; `empty`: all."
)
@click.option("--pipeline", "flow", metavar="NAME|DIR", help="The flow: extractive, simple, full, llama, or a folder.")
@click.option("--model", metavar="NAME", help="Name under which the endpoint serves the teacher.")
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

    The same steps as in `ilab run`, in the same store: a build goes on from what this made. A preview shows a few
    samples and says why rows were refused.
    """
    from ilab.actions import Part
    from ilab.allowance import Allowance
    from ilab.amount import ask_for

    if max_calls and not preview:
        raise InputError("--max-calls limits a preview", hint="add --preview N")
    if preview and given["num_instructions"]:
        raise InputError("--preview and --num-instructions exclude each other")
    for name in ("legacy", "system_prompt"):
        if given[name] and not given["output_dir"]:
            raise InputError(f"--{name.replace('_', '-')} says how files are written", hint="add --output-dir DIR")
    output = _folder(options.directory / given["output_dir"]) if given["output_dir"] else None
    wanted = Wanted(given["num_instructions"], output, given["legacy"], given["system_prompt"], given["quiet"])
    loaded = options.load(**_endpoint(given))
    values = _values(given, 1 if preview else None)
    part = Part("generate", preview, max_calls, wanted.number, look=bool(preview))
    allowance = Allowance.parse(given["budget"], loaded.config.where.teacher) if given["budget"] else Allowance()
    if dry_run:
        if leaving():
            raise InputError("--dry-run and --detach exclude each other", hint="a dry run takes no time")
        if wanted.number and not given["sdg_scale_factor"]:
            build = _prepared(loaded, values, part)
            inputs = _input_rows(build)
            values, part = _asking(values, wanted.number, ask_for(wanted.number, inputs)) if inputs else (values, part)
        show_forecast(options, _prepared(loaded, values, part), allowance)
        return
    if leaving():
        build = _prepared(loaded, values, part)
        check_teachers(build, build.plan)
    go_to_background(options)
    if wanted.number and not given["sdg_scale_factor"]:
        _finish(options, _run_for(options, loaded, values, wanted, allowance), wanted)
    else:
        _finish(options, _run(_prepared(loaded, values, part), allowance, wanted.quiet), wanted)


def _folder(path: Path) -> Path:
    """``path``, where a folder can be made or written into: told before anything is spent."""
    nearest = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not nearest.is_dir():
        raise InputError("this is a file; a folder is written into", where=str(nearest))
    if not os.access(nearest, os.W_OK):
        raise SetupError("this folder cannot be written", where=str(nearest), hint="mend its permissions")
    return path


def _endpoint(given: Mapping[str, Any]) -> dict[str, Any]:
    key = given["api_key"]
    return {
        "where__teacher__url": given["endpoint_url"],
        "where__teacher__api_key": None if key in NO_KEYS else key,
        "where__teacher__insecure": given["tls_insecure"],
        "where__teacher__client_cert": given["tls_client_cert"] or None,
        "where__teacher__client_key": given["tls_client_key"] or None,
        "where__teacher__client_key_password": given["tls_client_passwd"] or None,
    }


def _values(given: Mapping[str, Any], scale: int | None) -> dict[str, Any]:
    """The pipeline parameters that the options are."""
    from ilab.cli.pipeline import split_parameters

    if given["batch_size"] == 0:
        click.echo("note: --batch-size 0 is not needed: rows move on their own, and every answer is kept", err=True)
    named = {
        "sdg_repo_url": given["taxonomy_path"],
        "taxonomy_base": given["taxonomy_base"],
        "sdg_pipeline": given["flow"],
        "sdg_teacher_model": given["model"],
        "sdg_teacher_family": given["model_family"],
        "sdg_scale_factor": given["sdg_scale_factor"] or scale,
        "sdg_batch_size": given["batch_size"] or None,
        "chunk_word_count": given["chunk_word_count"],
        "server_ctx_size": given["server_ctx_size"],
    }
    return split_parameters(given["parameters"]) | {name: value for name, value in named.items() if value is not None}


def _prepared(loaded: Any, values: Mapping[str, Any], part: Any) -> Build:
    from ilab.actions import prepare

    build = prepare(loaded, values, part)
    for note in build.notes:
        click.echo(f"note: {note}", err=True)
    return build


def _run(build: Build, allowance: Allowance, quiet: bool) -> Run:
    from ilab.allowance import LimitedEngine
    from ilab.cli.pipeline import run_folder, watching
    from ilab.provenance import Run
    from ilab.transfer.stores import open_store

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


def _run_for(options: Options, loaded: Any, values: Mapping[str, Any], wanted: Wanted, allowance: Allowance) -> Run:
    """Generate until enough instructions are accepted, or asking for more gives few more.

    Where the budget ends in a later round, what the earlier ones gave is written and shown first.
    """
    from ilab.actions import Part, prepare
    from ilab.amount import ROUNDS, ask_again, ask_for, worth_asking

    number = wanted.number or 0
    build = _prepared(loaded, values, Part("generate", most=number))
    inputs = _input_rows(build)
    if not inputs:  # rules cost nothing, so there is nothing to save
        return _run(build, allowance, wanted.quiet)
    ask = ask_for(number, inputs)
    best: Run | None = None
    before = 0
    for turn in range(ROUNDS):
        try:
            run = _run(prepare(loaded, *_asking(values, number, ask)), allowance, wanted.quiet)
        except Stopped:
            if best is not None and allowance.refused:
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
        click.echo("Next: ilab data show, or ilab run")
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
