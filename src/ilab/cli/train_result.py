"""What ``ilab model train`` ends with: copies of what was chosen, answers, and what to type next."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.outputs import are_records, check_pair
from ilab.errors import IlabError, InputError, SetupError

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.core.store import RecordFile
    from ilab.training.strategy import Training

RESULT, GGUF = "merged_model", "ggml-model-f16.gguf"  # what InstructLab's first versions called a model, in `models`


@dataclass(frozen=True)
class Wanted:
    """What was asked for besides the training: where copies go. ``old``: as InstructLab's first versions did it."""

    training: Training
    old: bool
    output: Path | None
    phased: Path | None


@dataclass(frozen=True)
class Trained:
    """What a training left in the store: for each choosing step the choice, and where the chosen model lies."""

    build: Build
    records: Mapping[str, RecordFile]
    choices: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Path]
    samples: Mapping[str, int]
    answers: Path | None


def finish(options: Options, made: Trained, wanted: Wanted) -> None:
    """Copy what is to be copied, and say what was chosen, by which rule, where it lies and what to type next."""
    last = list(made.models)[-1]
    told: dict[str, Any] = {
        "phases": [{"step": name, **choice} for name, choice in made.choices.items()],
        "copies": [str(path) for path in _copies(made, wanted)],
    }
    best = Path(told["copies"][-1]) if told["copies"] else made.models[last]
    told["best"] = str(best)
    if made.answers:
        folder = wanted.output if wanted.old and wanted.output else made.answers
        told["answers"] = [str(path) for path in copy_answers(made.answers, folder)]
    if wanted.old and wanted.output:
        told["gguf"] = _gguf(best, wanted.output / GGUF, made.build.where.threads)
    if options.as_json:
        options.result(told)
        return
    if made.answers:
        show_answers(made.answers)
    for name, choice in made.choices.items():
        click.echo(_choice_line(name, choice))
    for record in made.records.values():
        if record.type == "train" and record.counts.get("left_out"):
            at = f"{made.build.loaded.store / 'latest' / record.step / 'audit.json'}"
            click.echo(f"warning: {record.step} left out {record.counts['left_out']} rows: {at}", err=True)
    for path in told.get("answers", ()):
        click.echo(f"answers: {path}")
    if told.get("gguf"):
        click.echo(f"GGUF: {told['gguf']}")
    click.echo(f"Best final checkpoint: {best}{_score_of(made.choices[last])}")
    if told.get("gguf"):
        click.echo(f"Next: ilab serve --model-path {shlex.quote(told['gguf'])}, and in another terminal: ilab chat")
        return
    more = "" if wanted.training.strategy else ", or ilab run (evaluation, gate, package)"
    click.echo(f"Next: ilab chat --model-path {shlex.quote(str(best))}{more}")


def _copies(made: Trained, wanted: Wanted) -> list[Path]:
    """Copy the chosen checkpoints to where they are wanted, under InstructLab's names. The last is the result."""
    from ilab.training.deliver import deliver

    base = made.build.given["sdg_base_model"].value
    targets: list[tuple[str, Path]] = []
    names = list(made.models)
    if wanted.phased:
        for number, name in enumerate(names, 2 if wanted.training.strategy == "lab-skills-only" else 1):
            folder = wanted.phased / f"phase{number}" / "checkpoints" / "hf_format"
            targets.append((name, folder / f"samples_{made.samples[name]}"))
    if wanted.output:
        name = names[-1]
        folder = wanted.output / RESULT
        targets.append((name, folder if wanted.old else wanted.output / "hf_format" / f"samples_{made.samples[name]}"))
    return [
        deliver(made.models[name], folder, {"base": base, "rule": made.choices[name]["rule"], "step": name})
        for name, folder in targets
    ]


def copy_answers(source: Path, folder: Path) -> list[Path]:
    """The files of answers, copied to ``folder`` unless they are there. Returns their paths."""
    from ilab.evaluation.before_after import TABLE, TEXT

    folder.mkdir(parents=True, exist_ok=True)
    if folder != source:
        for name in (TABLE, TEXT):
            shutil.copyfile(source / name, folder / name)
    return [folder / TABLE, folder / TEXT]


def check_answers(folder: Path) -> None:
    """Raises ``InputError`` where the files of answers would be written over something else."""
    from ilab.evaluation.before_after import TABLE, TEXT

    check_pair(folder / TEXT, str(folder / TEXT), folder / TABLE, are_records("question", "expected"))


def show_answers(folder: Path) -> None:
    """Print the page of answers, and how much of what was expected each model says."""
    from ilab.cli.findings import printable
    from ilab.core.files import read_json
    from ilab.evaluation.before_after import TEXT

    for line in (folder / TEXT).read_text(encoding="utf-8").splitlines():
        click.echo(printable(line))
    report = read_json(folder / "report.json")
    shown = ", ".join(f"{name} {report['overlap'][name]:.2f}" for name in report["models"])
    click.echo(f"words shared with the expected answers (F1): {shown}")


def check_file(folder: Path) -> None:
    """Say before the training where no GGUF file can be written. Raises ``InputError`` for a file of others."""
    from ilab.packaging.gguf.export import parity_path
    from ilab.packaging.gguf.write import library

    try:
        library()
    except SetupError as error:
        click.echo(f"warning: no GGUF file will be written: {error.message} ({error.hint})", err=True)
    path = folder / GGUF
    if path.exists() and not parity_path(path).is_file():
        raise InputError("this file is not from here", where=str(path), hint="move it, or give --ckpt-output-dir DIR")


def _gguf(model: Path, output: Path, threads: int) -> str:
    """The model as one GGUF file, where this installation can write one; its path, or empty with a line saying why."""
    from ilab.cli.live import view
    from ilab.core.events import Bus
    from ilab.packaging.gguf.export import Options as How
    from ilab.packaging.gguf.export import export_gguf, is_export_of

    if is_export_of(model, output):
        return str(output)
    try:
        with view() as shown:
            emit = Bus([shown]).for_step("gguf")
            emit.started()
            parity = export_gguf(model, output, "f16", options=How(force=True, threads=threads, emit=emit))
            emit.finished(state="run", counts={"bytes": parity.bytes})
    except IlabError as error:  # the training is done and its result lies there
        click.echo(f"warning: no GGUF file was written: {error.message}", err=True)
        return ""
    return str(output)


def _choice_line(name: str, choice: Mapping[str, Any]) -> str:
    table: Sequence[Mapping[str, Any]] = choice["table"]
    chosen = next(row for row in table if row["chosen"])
    figures = [f"{what} {chosen[what]:.4g}" for what in ("score", "loss") if chosen[what] is not None]
    shown = f" ({', '.join(figures)})" if figures else ""
    return f"{name}: {choice['name']} of {len(table)}{shown}: {choice['rule']}"


def _score_of(choice: Mapping[str, Any]) -> str:
    score = next(row["score"] for row in choice["table"] if row["chosen"])
    return "" if score is None else f" with score: {score:.4g}"
