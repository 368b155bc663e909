"""``ilab evaluate``: looks at held-out questions, hands them to other tools; on its own, ``ilab model evaluate``."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.evaluate_judge import asking_site, given_judge, judge_name, judge_options, load_with_judge, shown
from ilab.cli.evaluate_options import evaluate_options
from ilab.cli.model_evaluate import run_evaluation
from ilab.cli.outputs import has_fields, output_file
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.data import Chunk, Item
    from ilab.evaluation.validate import Solve, Validation

SHOWN = 12  # flaws that are listed, of each level


@click.group(name="evaluate", invoke_without_command=True)
@evaluate_options
@click.pass_context
def group(ctx: click.Context, /, **given: Any) -> None:
    """Check held-out questions, export them; without a command: measure a model, as `ilab model evaluate`."""
    if ctx.invoked_subcommand is None:
        run_evaluation(ctx.obj, given)


@group.command(name="validate-items")
@click.argument("path", required=False, metavar="[FILE|DIR]")
@click.option("--documents", "documents", metavar="FILE|DIR", multiple=True, help="Texts that the answers stand in.")
@click.option("--training", metavar="FILE", multiple=True, help="Training rows that no question may stand in.")
@click.option("--model", metavar="DIR|NAME", help="A model that answers with the document and without.")
@click.option("--endpoint-url", metavar="URL", help="The server of --model.")
@click.option("--api-key", metavar="REF", help="env:NAME or file:PATH that holds that server's key.")
@click.option("--output", metavar="FILE", help="Write every flaw to this file (JSON).")
@click.pass_obj
def validate_items(options: Options, /, path: str | None, **given: Any) -> None:
    """Find questions that measure nothing: no right option, twice the same, trained on, given away.

    Looks at the project's held-out questions, or at a file (JSONL of question, options, answer), an eval.yaml, or a
    folder of tasks. Mistakes end with exit code 2; what is only worth a look does not.
    """
    from ilab.core.files import write_json
    from ilab.evaluation.validate import validate

    target = _flaws_file(options, path, given) if given["output"] else None
    items, dropped = _items(options, path)
    chunks = _chunks(options, path, given["documents"], items)
    solve = _solver(options, given) if given["model"] else None
    found = validate(items, chunks, _training(options, path, given["training"]), solve, dropped)
    if target:
        write_json(target, found.model_dump(mode="json"))
    if options.as_json:
        options.result(found.model_dump(mode="json"))
    else:
        _show(found)
    if found.failed:
        errors = len({flaw.item for flaw in found.flaws if flaw.level == "error"})
        raise InputError(
            f"{errors} of {found.items} questions must not be asked", hint="mend or remove them, then look again"
        )


@group.command(name="calibrate-judge")
@click.argument("path", metavar="FILE")
@judge_options
@click.pass_obj
def calibrate_judge(options: Options, /, path: str, **given: Any) -> None:
    """Hold a judge's marks against people's: can it be trusted?

    FILE has a row for each answer that somebody marked (JSONL, CSV): question, answer, mark (1 to 10, or good or bad),
    and where there is one reference. At least 30 rows say enough. The judge is asked about each of them once.
    """
    from ilab.evaluation.calibration import calibrate, read_marked, trusted

    file = options.directory / Path(path).expanduser()
    loaded = load_with_judge(options, given)
    name = judge_name(loaded, given["judge_model"])
    rows = read_marked(file)
    with asking_site(loaded, "calibrate") as site:
        found = calibrate(given_judge(name, site), rows)
    following = f"ilab run -p eval_judge_model={shlex.quote(name)} -p eval_judge_marks={shlex.quote(path)}"
    told = {**found.model_dump(mode="json"), "trusted": trusted(found), "line": found.line(), "next": following}
    options.result(told, "\n".join(shown(found, following)))


@group.command(name="export-tasks")
@click.argument("target", metavar="DIR")
@click.option("--items", "path", metavar="FILE", help="Questions to export.  [default: the project's]")
@click.option("--seed", type=int, default=42, show_default=True, help="Of the order of options.")
@click.pass_obj
def export_tasks(options: Options, /, target: str, path: str | None, seed: int) -> None:
    """Write held-out questions as tasks of lm-evaluation-harness, for scoring them again elsewhere."""
    from ilab.evaluation.benchmarks.export_tasks import export_tasks as export

    items, _ = _items(options, path)
    folder = options.directory / Path(target).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise InputError("this folder is not empty", where=str(folder), hint="give a new one")
    told = export(items, folder, seed)
    if not told["tasks"]:
        raise InputError("there is nothing to export: no question has options or a short answer", where=str(folder))
    lines = [f"{told['questions']} questions in {len(told['tasks'])} tasks: {folder}"]
    lines += [f"left out: {count} × {reason}" for reason, count in told["left_out"].items()]
    lines.append(f"Next: cd {folder} && lm_eval --include_path . --tasks ilab --model hf --model_args pretrained=MODEL")
    options.result({**told, "folder": str(folder)}, "\n".join(lines))


def _flaws_file(options: Options, path: str | None, given: dict[str, Any]) -> Path:
    names = [*given["documents"], *given["training"], *([path] if path else [])]
    read = [options.directory / Path(name).expanduser() for name in names]
    return output_file(options, given["output"], has_fields("flaws"), *read)


# -- where the questions come from -----------------------------------------------------------------------------------


def _items(options: Options, path: str | None) -> tuple[list[Item], Counter[str]]:
    """The questions, and how many were left out before, by reason."""
    from ilab.artifacts import Items

    if path is not None:
        from ilab.evaluation.item_files import read_item_files

        return read_item_files(options.directory / Path(path).expanduser())
    loaded = options.load()
    from ilab.transfer.stores import latest_of

    folder = latest_of(loaded, "items")
    if not folder.is_dir():
        raise InputError(
            "this project has no held-out questions yet",
            where=str(loaded.base),
            hint="make them with: ilab run --until items; or give a file",
        )
    artifact = Items(folder.resolve())
    return artifact.items(), Counter(one.block for one in artifact.dropped())


def _chunks(options: Options, path: str | None, documents: tuple[str, ...], items: Sequence[Item]) -> list[Chunk]:
    """The passages: those given, else the project's where its own questions are looked at."""
    from ilab.artifacts import Documents
    from ilab.evaluation.item_files import read_passages

    if documents:
        paths = [options.directory / Path(one).expanduser() for one in documents]
        return read_passages(paths, {item.leaf for item in items})
    from ilab.transfer.stores import latest_of

    folder = latest_of(options.load(), "documents")
    return Documents(folder.resolve()).chunks() if path is None and folder.is_dir() else []


def _training(options: Options, path: str | None, files: tuple[str, ...]) -> list[str]:
    """The questions of training rows: of the files given, else of the project's newest mixes."""
    from ilab.artifacts import Dataset
    from ilab.evaluation.item_files import read_questions
    from ilab.transfer.stores import latest_of

    found = [text for one in files for text in read_questions(options.directory / Path(one).expanduser())]
    if not files and path is None:
        loaded = options.load()
        for folder in (latest_of(loaded, name) for name in ("mix-knowledge", "mix-skills")):
            if folder.is_dir():
                rows = Dataset(folder.resolve()).rows()
                found += [message.content for row in rows for message in row.messages if message.role == "user"]
    return found


def _solver(options: Options, given: dict[str, Any]) -> Solve:
    """Somebody who answers. Raises ``InputError`` for a name without a server."""
    from ilab.cli.threads import passive_threads
    from ilab.config import Endpoint
    from ilab.core.events import Bus
    from ilab.core.memo import Memo
    from ilab.evaluation.solving import solver
    from ilab.evaluation.subject import Asking, LocalSubject, endpoint_subject
    from ilab.transfer.stores import open_store

    passive_threads()
    loaded = options.load()
    where = loaded.config.where
    asking = Asking(Memo(open_store(loaded).memo("answers")), Bus().for_step("validate"))
    folder = options.directory / Path(given["model"]).expanduser()
    if folder.is_dir():
        return solver(LocalSubject(folder.name, folder, asking, device=where.device, threads=where.threads))
    if not given["endpoint_url"]:
        raise InputError(
            "there is no model here", where=str(folder), hint="--model DIR, or NAME with --endpoint-url URL"
        )
    endpoint = Endpoint.model_validate({"url": given["endpoint_url"], "api_key": given["api_key"] or ""})
    return solver(endpoint_subject(given["model"], endpoint, asking))


def _show(found: Validation) -> None:
    from ilab.cli.render import one_line

    for level, colour in (("error", "red"), ("warning", "yellow")):
        listed = [flaw for flaw in found.flaws if flaw.level == level]
        for flaw in listed[:SHOWN]:
            told = f" ({one_line(flaw.detail)[:80]})" if flaw.detail else ""
            click.echo(f"{click.style(f'{level}:', fg=colour)} {one_line(flaw.item)}: {flaw.reason}{told}")
        if len(listed) > SHOWN:
            click.echo(f"… and {len(listed) - SHOWN} more {level}s: --output FILE has all of them")
    for reason, count in found.reasons.items():
        click.echo(f"{count:>5} × {reason}")
    for reason, count in found.dropped.items():
        click.echo(f"{count:>5} × left out before: {one_line(reason)}")
    for positions in found.positions:
        if positions.skewed:
            counts = ", ".join(str(count) for count in positions.counts)
            click.echo(f"note: {one_line(positions.leaf)}: the right option mostly stands at one position ({counts})")
    for name, share in found.solved.items():
        click.echo(f"answered {name} the document: {'–' if share is None else f'{100 * share:.0f} %'}")
    click.echo(f"{found.items} questions, {found.sound} without a flaw; {found.how}")
