"""What a build shows at its end: the table and where things lie, and the report drawn from what the store holds.

Everything is read from records and artifacts, so a report can be drawn again at any time and says the same.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilab.actions import Build
from ilab.config import Loaded, Where
from ilab.core.events import read_events
from ilab.core.files import read_json, write_json, write_text
from ilab.core.run import Engine, tool_versions
from ilab.core.store import RecordFile, Store
from ilab.errors import InputError
from ilab.resolvers import registry_address, registry_of

NEWEST = 20  # runs whose reports are looked at, where they have to be fetched
NEEDED = frozenset(
    {
        "documents",
        "items",
        "generate",
        "train-phase-1",
        "train-phase-2",
        "select-phase-1",
        "select-phase-2",
        "final-evaluation",
    }
)  # the steps, by their names in the shipped pipelines, that a report is drawn from


BENCHMARKS = ("mt-bench", "mt-bench-branch")  # steps of judged benchmarks


def recalled(loaded: Loaded, digest: str) -> str:
    """Why the package or model of this digest was recalled; empty where it was not, or no registry knows it."""
    from ilab.packaging.registry import is_there

    if not digest or not is_there(registry_address(loaded)):
        return ""
    found = registry_of(loaded).recalled(digest)
    return f"{found.name} {found.version}: {found.recalled}" if found else ""


def packages_where(loaded: Loaded) -> Where:
    """The settings about where, with those about packages as the parameters of this project fill them in."""
    from ilab.parameters import collect
    from ilab.resolvers import where_packages_go

    values = {name: one.value for name, one in collect(loaded.parameters()).items()}
    return loaded.config.where.model_copy(update={"package": where_packages_go(loaded, values)})


def _reports(store: Store, newest: int) -> list[Path]:
    """The pages of the newest runs that have one, each with its twin beside it."""
    store.runs("report.json", newest)
    return store.runs("report.html", newest)


def find_report(loaded: Loaded, name: str = "") -> Path:
    """The page that ``name`` means: a run of this project by the beginning of its folder's name, or a path to a
    report (its page, its JSON, or their folder); without a name the newest. Raises InputError for none or several.
    """
    from ilab.transfer.stores import open_store

    pages = sorted(loaded.store.glob("runs/*/report.html"))
    if loaded.bucket:
        pages = _reports(open_store(loaded), NEWEST)
    if not name and not pages:
        raise InputError("there is no report yet", where=str(loaded.store), hint="build one with: ilab run")
    if not name:
        return pages[-1]
    path = Path(name).expanduser()
    path = path if path.is_absolute() else loaded.base / path
    if path.is_dir():
        path = path / "report.html"
    if path.suffix in (".html", ".json") and path.is_file():
        return path.with_suffix(".html")
    named = [page for page in pages if page.parent.name.startswith(name)]
    if len(named) != 1:
        runs = ", ".join(page.parent.name for page in pages[-3:]) or "none yet"
        what = f"{len(named)} runs begin with {name!r}" if named else f"there is no report {name!r}"
        raise InputError(what, where=str(loaded.store), hint=f"give a file report.json, or a run; the newest: {runs}")
    return named[0]


def read_report(page: Path) -> dict[str, Any]:
    """The JSON beside a report's page. Raises InputError where there is none or it is none of ours."""
    path = page.with_suffix(".json")
    try:
        plain = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read this report: {error}", where=str(path), hint="draw it again: ilab run"
        ) from error
    from ilab.evaluation.report_diff import read_told

    read_told(plain, str(path))
    return dict(plain)


def draw_report(build: Build, engine: Engine, folder: Path) -> Path | None:
    """Draw the page and its JSON twin into ``folder`` from what the store holds; None before the gate has spoken.

    When nothing ran and the newest earlier page shows the same results, it still holds and is returned instead.
    """
    records = _records(build, engine)
    if "gate" not in records or not records.keys() >= NEEDED:  # not spoken yet, or a pipeline of another shape
        return None
    if build.given["output_save_checkpoints"].value:
        _save_checkpoints(build, engine, folder / "checkpoints")
    ran = {event.step for event in read_events(folder / "events.jsonl") if event.data.get("state") in ("run", "link")}
    earlier = _reports(engine.store, 1)
    if not ran and earlier and _shows(earlier[-1], records):
        return earlier[-1]
    from ilab.evaluation.report import render, twin

    view = _view(build, engine, records, ran)
    write_text(folder / "report.html", render(view))
    write_json(folder / "report.json", twin(view))
    _save_metrics(build, folder, view)
    return folder / "report.html"


def _save_checkpoints(build: Build, engine: Engine, folder: Path) -> None:
    """Every checkpoint that training saved, below ``folder`` by step: links to the store's files where they can be."""
    from ilab.artifacts import Candidates
    from ilab.core.files import take_over

    for name, planned in build.plan.steps.items():
        if planned.step.type == "train" and engine.store.record("train", planned.key) is not None:
            candidates = engine.store.open(type(planned.step), planned.key)
            for checkpoint, model in candidates.models().items() if isinstance(candidates, Candidates) else ():
                shutil.copytree(model, folder / name / checkpoint, copy_function=take_over, dirs_exist_ok=True)


def _save_metrics(build: Build, folder: Path, view: Any) -> None:
    """The figures as a table beside the report, in the form that ``output_metrics_format`` names, if wanted."""
    from ilab.evaluation.report_rows import csv_text, metric_rows

    if not build.given["output_save_metrics"].value:
        return
    rows = metric_rows(folder.name, view.comparison, view.gate, view.items, view.scores)
    if build.given["output_metrics_format"].value == "csv":
        write_text(folder / "metrics.csv", csv_text(rows))
    else:
        write_json(folder / "metrics.json", rows)


def _shows(page: Path, records: Mapping[str, RecordFile]) -> bool:
    """Whether the page was drawn from just these records, and not for a build with other settings."""
    try:
        steps = read_json(page.with_suffix(".json"))["steps"]
    except (OSError, ValueError):  # killed before the twin was written
        return False
    return {step["name"]: step["key"] for step in steps} == {name: record.key for name, record in records.items()}


def outcome(build: Build, engine: Engine, page: Path | None) -> dict[str, Any]:
    """What a build ends with, as plain JSON: the table's rows, the gate's line, where things lie, what to type next."""
    records = _records(build, engine)
    result: dict[str, Any] = {"lines": [], "places": {}, "next": [], "table": []}
    if "final-evaluation" in records:
        from ilab.evaluation.summary import summary_rows

        comparison = _open(build, engine, "final-evaluation").report()
        result["table"] = summary_rows(comparison)
        result["comparison"] = comparison
    if "gate" in records:
        decision = _open(build, engine, "gate").report()
        result["gate"] = decision
        result["lines"] += [f"gate  {decision['line']}", *notes_of(build, engine)]
    if page:
        result["places"]["report"] = str(page)
    for name in ("package", "select-phase-2"):
        if name in records:
            label = {"package": "package", "select-phase-2": "model"}[name]
            path = _open(build, engine, name).path
            result["places"][label] = str(path / "model" if label == "model" else path)
    if "register" in records:
        entry = _open(build, engine, "register").report()
        result["places"]["registry"] = f"{build.where.registry}  ({entry['name']} {entry['version']})"
        ilab = _command(build.loaded)
        result["next"] = [
            (f"{ilab} model chat", "ask the model"),
            (f"{ilab} plan", "after editing one answer: what would run again, and why"),
        ]
    return result


def notes_of(build: Build, engine: Engine) -> list[str]:
    """Sentences that keep a reader from taking a result for more than it is."""
    values = {name: item.value for name, item in build.given.items()}
    notes = []
    if values["sdg_base_model"] == "tiny":
        notes.append(
            "This is a small-scale demonstration: the base is untrained, so the table shows recall of these documents "
            "by 0.4 million parameters, not a chat model."
        )
        notes.append("The open-book column needs no model: word overlap between the question and the document.")
    generate = build.plan.steps.get("generate")
    without = []
    if generate is not None and not generate.step.fields()["teacher"]:
        without.append("No teacher: samples were made by rule.")
    judge = values["eval_judge_model"]
    if not judge:
        without.append("No judge: scores are likelihoods and exact matches.")
    elif judge == "rule":
        without.append("The judge is a rule (word overlap with the reference), no language model.")
    if without:
        notes.append(" ".join(without))
    if values["sdg_base_model"] == "tiny":
        notes.append(
            "For a real run: ilab run --pipeline instructlab -p sdg_base_model=DIR -p sdg_teacher_model=NAME "
            "--set where.teacher.url=URL"
        )
    return notes


def _records(build: Build, engine: Engine) -> dict[str, RecordFile]:
    found = {}
    for name, planned in build.plan.steps.items():
        record = engine.store.record(planned.step.type, planned.key)
        if record is not None:
            found[name] = record
    return found


def _open(build: Build, engine: Engine, name: str) -> Any:
    planned = build.plan.steps[name]
    return engine.store.open(type(planned.step), planned.key)


def _view(build: Build, engine: Engine, records: Mapping[str, RecordFile], ran: set[str]) -> Any:
    """Everything the report shows, from the artifacts of this plan."""
    from ilab.evaluation.report import View

    def opened(name: str) -> Any:
        return _open(build, engine, name)

    phases = {"phase 1": "phase-1", "phase 2": "phase-2"}
    samples = opened("generate")
    evaluation = opened("final-evaluation")
    scores: dict[str, list[Any]] = {}
    for score in evaluation.scores():
        scores.setdefault(score.model, []).append(score)
    return View(
        title=f"{build.given['output_model_name'].value} {build.given['output_model_version'].value}",
        pipeline=build.plan.pipeline,
        comparison=evaluation.report(),
        gate=opened("gate").report(),
        steps=[_step_row(name, record, ran) for name, record in records.items()],
        choices={phase: opened(f"select-{name}").choice() for phase, name in phases.items()},
        metrics={phase: opened(f"train-{name}").metrics() for phase, name in phases.items()},
        cards={"samples": samples.card()},
        samples=samples.samples(),
        rejected=samples.rejected(),
        items=opened("suite" if "suite" in records else "items").items("test"),
        scores=scores,
        chunks=opened("documents").chunks(),
        leaves=opened("taxonomy").leaves() if "taxonomy" in records else (),
        judgments=evaluation.judgments(),
        calibration=opened("judge").report() if "judge" in records else {},
        benchmarks=[opened(name).report() for name in BENCHMARKS if name in records],
        settings={name: {"value": one.value, "origin": one.origin} for name, one in sorted(build.given.items())},
        prices=_prices(build),
        package=_package(opened("package")) if "package" in records else {},
        registry=opened("register").report() if "register" in records else {},
        notes=notes_of(build, engine),
        machine={**tool_versions(), "processors": os.cpu_count(), "system": platform.system()},
    )


def _step_row(name: str, record: RecordFile, ran: set[str]) -> dict[str, Any]:
    state = "linked" if record.linked_to else "run" if name in ran else "reused"
    return {
        "name": name,
        "type": record.type,
        "key": record.key,
        "state": state,
        "seconds": record.seconds,
        "counts": record.counts,
    }


def _prices(build: Build) -> dict[str, Any]:
    """What a million tokens of the teacher cost, where it is known."""
    teacher = build.where.teacher
    if teacher is None:
        return {}
    return {"read": teacher.price_read, "written": teacher.price_written, "currency": teacher.currency}


def _package(package: Any) -> dict[str, Any]:
    manifest = package.index()["manifests"][0]
    return {"path": str(package.path), "digest": manifest["digest"]}


def _command(loaded: Loaded) -> str:
    """This program as the user can type it again, with the ``-C`` that leads to the project."""
    here = Path.cwd()
    program = Path(sys.argv[0])
    known = shutil.which("ilab")
    is_ours = program.name == "ilab" and program.is_file() and not (known and program.samefile(known))
    ilab = os.path.relpath(program, here) if is_ours else "ilab"
    return ilab if loaded.base == here else f"{ilab} -C {os.path.relpath(loaded.base, here)}"


def model_to_use(loaded: Loaded, given: str | None, folder: Path = Path()) -> tuple[Path, str]:
    """A model and its name: the one given by path (from ``folder`` on), by its name in the models folder or by its id
    in ``models.named``, else what the last build of this project chose."""
    if given:
        from ilab.profiles import model_by_id
        from ilab.transfer.shelf import model_at, not_here

        path = model_at(given, folder)
        if path is None and given in loaded.config.models.named:
            path = model_at(model_by_id(loaded, given).path, loaded.base)
        if path is None:
            raise not_here(given)
        return path, path.resolve().name
    from ilab.transfer.stores import latest_of

    for step in ("select-phase-2", "select-phase-1"):
        found = latest_of(loaded, step) / "model"
        if found.is_dir():
            return found.resolve(), str(loaded.config.parameters.get("output_model_name", loaded.config.pipeline))
    if default := loaded.config.models.default:
        return model_to_use(loaded, default, loaded.base)
    raise InputError(
        "no model was built here yet",
        where=str(loaded.base),
        hint="give one: --model-path PATH (`ilab train` makes models/ggml-model-f16.gguf), or a name of: ilab model "
        "list; or build one with: ilab run",
    )
