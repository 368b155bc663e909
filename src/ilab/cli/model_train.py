"""``ilab model train``: the training of a project, or of files, and before and after on a few questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.process import detachable, go_to_background, stay_for_dry_run
from ilab.cli.teacher import reaching, served, teacher_of_build
from ilab.cli.train_job import handing_over, placements, show_placements
from ilab.cli.train_options import OLD, parameters, template_choice, training_options
from ilab.cli.train_result import RESULT, Trained, Wanted, check_answers, check_file, finish
from ilab.cli.train_usual import defaults_for, generated, is_flat, is_unsaid, method_for, results, student_at_hand
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.config import Loaded
    from ilab.core.run import Engine
    from ilab.training.strategy import Training


@click.command()
@training_options
@OLD
@detachable
@click.pass_obj
def train(options: Options, /, dry_run: bool, **given: Any) -> None:
    """Train a model: on the project's data as `ilab run` does, or on files.

    Without data options all training steps of the project are made, in the same store: a build goes on from them. An
    interrupted training goes on where it was with the same command.
    """
    from ilab.actions import prepare
    from ilab.cli.threads import passive_threads
    from ilab.teacher_at_hand import Teacher

    stay_for_dry_run(dry_run)
    passive_threads()  # before torch is asked for devices
    wanted = _wanted(options, given)
    loaded, device = _placed(options, given, wanted.old)
    values = _values(options, loaded, given, device, wanted.old)
    _check_outputs(wanted)
    if wanted.training.files:  # no sample is made, so nobody is asked
        teacher = Teacher(loaded)
    else:
        teacher, values = teacher_of_build(options, loaded, values)
    build = prepare(teacher.loaded, values, wanted.training)
    for note in build.notes:
        click.echo(f"note: {note}", err=True)
    if dry_run:
        _forecast(options, build)
    else:
        go_to_background(options)
        with handing_over(options, bool(given["manifest"]), given["manifest_file"]):
            with served(teacher) as address:
                trained = _train(reaching(build, build.plan, address))
            finish(options, trained, wanted)


# -- what is meant ---------------------------------------------------------------------------------------------------


def _wanted(options: Options, given: Mapping[str, Any]) -> Wanted:
    """Which data is trained on, in which strategy. Raises ``InputError`` where the options do not fit together."""
    from ilab.training.folders import pair
    from ilab.training.strategy import Training

    output, phased = (
        options.directory / given[name] if given[name] else None for name in ("ckpt_output_dir", "phased_base_dir")
    )
    files = [name for name in ("data_path", "phased_phase1_data", "phased_phase2_data", "strategy") if given[name]]
    folder = options.directory / given["input_dir"] if given["input_dir"] else None
    if not folder and not files and _is_old(options, given):
        folder = generated(options.directory)
    if not folder:
        return Wanted(_training(options, given), False, output, phased)
    if files:
        raise InputError(
            f"--input-dir and --{files[0].replace('_', '-')} both say what to train on", hint="leave one of them out"
        )
    trained, asked = pair(folder)
    click.echo(f"training on {trained}" + (f", asking {asked}" if asked else ""), err=True)
    if asked is None:
        click.echo("note: there is no test_* beside it, so no answers are compared", err=True)
    questions = str(asked.resolve()) if asked else ""
    training = Training("single", (str(trained.resolve()),), given["select"] == "score", questions)
    return Wanted(training, True, output or results(options.directory), phased)


def _is_old(options: Options, given: Mapping[str, Any]) -> bool:
    """Whether a command without a word about data means a folder with train_* and test_*, as the first versions did."""
    from ilab.config import find_project

    if given["pipeline"] or find_project(options.directory) is not None:
        return bool(given["pipeline"] == "simple")
    return is_flat() and not given["parameters_"]


def _training(options: Options, given: Mapping[str, Any]) -> Training:
    from ilab.config import find_project
    from ilab.training.folders import PHASES, data_file, newest, phase_files
    from ilab.training.strategy import Training

    strategy, scored = given["strategy"], given["select"] == "score"
    phases = [options.directory / path for path in (given["phased_phase1_data"], given["phased_phase2_data"]) if path]
    path = options.directory / given["data_path"] if given["data_path"] else None
    outside = find_project(options.directory) is None and not given["parameters_"]
    if path and phases:
        raise InputError("--data-path and --phased-phase…-data both say what to train on", hint="leave one of them out")
    if not path and not phases and outside:
        path = generated(options.directory)
        if path is None:
            raise InputError(
                "there is nothing to train on",
                where=str(options.directory),
                hint="make data with: ilab data generate   or give it with --data-path FILE",
            )
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
    if given["submit"] and given["manifest"]:
        raise InputError("--manifest leaves the job to you, --submit makes it", hint="leave one of them out")
    pods = {"where__train__launcher": given["submit"] or given["manifest"], "where__train__submit": _submits(given)}
    loaded: Loaded = options.load(**flags, **pods)
    where = loaded.config.where
    if where.train.launcher != "here":
        return loaded, where.train.kubernetes.device
    if not (given["device"] or given["gpus"] or old or given["pipeline"] == "simple"):
        return loaded, ""
    device, note = checked_device(where.device, where.train.processes, or_cpu=old)
    if note:
        click.echo(f"note: {note}", err=True)
        loaded = options.load(**{**flags, "where__device": "cpu"})
    return loaded, device


def _submits(given: Mapping[str, Any]) -> bool | None:
    """Whether the command makes the job itself; None where only the configuration says so."""
    return True if given["submit"] else False if given["manifest"] else None


def _values(options: Options, loaded: Loaded, given: Mapping[str, Any], device: str, old: bool) -> dict[str, Any]:
    """The pipeline parameters of this training: what the options say, and what is usual where nobody says anything."""
    from ilab.actions import parameters_of
    from ilab.cli.building import split_parameters
    from ilab.training.choice import choose_method
    from ilab.transfer.shelf import model_at

    values = split_parameters(given["parameters_"]) | parameters(given)
    if given["model_path"]:
        named = given["model_path"]
        folder = model_at(named, options.directory) or options.directory / Path(named).expanduser()
        values["sdg_base_model"] = named if named == "tiny" and not folder.is_dir() else str(folder.resolve())
    if given["chat_template"]:
        values["train_chat_template"] = template_choice(options.directory, given["chat_template"])
    rows = {row["name"]: row for row in parameters_of(loaded, values)}
    unsaid = {name for name, row in rows.items() if row["origin"] == "default"}
    base = str(rows["sdg_base_model"]["value"])
    if "sdg_base_model" in unsaid:
        base = values["sdg_base_model"] = student_at_hand(loaded)
        click.echo(
            f"note: {base} is trained, the student recommended for this machine (another: --model-path)", err=True
        )
    if given["four_bits"]:
        given = {**given, "lora_quantize_dtype": "nf4"}
    usual = given["pipeline"] == "simple" or (old and is_unsaid(given) and "train_method" in unsaid)
    choice = method_for(given, device, base, loaded.base) if usual else choose_method(given, device)
    for note in choice.notes:
        click.echo(f"note: {note}", err=True)
    if choice.method:
        values["train_method"] = choice.method
    if usual and (is_unsaid(given) or choice.method in ("lora", "qlora")):
        values = {**defaults_for(choice.method, device, unsaid), **values}
    return values


def _check_outputs(wanted: Wanted) -> None:
    """Raise ``InputError`` where a copy would have to replace something else, before anything is trained."""
    from ilab.training.deliver import check_target

    if wanted.output and wanted.old:
        check_target(wanted.output / RESULT)
        check_file(wanted.output)
        check_answers(wanted.output)
    for root in (wanted.output, wanted.phased):
        for folder in sorted(root.glob("**/hf_format/samples_*")) if root else ():
            check_target(folder)


# -- doing it --------------------------------------------------------------------------------------------------------


def _forecast(options: Options, build: Build) -> None:
    from ilab.cli.pipeline import engine_for
    from ilab.cli.render import console, plan_table

    with engine_for(build) as engine:
        for name, planned in build.plan.steps.items():  # what is there to read says what the rest will cost
            free = planned.step.cheap or planned.step.type in ("base", "stack")
            if free and all(_is_made(engine, build, source) for source in _sources(planned.inputs)):
                engine.run_step(build.plan, name, latest=False)
        previews = engine.preview(build.plan)
        placed = placements(engine, build)
    if options.as_json:
        told = {one.planned.name: {**one.expected, "state": one.state} for one in previews}
        options.result({name: {**told[name], **placed.get(name, {})} for name in told})
    else:
        console().print(plan_table(previews))
        show_placements(placed)


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
