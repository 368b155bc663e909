"""``ilab model evaluate``: one benchmark for one model, beside its base where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.evaluate_judge import judge_name, load_with_judge, reaching
from ilab.cli.evaluate_options import NEEDED, evaluate_options, require
from ilab.cli.outputs import check_pair, has_fields
from ilab.cli.process import go_to_background
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Endpoint, Loaded


@click.command(name="evaluate")
@evaluate_options
@click.pass_obj
def evaluate(options: Options, /, **given: Any) -> None:
    """Measure a model: questions asked, answers scored, and compared with the model before.

    What was asked is kept: after an interruption the same command goes on. A score is no failure: the exit code says
    whether it could be measured. `ilab run` is what refuses to publish.
    """
    run_evaluation(options, given)


@dataclass(frozen=True)
class Measured:
    """A model under test: a folder, or one that ``endpoint`` serves as ``served``. ``name`` is what results call it."""

    name: str
    folder: Path | None
    endpoint: Endpoint | None = None
    served: str = ""


def run_evaluation(options: Options, given: Mapping[str, Any]) -> None:
    """What ``ilab model evaluate`` and ``ilab evaluate`` do."""
    from ilab.actions import where_of
    from ilab.cli.evaluate_result import show, write
    from ilab.cli.evaluate_run import Job, measure
    from ilab.cli.pipeline import run_folder, watching
    from ilab.cli.threads import passive_threads
    from ilab.core.run import Engine
    from ilab.transfer.stores import open_store

    passive_threads()
    if given["device"]:
        from ilab.training.choice import checked_device

        checked_device(given["device"], 1)
    loaded = load_with_judge(options, given, where__device=given["device"])
    benchmark, given = _chosen(loaded, given)
    require(benchmark, given)
    where = where_of(loaded)
    candidate, base = _models(options, loaded, benchmark, given)
    folder = _output(options, benchmark, given["output_dir"])
    go_to_background(options)
    engine = Engine(open_store(loaded), where)
    try:
        with watching(engine, run_folder(engine)):
            job = Job(options.directory, loaded, given, engine, candidate, base, folder)
            outcome = measure(benchmark, job)
    finally:
        engine.close()
    files = write(outcome, folder)
    show(options, outcome, files)


def _chosen(loaded: Loaded, given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The benchmark, and the options with what the project's build says where nobody else does."""
    from ilab.transfer.stores import latest_of

    chosen = [latest_of(loaded, step) for step in ("select-phase-2", "select-phase-1")]
    benchmark = given["benchmark"]
    if benchmark is None:
        if not any(folder.is_dir() for folder in chosen):
            raise click.UsageError("Missing option '--benchmark'.")
        benchmark = "leaves"
    filled = dict(given)
    model = next((folder / "model" for folder in chosen if folder.is_dir()), None)
    if not filled["model"] and model is not None and "model" in NEEDED.get(benchmark, ("model",)):
        filled["model"] = str(model)
    if not filled["base_model"] and (base := latest_of(loaded, "base") / "model").is_dir():
        filled["base_model"] = str(base)
    filled["judge_model"] = judge_name(loaded, given["judge_model"])
    return str(benchmark), filled


def _models(
    options: Options, loaded: Loaded, benchmark: str, given: Mapping[str, Any]
) -> tuple[Measured | None, Measured | None]:
    """The model under test and the one to compare with; the second only where the benchmark compares."""
    candidate = _measured(options, loaded, given, given["model"], "--model") if given["model"] else None
    compares = benchmark in ("leaves", "mmlu_branch", "mt_bench_branch")
    base = (
        _measured(options, loaded, given, given["base_model"], "--base-model")
        if compares and given["base_model"]
        else None
    )
    if candidate and base and candidate.name == base.name:
        base = replace(base, name=f"{base.name} (base)")
    return candidate, base


def _measured(options: Options, loaded: Loaded, given: Mapping[str, Any], named: str, flag: str) -> Measured:
    """A folder where there is one of that name, else a served name. Raises ``InputError`` where it is neither."""
    from ilab.config import Endpoint
    from ilab.transfer.shelf import model_at

    folder = (options.directory / Path(named).expanduser()).absolute()
    if folder.exists():
        latest = loaded.store.absolute() / "latest"
        inside = folder.is_relative_to(latest)
        name = folder.relative_to(latest).parts[0] if inside else folder.resolve().name
        return Measured(name, folder.resolve())
    downloaded = None if given["endpoint_url"] else model_at(named, options.directory)
    if downloaded is not None:
        return Measured(named, downloaded)
    if not given["endpoint_url"]:
        raise InputError(
            f"there is no model at {named!r}",
            where=flag,
            hint="give the folder of a Hugging Face model, or a name in `ilab model list`; "
            "or a served name with --endpoint-url URL",
        )
    told = {name: value for name, value in reaching(options, given).items() if value is not None}
    workers = {} if given["max_workers"] == "auto" else {"in_flight": int(given["max_workers"])}
    endpoint = Endpoint.model_validate(
        {"url": given["endpoint_url"], "api_key": given["api_key"] or "", **told, **workers}
    )
    return Measured(named, None, endpoint, named)


def _output(options: Options, benchmark: str, given: str | None) -> Path:
    from ilab.cli.evaluate_result import OTHERS, RESULT
    from ilab.config import data_home

    folder = (
        options.directory / Path(given).expanduser() if given else data_home() / "internal" / "eval_data" / benchmark
    )
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file; results go into a folder", where=str(folder), hint="--output-dir DIR")
    for name in OTHERS:
        check_pair(folder / name, str(folder / name), folder / RESULT, has_fields("benchmark", "model", "rows"))
    return folder
