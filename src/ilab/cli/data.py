"""``ilab data``: synthetic data, without training."""

from __future__ import annotations

from typing import Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError, ServiceError

PARAMETER = click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a pipeline parameter.")


@click.group(name="data")
def group() -> None:
    """Make synthetic data."""


@group.command()
@click.option("--taxonomy-path", metavar="PATH", help="Folder of the taxonomy, or one qna.yaml.")
@click.option(
    "--taxonomy-base", metavar="REF", help="Only leaves that changed since this branch, tag or commit; `empty`: all."
)
@click.option("--pipeline", "flow", metavar="NAME|DIR", help="The flow: extractive, simple, full, llama, or a folder.")
@click.option("--model", metavar="NAME", help="Name under which the endpoint serves the teacher.")
@click.option("--endpoint-url", metavar="URL", help="An OpenAI-compatible server that plays the teacher.")
@click.option("--api-key", metavar="REF", help="env:NAME or file:PATH that holds its key.")
@click.option("--sdg-scale-factor", type=click.IntRange(1), help="Instructions to make per seed example.")
@click.option("--preview", type=click.IntRange(1), metavar="N", help="Only N input rows of each leaf, to look at.")
@click.option("--max-calls", type=click.IntRange(1), metavar="N", help="Most teacher calls of a preview.")
@click.option("--dry-run", is_flag=True, help="Say what it would ask for, and ask for nothing.")
@PARAMETER
@click.pass_obj
def generate(options: Options, /, dry_run: bool, preview: int | None, max_calls: int | None, **given: Any) -> None:
    """Make samples for a taxonomy with a teacher, or by rule where there is none.

    The same steps as in `ilab run`, in the same store: a build goes on from what this made. A preview shows a few
    samples and says why rows were refused.
    """
    from ilab.actions import Part, prepare
    from ilab.cli.pipeline import engine_for, split_parameters

    if max_calls and not preview:
        raise InputError("--max-calls limits a preview", hint="add --preview N")
    endpoint = {"where__teacher__url": given["endpoint_url"], "where__teacher__api_key": given["api_key"]}
    values = split_parameters(given["parameters"]) | {
        name: value
        for name, value in {
            "sdg_repo_url": given["taxonomy_path"],
            "taxonomy_base": given["taxonomy_base"],
            "sdg_pipeline": given["flow"],
            "sdg_teacher_model": given["model"],
            "sdg_scale_factor": given["sdg_scale_factor"] or (1 if preview else None),
        }.items()
        if value is not None
    }
    build = prepare(options.load(**endpoint), values, Part("generate", preview, max_calls))
    for note in build.notes:
        click.echo(f"note: {note}", err=True)
    with engine_for(build) as engine:
        if dry_run:
            _forecast(options, build, engine)
        else:
            _make(options, build, engine)


def _forecast(options: Options, build: Any, engine: Any) -> None:
    from ilab.cli.pipeline import make_cheap
    from ilab.cli.render import console, plan_table

    make_cheap(engine, build.plan)
    previews = engine.preview(build.plan)
    if options.as_json:
        options.result({preview.planned.name: {**preview.expected, "state": preview.state} for preview in previews})
    else:
        console().print(plan_table(previews))


def _make(options: Options, build: Any, engine: Any) -> None:
    """Run the part, then print where the samples are and a few of them. Nothing accepted ends with 4 (2 by rule)."""
    from ilab.artifacts import Samples
    from ilab.cli.findings import printable
    from ilab.cli.pipeline import run_folder, watching

    with watching(engine, run_folder(engine)):
        records = engine.run(build.plan)
    record = list(records.values())[-1]
    made = Samples(engine.store.contents(record))
    samples, rejected, card = made.samples(), made.rejected(), made.card()
    if options.as_json:
        shown = [sample.model_dump(mode="json") for sample in samples[:20]]
        options.result({"path": str(made.path), "counts": record.counts, "leaves": card["leaves"], "samples": shown})
    else:
        for leaf, told in card["leaves"].items():
            refused = ", ".join(f"{count} {reason}" for reason, count in told["rejected"].items())
            click.echo(
                printable(f"{leaf}: {told['accepted']} of {told['rows']} accepted" + (f" ({refused})" * bool(refused)))
            )
            for sample in [sample for sample in samples if sample.leaf == leaf][:2]:
                click.echo(printable(f"  Q: {_short(sample.question)}"))
                click.echo(printable(f"  A: {_short(sample.answer)}"))
        click.echo(f"samples: {made.path / 'samples.jsonl'}")
        click.echo("Next: ilab run")
    if not samples:
        reasons = "".join(f"\n  {entry.id}: {entry.reason}" for entry in rejected[:3])
        kind = ServiceError if record.counts["calls"] or record.counts["calls_from_memo"] else InputError
        raise kind(f"no sample was accepted: {len(rejected)} rows were refused{reasons}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:199]}…"
