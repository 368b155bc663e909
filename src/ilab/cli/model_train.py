"""``ilab model train``: the training of a project, or of files, and before and after on a few questions."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.train_options import OLD, adapter_defaults, parameters
from ilab.errors import IlabError, InputError

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.config import Loaded
    from ilab.core.run import Engine
    from ilab.core.store import RecordFile
    from ilab.training.strategy import Training

POSITIVE, RATE, SHARE = click.IntRange(1), click.FloatRange(0, min_open=True), click.FloatRange(0, 1, max_open=True)
LEGACY = "generated"  # where InstructLab's first versions wrote data
RESULT, GGUF = "merged_model", "ggml-model-f16.gguf"  # and what they called the model, in `models`


@dataclass(frozen=True)
class Wanted:
    """What was asked for besides the training: where copies go. ``old``: as InstructLab's first versions did it."""

    training: Training
    old: bool
    output: Path | None
    phased: Path | None


@click.command()
@click.option("--data-path", metavar="FILE|DIR", help="Train on this file, or on the newest of a folder.")
@click.option("--input-dir", metavar="DIR", help="Newest train_* and test_* of a folder: answers before and after.")
@click.option(
    "--strategy",
    type=click.Choice(["lab-multiphase", "lab-skills-only", "stacked"]),
    help="Knowledge, then skills; skills alone; both in one run (as good by the literature, and simpler).",
)
@click.option("--phased-phase1-data", metavar="FILE", help="Data of the knowledge phase.")
@click.option("--phased-phase2-data", metavar="FILE", help="Data of the skills phase.")
@click.option("--model-path", "--model-dir", "model_path", metavar="DIR", help="Model to train, or `tiny`.")
@click.option(
    "--pipeline", type=click.Choice(["simple", "full", "accelerated"]), help="simple: QLoRA; else all weights."
)
@click.option("--method", type=click.Choice(["full", "lora", "qlora", "osft"]), help="What is trained.")
@click.option("--num-epochs", type=POSITIVE, metavar="N", help="Times that all rows are seen.")
@click.option("--effective-batch-size", type=POSITIVE, metavar="N", help="Samples of one update, over all devices.")
@click.option("--learning-rate", type=RATE, metavar="RATE")
@click.option("--warmup-steps", type=click.IntRange(0), metavar="N", help="Updates until the full learning rate.")
@click.option("--max-seq-len", type=POSITIVE, metavar="TOKENS", help="Longer samples are left out.")
@click.option("--max-batch-len", type=POSITIVE, metavar="TOKENS", help="Most tokens on a device at once.")
@click.option("--save-samples", type=click.IntRange(0), metavar="N", help="Samples between two candidates.")
@click.option("--phased-phase1-num-epochs", type=POSITIVE, metavar="N", help="The same for one phase alone:")
@click.option("--phased-phase2-num-epochs", type=POSITIVE, metavar="N")
@click.option("--phased-phase1-effective-batch-size", type=POSITIVE, metavar="N")
@click.option("--phased-phase2-effective-batch-size", type=POSITIVE, metavar="N")
@click.option("--phased-phase1-learning-rate", type=RATE, metavar="RATE")
@click.option("--phased-phase2-learning-rate", type=RATE, metavar="RATE")
@click.option("--phased-phase1-samples-per-save", type=click.IntRange(0), hidden=True)
@click.option("--phased-phase2-samples-per-save", type=click.IntRange(0), hidden=True)
@click.option("--lora-rank", type=click.IntRange(0), metavar="N", help="Rank of an adapter; 0: all weights.")
@click.option("--lora-alpha", type=POSITIVE, metavar="N", help="Its scale, over the rank.")
@click.option("--lora-dropout", type=SHARE, metavar="SHARE")
@click.option("--lora-target-modules", multiple=True, metavar="NAMES", help="Linear layers, as q_proj,v_proj.")
@click.option("--lora-quantize-dtype", type=click.Choice(["nf4", "none"]), help="nf4: beside weights in four bits.")
@click.option("--4-bit-quant", "four_bits", is_flag=True, hidden=True)
@click.option("--select", type=click.Choice(["auto", "score", "loss", "last"]), help="What chooses a checkpoint.")
@click.option("--validation-share", type=SHARE, metavar="SHARE", help="Rows held out of training, for their loss.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, mps.  [config: where.device]")
@click.option("--gpus", "--nproc-per-node", "gpus", type=POSITIVE, metavar="N", help="Devices that train together.")
@click.option("--nnodes", type=click.IntRange(1, 1), hidden=True)
@click.option("--ckpt-output-dir", metavar="DIR", help="Copy the chosen checkpoint below this folder.")
@click.option("--phased-base-dir", metavar="DIR", help="Copy the chosen checkpoint of each phase below this folder.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and train nothing.")
@click.option("-p", "parameters_", multiple=True, metavar="NAME=VALUE", help="Set a pipeline parameter.")
@OLD
@click.pass_obj
def train(options: Options, /, dry_run: bool, **given: Any) -> None:
    """Train a model: on the project's data as `ilab run` does, or on files.

    Without data options all training steps of the project are made, in the same store: a build goes on from them. An
    interrupted training goes on where it was with the same command.
    """
    from ilab.actions import prepare
    from ilab.cli.threads import passive_threads

    passive_threads()  # before torch is asked for devices
    wanted = _wanted(options, given)
    loaded, device = _placed(options, given, wanted.old)
    values = _values(options, loaded, given, device, wanted.old)
    _check_outputs(wanted)
    build = prepare(loaded, values, wanted.training)
    for note in build.notes:
        click.echo(f"note: {note}", err=True)
    if dry_run:
        _forecast(options, build)
    else:
        _finish(options, _train(build), wanted)


# -- what is meant ---------------------------------------------------------------------------------------------------


def _wanted(options: Options, given: Mapping[str, Any]) -> Wanted:
    """Which data is trained on, in which strategy. Raises ``InputError`` where the options do not fit together."""
    from ilab.training.folders import pair
    from ilab.training.strategy import Training

    output, phased = (
        options.directory / given[name] if given[name] else None for name in ("ckpt_output_dir", "phased_base_dir")
    )
    files = [name for name in ("data_path", "phased_phase1_data", "phased_phase2_data", "strategy") if given[name]]
    folder = given["input_dir"]
    if not folder and not files and _is_old(options, given["pipeline"]):
        folder = LEGACY
    if not folder:
        return Wanted(_training(options, given), False, output, phased)
    if files:
        raise InputError(
            f"--input-dir and --{files[0].replace('_', '-')} both say what to train on", hint="leave one of them out"
        )
    trained, asked = pair(options.directory / folder)
    click.echo(f"training on {trained}" + (f", asking {asked}" if asked else ""), err=True)
    if asked is None:
        click.echo("note: there is no test_* beside it, so no answers are compared", err=True)
    questions = str(asked.resolve()) if asked else ""
    training = Training("single", (str(trained.resolve()),), given["select"] == "score", questions)
    return Wanted(training, True, output or options.directory / "models", phased)


def _is_old(options: Options, pipeline: str | None) -> bool:
    """Whether ``ilab train`` without a word about data means the folder of InstructLab's first versions."""
    from ilab.config import find_project

    if not (options.directory / LEGACY).is_dir():
        return False
    return pipeline == "simple" or (pipeline is None and find_project(options.directory) is None)


def _training(options: Options, given: Mapping[str, Any]) -> Training:
    from ilab.training.folders import PHASES, data_file, newest, phase_files
    from ilab.training.strategy import Training

    strategy, scored = given["strategy"], given["select"] == "score"
    phases = [options.directory / path for path in (given["phased_phase1_data"], given["phased_phase2_data"]) if path]
    path = options.directory / given["data_path"] if given["data_path"] else None
    if path and phases:
        raise InputError("--data-path and --phased-phase…-data both say what to train on", hint="leave one of them out")
    if not path and not phases:
        return Training(strategy)
    if phases:
        strategy = strategy or ("lab-skills-only" if not given["phased_phase1_data"] else "lab-multiphase")
        if given["phased_phase1_data"] and strategy == "lab-skills-only":
            raise InputError("the skills phase has no use for data of phase 1", hint="give --phased-phase2-data alone")
        if strategy != "lab-skills-only" and len(phases) == 1:
            raise InputError("one of the two phases has no data", hint="for one run on one file: --data-path FILE")
    elif path and path.is_dir() and strategy in ("lab-multiphase", "stacked"):
        phases = list(phase_files(path))
    elif path and strategy == "lab-multiphase":
        raise InputError("two phases take two files", hint="give --phased-phase1-data and --phased-phase2-data")
    elif path:
        phases = [(path.is_dir() and strategy and newest(path, PHASES[1])) or path]
    files = [data_file(one) for one in phases]
    click.echo(f"training on {', then '.join(str(file) for file in files)}", err=True)
    return Training(strategy or "single", tuple(str(file.resolve()) for file in files), scored)


def _placed(options: Options, given: Mapping[str, Any], old: bool) -> tuple[Loaded, str]:
    """The configuration with the devices asked for, and the device; empty where it is found when the training runs.

    The first trainers' command goes on with the CPU where the device is not there, and says so.
    """
    from ilab.training.choice import checked_device

    flags = {"where__device": given["device"], "where__train__processes": given["gpus"]}
    loaded: Loaded = options.load(**flags)
    where = loaded.config.where
    if not (given["device"] or given["gpus"] or old or given["pipeline"] == "simple"):
        return loaded, ""
    device, note = checked_device(where.device, where.train.processes, or_cpu=old)
    if note:
        click.echo(f"note: {note}", err=True)
        loaded = options.load(**{**flags, "where__device": "cpu"})
    return loaded, device


def _values(options: Options, loaded: Loaded, given: Mapping[str, Any], device: str, old: bool) -> dict[str, Any]:
    """The pipeline parameters of this training: what the options say, and what is usual where nobody says anything."""
    from ilab.actions import parameters_of
    from ilab.cli.pipeline import split_parameters
    from ilab.training.choice import choose_method

    values = split_parameters(given["parameters_"]) | parameters(given)
    if given["model_path"]:
        named = given["model_path"]
        folder = (options.directory / Path(named).expanduser()).resolve()
        values["sdg_base_model"] = named if named == "tiny" and not folder.is_dir() else str(folder)
    unsaid = {row["name"] for row in parameters_of(loaded, values) if row["origin"] == "default"}
    if "sdg_base_model" in unsaid:
        raise InputError(
            "there is no model to train", hint="give the folder of a Hugging Face model: --model-path DIR (or `tiny`)"
        )
    if old and "train_method" in unsaid and not given["pipeline"]:
        given = {**given, "pipeline": "simple"}
    if given["four_bits"]:
        given = {**given, "lora_quantize_dtype": "nf4"}
    choice = choose_method(given, device, loaded.config.where.train.processes)
    for note in choice.notes:
        click.echo(f"note: {note}", err=True)
    if choice.method:
        values["train_method"] = choice.method
    if given["pipeline"] == "simple" and choice.method in ("lora", "qlora"):
        low = {"train_precision": "bf16"} if device.startswith("cuda") else {}
        values = {**adapter_defaults(unsaid), **{name: low[name] for name in low if name in unsaid}, **values}
    return values


def _check_outputs(wanted: Wanted) -> None:
    """Raise ``InputError`` where a copy would have to replace something else, before anything is trained."""
    from ilab.training.deliver import check_target

    if wanted.output and wanted.old:
        check_target(wanted.output / RESULT)
    for root in (wanted.output, wanted.phased):
        for folder in sorted(root.glob("**/hf_format/samples_*")) if root else ():
            check_target(folder)


# -- doing it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """What a training left in the store: for each choosing step the choice, and where the chosen model lies."""

    build: Build
    records: Mapping[str, RecordFile]
    choices: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Path]
    samples: Mapping[str, int]
    answers: Path | None


def _forecast(options: Options, build: Build) -> None:
    from ilab.cli.pipeline import engine_for
    from ilab.cli.render import console, plan_table

    with engine_for(build) as engine:
        for name, planned in build.plan.steps.items():  # what is there to read says what the rest will cost
            free = planned.step.cheap or planned.step.type in ("base", "stack")
            if free and all(_is_made(engine, build, source) for source in _sources(planned.inputs)):
                engine.run_step(build.plan, name, latest=False)
        previews = engine.preview(build.plan)
    if options.as_json:
        options.result({preview.planned.name: {**preview.expected, "state": preview.state} for preview in previews})
    else:
        console().print(plan_table(previews))


def _sources(wiring: Any) -> list[str]:
    from ilab.core.pipeline import sources

    return sources(wiring)


def _is_made(engine: Engine, build: Build, name: str) -> bool:
    planned = build.plan.steps[name]
    return engine.store.record(planned.step.type, planned.key) is not None


def _train(build: Build) -> Trained:
    from ilab.actions import note_run
    from ilab.artifacts import Candidates, Checkpoint
    from ilab.cli.pipeline import engine_for, run_folder, watching
    from ilab.training.deliver import samples_seen

    with engine_for(build) as engine:
        folder = run_folder(engine)
        note_run(build, folder, apart="model train")
        with watching(engine, folder):
            records = engine.run(build.plan)
        choices, models, samples = {}, {}, {}
        last = list(build.plan.steps)[-1]
        for name, planned in build.plan.steps.items():
            if planned.step.type != "select":
                continue
            checkpoint = Checkpoint(engine.store.contents(records[name]))
            candidates = Candidates(engine.store.contents(records[str(planned.inputs["candidates"])]))
            choices[name], models[name] = checkpoint.choice(), checkpoint.model
            chosen = next(row for row in choices[name]["table"] if row["chosen"])
            samples[name] = samples_seen(candidates.metrics(), chosen["step"])
        asked = engine.store.contents(records[last]) if build.plan.steps[last].step.type == "answers" else None
        return Trained(build, records, choices, models, samples, asked)


# -- what came of it -------------------------------------------------------------------------------------------------


def _finish(options: Options, made: Trained, wanted: Wanted) -> None:
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
        told["gguf"] = _gguf(best, wanted.output / GGUF)
    if options.as_json:
        options.result(told)
        return
    if made.answers:
        show_answers(made.answers)
    for name, choice in made.choices.items():
        click.echo(_choice_line(name, choice))
    for record in made.records.values():
        if record.type == "train" and record.counts.get("left_out"):
            at = f"{made.build.loaded.store / 'latest' / record.step / 'left_out.json'}"
            click.echo(f"warning: {record.step} left out {record.counts['left_out']} rows: {at}", err=True)
    for path in told.get("answers", ()):
        click.echo(f"answers: {path}")
    if told.get("gguf"):
        click.echo(f"GGUF: {told['gguf']}")
    click.echo(f"Best final checkpoint: {best}{_score_of(made.choices[last])}")
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


def _gguf(model: Path, output: Path) -> str:
    """The model as one GGUF file, where this installation can write one; its path, or empty with a line saying why."""
    import importlib
    from importlib.util import find_spec

    if find_spec("ilab.packaging.gguf") is None:
        return ""
    export: Any = importlib.import_module("ilab.packaging.gguf.export")
    try:
        export.export_gguf(model, output, "f16", options=export.Options(force=True))
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
