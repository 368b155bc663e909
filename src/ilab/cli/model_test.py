"""``ilab model test``: the same questions to a model before and after its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.old_options import OldOptions
from ilab.cli.train_result import GGUF, RESULT, check_answers, copy_answers, show_answers
from ilab.cli.train_usual import GENERATED, MODELS, generated
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded

OLD = OldOptions(
    taken={
        "--adapter-file": "an adapter is part of the model's folder, merged",
        "--api-key": "no server is asked",
        "--model-family": "the model's own chat template is used",
    },
    refused={},
)


@click.command()
@click.option("--data-dir", metavar="DIR", help=f"Take the newest test_* of this folder.  [default: {GENERATED}]")
@click.option("-t", "--test_file", "--test-file", "test_file", metavar="FILE", help="Questions with answers.")
@click.option(
    "--model-dir",
    "--model-path",
    "model_dir",
    metavar="DIR",
    help="The trained model.  [default: what was trained last]",
)
@click.option("-m", "--base", "--model", "base", metavar="DIR", help="The model before.  [default: what it began from]")
@click.option("--max-tokens", type=click.IntRange(1), default=200, show_default=True, help="Longest answer.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, mps.  [config: where.device]")
@click.option("--output-dir", metavar="DIR", help="Write answers.jsonl and answers.md here too.")
@OLD
@click.pass_obj
def test(options: Options, /, max_tokens: int, **given: Any) -> None:
    """Ask a trained model and the one it was made from the same questions: expected, before, after."""
    from ilab.actions import prepare
    from ilab.cli.pipeline import engine_for, run_folder, watching
    from ilab.cli.threads import passive_threads
    from ilab.core.files import read_json
    from ilab.training.choice import checked_device
    from ilab.training.strategy import Asking

    passive_threads()
    loaded: Loaded = options.load(where__device=given["device"])
    if given["device"]:
        checked_device(given["device"], 1)
    if given["output_dir"]:
        check_answers(options.directory / given["output_dir"])
    questions = _questions(options, given)
    after = _after(options, loaded, given["model_dir"])
    before = _before(options, loaded, given["base"], after)
    build = prepare(loaded, {}, Asking(before, str(after.resolve()), str(questions.resolve()), max_tokens))
    with engine_for(build) as engine:
        with watching(engine, run_folder(engine)):
            record = engine.run(build.plan)["answers"]
        made = engine.store.contents(record)
    folder = options.directory / given["output_dir"] if given["output_dir"] else made
    paths = copy_answers(made, folder)
    if options.as_json:
        options.result({**read_json(made / "report.json"), "files": [str(path) for path in paths]})
        return
    show_answers(made)
    for path in paths:
        click.echo(f"answers: {path}")


def _questions(options: Options, given: Mapping[str, Any]) -> Path:
    from ilab.training.folders import newest

    if given["test_file"]:
        return Path(options.directory / given["test_file"])
    folder = options.directory / given["data_dir"] if given["data_dir"] else generated(options.directory)
    found = newest(folder or options.directory / GENERATED, "test_*.jsonl")
    if found is None:
        raise InputError("there is no test_*.jsonl in this folder", where=str(folder), hint="give --test_file FILE")
    click.echo(f"asking {found}", err=True)
    return found


def _after(options: Options, loaded: Loaded, given: str | None) -> Path:
    """The trained model: as given, else the newer of what ``ilab train`` wrote and what the build chose."""
    from ilab.config import data_home, find_project
    from ilab.outcome import model_to_use
    from ilab.training.deliver import NOTE

    if (
        given and Path(given).name == GGUF
    ):  # what the first trainers asked; the model that it was written from is better
        given = str(Path(given).with_name(RESULT))
    places = (options.directory / MODELS, data_home() / "checkpoints")
    note = next((note for place in places if (note := place / RESULT / NOTE).is_file()), None)
    if given or note is None:
        return model_to_use(loaded, given, options.directory)[0]
    if find_project(options.directory) is None:
        return note.parent
    try:
        chosen, _ = model_to_use(loaded, None)
    except InputError:  # nothing was built
        return note.parent
    return note.parent if note.stat().st_mtime > chosen.stat().st_mtime else chosen


def _before(options: Options, loaded: Loaded, given: str | None, after: Path) -> str:
    """The model before: as given, else what the trained one's note says, else the project's base."""
    from ilab.actions import parameters_of
    from ilab.core.files import read_json
    from ilab.training.deliver import NOTE

    if given:
        folder = (options.directory / Path(given).expanduser()).resolve()
        return given if given == "tiny" and not folder.is_dir() else str(folder)
    if (after / NOTE).is_file():
        return str(read_json(after / NOTE)["base"])
    named = next(row["value"] for row in parameters_of(loaded, {}) if row["name"] == "sdg_base_model")
    if not named:
        raise InputError("which model to compare with is not known", hint="give its folder: --base DIR")
    return str(named)
