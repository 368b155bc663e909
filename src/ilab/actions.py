"""Compositions across stages: from a configuration to a plan, and what can be asked of a plan.

They stand above the stages and below the command line, so a notebook can call what ``ilab run`` calls. What a build
shows at its end is in ``outcome``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from ilab.config import Loaded, Where
from ilab.core import git
from ilab.core.events import read_events
from ilab.core.files import read_json, write_json
from ilab.core.pipeline import Pipeline, Plan, build, nearest, part, read_pipeline
from ilab.core.run import Engine
from ilab.core.store import Store
from ilab.errors import InputError
from ilab.parameters import NOT_NEEDED, PAGES, Given, collect, derive
from ilab.profiles import fidelity_note
from ilab.resolvers import REGISTRY, registry_address, resolvers
from ilab.steps import STEPS
from ilab.where import training_pods, where_for


@dataclass(frozen=True)
class Build:
    """A pipeline with its parameters filled in and every key known."""

    loaded: Loaded
    plan: Plan
    given: Mapping[str, Given]
    where: Where
    notes: tuple[str, ...]  # decisions worth a line: which flow was chosen and why


def shipped_pipelines() -> dict[str, Path]:
    folder = Path(str(resources.files("ilab") / "pipelines"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_pipeline(name: str, base: Path) -> Path:
    """A shipped pipeline's name, or the path of a file relative to ``base``."""
    shipped = shipped_pipelines()
    if name in shipped:
        return shipped[name]
    path = base / name
    if path.is_file():
        return path
    raise InputError(f"no pipeline {name!r}", where="pipeline", hint=nearest(name, shipped, "shipped pipelines"))


class Cut(Protocol):
    """A part of a pipeline, perhaps wired otherwise, with settings that are no parameters."""

    def cut(self, pipeline: Pipeline) -> Pipeline: ...
    def values(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Part:
    """One stage of a build: the first step of ``type`` and what it needs, with a few more settings.

    Data generation: ``rows`` takes so many input rows of each leaf, in at most ``calls`` teacher calls, and ``most`` of
    the instructions that they give. A ``look`` is to cost little: for it held-out questions are made by rule.
    """

    type: str
    rows: int | None = None
    calls: int | None = None
    most: int | None = None
    look: bool = False

    def cut(self, pipeline: Pipeline) -> Pipeline:
        return part(pipeline, self.type)

    def values(self) -> dict[str, Any]:
        given: dict[str, Any] = {"preview": self.rows, "preview_calls": self.calls, "instructions": self.most}
        if self.look:
            given.update(items_flow="", items_teacher="", items_family="", items_per_chunk=0)
        return given


def prepare(loaded: Loaded, parameters: Mapping[str, Any] | None = None, only: Cut | None = None) -> Build:
    """Resolve everything a build depends on and compute every key. Makes nothing, calls no teacher.

    ``parameters`` are those of the command line; ``only`` one part is prepared if given. Raises InputError(s) for
    anything a person has to mend first.
    """
    config = loaded.config
    pipeline = read_pipeline(find_pipeline(config.pipeline, loaded.base), lambda name: find_pipeline(name, loaded.base))
    pipeline = only.cut(pipeline) if only else pipeline
    given = collect(
        {
            pipeline.path: pipeline.parameters,
            **loaded.parameters(),
            "-p": parameters or {},
        },
        config.environment,
    )
    values = {name: item.value for name, item in given.items()}
    used = {setting for body in pipeline.steps.values() for setting in body.values() if isinstance(setting, str)}
    for name, what in (("sdg_repo_url", "a taxonomy"), ("sdg_base_model", "a base model")):
        if f"${name}" in used and not values[name]:
            raise InputError(
                f"no {name} given: the build needs {what}",
                where=pipeline.path,
                hint=f"add `parameters: {{{name}: ...}}` to ilab.yaml, or -p {name}=...",
            )
    notes = _not_needed([*loaded.parameters().values(), parameters or {}])
    if "$sdg_pipeline" in used:
        notes = (*notes, *_choose_flow(values, loaded.config.where))
    if "$eval_judge_model" in used:
        notes = (*notes, *_choose_judge(values, loaded.config.where))
    teacher = loaded.config.where.teacher
    if low := fidelity_note(loaded.profile, served=teacher is not None and not teacher.pending):
        notes = (*notes, low)
    where = where_for(loaded, values, training_pods(values, given, loaded))
    derived = derive(values)
    if only:
        derived.update(only.values())
    found: list[str] = []
    plan = build(pipeline, STEPS, derived, resolvers(loaded, where, values, found))
    return Build(loaded, plan, given, where, (*notes, *found))


def pipeline_of(loaded: Loaded) -> Pipeline:
    """The pipeline that the configuration names."""
    path = find_pipeline(loaded.config.pipeline, loaded.base)
    return read_pipeline(path, lambda name: find_pipeline(name, loaded.base))


def _collect(loaded: Loaded, pipeline: Pipeline, parameters: Mapping[str, Any]) -> dict[str, Given]:
    layers = {f"pipeline {pipeline.name}": pipeline.parameters, **loaded.parameters(), "-p": parameters}
    return collect(layers, loaded.config.environment)


def _not_needed(layers: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    named = dict.fromkeys(name for values in layers for name in values if name in NOT_NEEDED)
    return tuple(f"{name} is not needed: {NOT_NEEDED[name]}" for name in named)


def _choose_flow(values: dict[str, Any], where: Where) -> tuple[str, ...]:
    """Fill in ``sdg_pipeline`` where it was left open."""
    notes: list[str] = []
    if not values["sdg_pipeline"]:
        values["sdg_pipeline"] = "simple" if where.teacher else "extractive"
        if not where.teacher:
            notes.append(
                "no teacher is configured: samples are made by rule from the text (flow extractive, not a language "
                "model). For a teacher: -p sdg_pipeline=simple after `ilab model download`, or "
                "--set where.teacher.url=http://127.0.0.1:8000/v1 -p sdg_teacher_model=NAME"
            )
    if not where.teacher:
        values["sdg_teacher_family"] = ""  # nobody is asked, so it is part of nothing
    if values["sdg_teacher_model"] and not where.teacher:
        raise InputError(
            "sdg_teacher_model is given, but no endpoint serves it",
            where="where.teacher",
            hint="add --set where.teacher.url=http://127.0.0.1:8000/v1",
        )
    if values["sdg_verifier_model"] and not where.verifier:
        raise InputError(
            "sdg_verifier_model is given, but no endpoint serves it",
            where="where.verifier",
            hint="add --set where.verifier.url=http://127.0.0.1:8001/v1",
        )
    if values["eval_items"] == "teacher" and not (where.teacher and values["sdg_teacher_model"]):
        raise InputError(
            "eval_items is teacher, and there is no teacher to write them",
            where="eval_items",
            hint="add --set where.teacher.url=URL -p sdg_teacher_model=NAME, or -p eval_items=rule",
        )
    return tuple(notes)


def _choose_judge(values: Mapping[str, Any], where: Where) -> tuple[str, ...]:
    """Check that judge and endpoint go together; say what there is to know of a build without one."""
    from ilab.evaluation.rule_judge import RULE

    name = values["eval_judge_model"]
    if where.judge and not name:
        raise InputError(
            "a judge is configured, but not the name of the model that judges",
            where="where.judge",
            hint=f"add -p eval_judge_model=NAME; which names it serves: ilab endpoint check {where.judge.url}",
        )
    if name and name != RULE and not where.judge:
        raise InputError(
            "eval_judge_model is given, but no endpoint serves it",
            where="where.judge",
            hint="add --set where.judge.url=http://127.0.0.1:8002/v1, or -p eval_judge_model=rule for word overlap",
        )
    if not name:
        return ("no judge: checkpoints are chosen, and the model is evaluated, by likelihood and exact match",)
    return ("the judge is a rule (word overlap with the reference), no language model",) if name == RULE else ()


def parameters_of(loaded: Loaded, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameter table with every value and its origin, for people; nothing is resolved."""
    pipeline = pipeline_of(loaded)
    given = _collect(loaded, pipeline, parameters)
    return [
        {
            "name": parameter.name,
            "value": given[parameter.name].value,
            "origin": given[parameter.name].origin,
            "valid": parameter.valid,
            "kind": parameter.kind,
            "page": page,
            "required": parameter.required,
            "help": parameter.help,
        }
        for page, parameters_ in PAGES.items()
        for parameter in parameters_
    ]


def where_of(loaded: Loaded) -> Where:
    """The settings about where, for commands that build nothing."""
    given = collect(loaded.parameters(), loaded.config.environment)
    return where_for(loaded, {name: one.value for name, one in given.items()})


def absolute_where(loaded: Loaded, values: Mapping[str, Any]) -> Where:
    """The settings about where for running steps of a plan made elsewhere."""
    return where_for(loaded, values)


def step_states(build: Build, engine: Engine) -> list[dict[str, Any]]:
    """Every step's state: done, running (with its last progress), or to do."""
    [*_, newest] = [None, *engine.store.runs("events.jsonl", newest=1)]
    events = read_events(newest) if newest else []
    latest: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.kind in ("started", "progress"):
            latest[event.step] = event.data
    states = []
    for name, planned in build.plan.steps.items():
        record = engine.store.record(planned.step.type, planned.key)
        if record is not None:
            detail: dict[str, Any] = {"counts": record.counts, "seconds": record.seconds}
            states.append({"step": name, "state": "done", "key": planned.key, "detail": detail})
            continue
        held = engine.store.held(engine.store.partial(planned.step.type, planned.key).path)
        running = held and name in latest and "done" in latest[name]
        states.append(
            {
                "step": name,
                "state": "running" if held else "to do",
                "key": planned.key,
                "detail": latest[name] if running else {},
            }
        )
    return states


def note_run(build: Build, folder: Path, apart: str = "", project: str = "") -> None:
    """Write down what a run is going to do: the resolved plan, and every setting with its origin.

    ``apart`` names something that is made beside the project's own build, of which ``gc`` keeps the newest as well;
    ``project`` is what the project is known by, where not by its folder. All who share the store can read it, so
    passwords that somebody put into addresses are left out.
    """
    named = project or str(build.loaded.base)
    told = {
        "project": f"{named}: {apart}" if apart else named,
        "registry": registry_address(build.loaded),
        "plan": build.plan.dump(),
        "config": build.loaded.config.model_dump(mode="json"),
        "parameters": {name: {"value": one.value, "origin": one.origin} for name, one in build.given.items()},
    }
    write_json(folder / "plan.json", _redacted(told))


def _redacted(told: Any) -> Any:
    if isinstance(told, Mapping):
        return {name: _redacted(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [_redacted(value) for value in told]
    return git.redacted(told) if isinstance(told, str) else told


def _wanted(build: Build, store: Store) -> set[tuple[str, str]]:
    """(type, key) of everything that this plan, or another project's newest run in the same store, stands on, and of
    every package that a registry points to: it may be the release that the next build is held against.
    """
    newest: dict[str, set[tuple[str, str]]] = {}
    # A project whose store went to a bucket may have a registry in a file from before.
    registries = {registry_address(build.loaded), str(build.loaded.home / REGISTRY)}
    for path in store.runs("plan.json"):
        try:
            noted = read_json(path)
            steps = {(str(step["type"]), str(step["key"])) for step in noted["plan"]["steps"]}
            registry = noted.get("registry") or _noted_registry(noted, store)
            newest[str(noted["project"])] = steps
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # the run was killed while it wrote, or it is none of ours: a bucket may hold anything
        registries.add(str(registry))
    newest[str(build.loaded.base)] = {(planned.step.type, planned.key) for planned in build.plan.steps.values()}
    wanted = set().union(*newest.values())
    wanted |= _registered(build.loaded, registries, store)
    for type_, key in list(wanted):
        record = store.record(type_, key)
        if record is not None and record.linked_to:
            wanted.add((type_, record.linked_to))
    return wanted


def _noted_registry(noted: Mapping[str, Any], store: Store) -> str:
    """The registry of a run that did not yet write down where it is."""
    given = noted["config"]["where"]["registry"]
    return str(Path(noted["project"], given) if given else store.root.parent / REGISTRY)


def _registered(loaded: Loaded, registries: Iterable[str], store: Store) -> set[tuple[str, str]]:
    """(type, key) of the artifacts in the store that the registries' current entries point to, and of the data that
    they were taught: the next build may start from one of them, and repeats some of it."""
    from ilab.packaging.registry import is_there, open_registry
    from ilab.sdg.earlier import EARLIER, MIX

    where = loaded.config.where
    entries = [entry for one in registries if is_there(one) for entry in open_registry(one, where).list()]
    places = (store.named(entry.uri.removeprefix("oci:")) for entry in entries)
    packages = {place for place in places if place is not None}
    types = ("taxonomy", "documents", EARLIER, MIX)
    return packages | {(type_, key) for entry in entries for key in entry.lineage.values() for type_ in types}


def collect_garbage(build: Build, engine: Engine, *, dry_run: bool) -> list[dict[str, Any]]:
    """Remove artifacts that no project in this store needs any more, partial work that nobody holds, and the plans of
    old runs on a cluster."""
    store = engine.store
    kept = _wanted(build, store)
    removed: list[dict[str, Any]] = []
    for record in list(store.records()):
        if (record.type, record.key) not in kept:
            path = store.directory(record.type, record.key)
            removed.append({"path": store.address(path), "bytes": store.size(path)})
            if not dry_run:
                store.remove(record)
    for partial in store.partials():
        identity = (partial.parent.name, partial.name.removesuffix(".partial"))
        wanted = identity in kept and store.record(*identity) is None
        if not wanted and not store.held(partial):
            removed.append({"path": store.address(partial), "bytes": store.size(partial)})
            if not dry_run:
                store.remove_partial(partial)
    for outdated in store.outdated_plans():
        removed.append({"path": store.address(outdated), "bytes": store.size(outdated)})
        if not dry_run:
            store.remove_partial(outdated)
    return removed
