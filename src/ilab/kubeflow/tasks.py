"""What the tasks of a compiled pipeline do, inside of a pod (or of ``kfp.local``).

Between tasks goes one folder, the artifact ``plan``: ``pipeline.yaml`` (the graph that was compiled), ``ilab.yaml``
(the settings of this run, secrets by reference) and ``plan.json`` (every key). It is a project's folder, so ``ilab -C``
works there.

Parameters, lowest first: defaults of the environment, the pipeline file, what the pipeline was compiled with, the
ConfigMap as it is now, the run form. A form always holds all values; one that equals what the pipeline was compiled
with counts as not given, so that a patched ConfigMap takes effect in recurring runs and in runs from the dashboard.
What `ilab pipeline submit` was given (``Compiled.given``) counts always. Settings about *where* are the cluster's own
(:mod:`ilab.kubeflow.settings`), under what a run sets itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ilab.config import S3
from ilab.core.trust import trust_bundle
from ilab.kubeflow.configmap import read_live
from ilab.kubeflow.kept import Kept
from ilab.kubeflow.pods import outputs, shaped
from ilab.kubeflow.secret_names import LOGINS, TAXONOMY, secret_names
from ilab.kubeflow.settings import parsed, read_document, where_of_run
from ilab.kubeflow.training_jobs import end_left, launcher_of
from ilab.kubeflow.volume import machines
from ilab.packaging import changelog
from ilab.parameters import BY_NAME, collect
from ilab.where import METRICS_PORT

if TYPE_CHECKING:
    from ilab.actions import Build
    from ilab.config import Loaded
    from ilab.parameters import Given

PLAN, SETTINGS, GRAPH = KEPT = ("plan.json", "ilab.yaml", "pipeline.yaml")
FIXED = ("k8s_storage_class_name", "k8s_storage_size")  # KFP makes the volume before the first task runs
SERVERS = {"teacher": "ILAB_TEACHER", "judge": "ILAB_JUDGE"}  # role -> prefix of the variables its Secret gives
IMPORTED = ("s3://", "gs://", "minio://", "oci://")  # what Kubeflow's importer takes; a run fails with any other
SHAPES = ("train_num_workers", "train_gpu_per_worker", "train_gpu_identifier", "eval_gpu_identifier")  # of the pods
IN_CLUSTER = "KUBERNETES_SERVICE_HOST"  # a variable that every pod has
SSH_KEY = "ssh-privatekey"  # its key, in a Secret of the type kubernetes.io/ssh-auth
ENDED = "ilab step run ended with "  # in the log of a task that failed; the exit code follows
METRICS = {"port": METRICS_PORT, "address": "0.0.0.0", "linger": 35}  # noqa: S104 - Prometheus asks from another pod


class TaskFailedError(RuntimeError):
    """The task's command ended with an error, which it has told already."""


@dataclass(frozen=True)
class Compiled:
    """What was fixed when the pipeline was compiled: the graph's text, the environment, every default of the form."""

    definition: str
    environment: str
    defaults: Mapping[str, Any]
    config_map: str
    root: str  # folder of the run's volume, for what is no artifact
    run: str  # the run's id
    store: str
    given: Sequence[str] = ()  # parameters that `ilab pipeline submit` was given
    fixed: Mapping[str, Any] = field(default_factory=dict)  # what FIXED and SHAPES were when the run was made
    several: bool = False  # whether several machines see the volume at once
    launcher: str = ""  # kind of training jobs; empty: what the cluster knows


def resolve(form: Mapping[str, Any], compiled: Compiled, folder: Path) -> dict[str, Any]:
    """Write the artifact ``plan`` into ``folder``; returns what pods get, by name of the task's output."""
    from ilab.actions import prepare
    from ilab.brought import carry
    from ilab.core.files import write_json, write_text
    from ilab.parameters.infrastructure import cluster
    from ilab.where import in_cluster

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / GRAPH, compiled.definition)
    trust_bundle()
    show_key()
    _keep_on_volume(str(Path(compiled.root, "cache")))
    live = read_live(compiled.config_map)
    document, own = read_document(live.settings, compiled.config_map), _where(compiled)
    given = _given(form, compiled.defaults, compiled.given)
    settings: dict[str, Any] = {"environment": compiled.environment, "pipeline": GRAPH}
    settings["where"] = where_of_run(document, own)
    write_text(folder / SETTINGS, yaml.safe_dump(settings, sort_keys=False))
    loaded = _load(folder)
    before = {name: value for name, value in _compiled(loaded, compiled).items() if name not in given}
    layers = {"compiled": before, f"ConfigMap {compiled.config_map}": live.values, "run": given}
    build = prepare(replace(loaded, given=layers))
    carry(build.plan, folder)
    values = {name: one.value for name, one in build.given.items()}
    now, single = machines(cluster(values), compiled.several)
    then, _ = machines(cluster({**compiled.defaults, **compiled.fixed}), compiled.several)
    if IN_CLUSTER in os.environ:
        named = compiled.launcher or loaded.config.where.train.launcher
        launcher = launcher_of(named) if max(now.trainers, then.trainers) > 1 else "TrainJob"
        own["train"] = {"launcher": "here", **in_cluster(now, launcher, as_job=then.trainers > 1)}
        settings["where"] = where_of_run(document, own)
    write_text(folder / SETTINGS, yaml.safe_dump({**settings, "parameters": pinned(build)}, sort_keys=False))
    write_json(folder / PLAN, build.plan.dump())
    Kept(compiled.store, compiled.root, compiled.run).keep(folder, KEPT, loaded.config.where)
    _note(build)
    told = (*_unheard(values, compiled.fixed), *shaped(now, then), *_told(build.given))
    for line in (live.note, *build.notes, single, *told):
        if line:
            print(line, flush=True)  # noqa: T201 - a task's log is what it prints
    model = values["sdg_base_model"]
    return {
        **outputs(now, then),
        **secret_names(values),
        "base_model": model if model.startswith(IMPORTED) else "",
    }


def _keep_on_volume(cache: str) -> None:
    """Have models that are fetched kept on the run's volume too, which has room for them; the image's disk has not."""
    os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or cache


def _note(build: Build) -> None:
    """Write the plan into the store as every run does, or whoever types `ilab gc` takes this run's results for old."""
    from ilab.actions import note_run
    from ilab.core.run import run_folder
    from ilab.transfer.stores import open_store

    values = build.given
    store = open_store(build.loaded)
    try:
        # A task's folder is another in each run; the taxonomy and the model are what the next run has again.
        project = f"kubeflow: {values['sdg_repo_url'].value} {values['output_model_name'].value}"
        note_run(build, run_folder(store), project=project)
    finally:
        store.close()


def find_secrets(
    form: Mapping[str, Any], config_map: str, defaults: Mapping[str, Any], given: Sequence[str]
) -> dict[str, str]:
    """The names of Secrets as the run form and the live ConfigMap give them; see :func:`secret_names`.

    ``defaults`` are those of the form, ``given`` the parameters that this very run was given.
    """
    live = read_live(config_map)
    if live.note:
        print(live.note, flush=True)  # noqa: T201
    patched = {name: live.values[name] for name in form if name in live.values}
    layers = {"compiled": defaults, f"ConfigMap {config_map}": patched, "run": _given(form, defaults, given)}
    return secret_names({name: one.value for name, one in collect(layers).items()})


def pinned(build: Build) -> dict[str, Any]:
    """The parameters as resolved, the taxonomy at the commit that was found: another pod finds the same."""
    values = {name: one.value for name, one in build.given.items()}
    for name in ("sdg_pipeline", "sdg_teacher_model", "sdg_teacher_family"):
        values[name] = build.plan.parameters[name]
    taxonomy = next((step.step for step in build.plan.steps.values() if step.step.type == "taxonomy"), None)
    found = build.plan.found.get(getattr(taxonomy, "tree", ""))
    from ilab.core.git import is_url, split_ref

    if found is not None and found.revision and is_url(values["sdg_repo_url"]):
        address = split_ref(values["sdg_repo_url"])[0]
        values |= {"sdg_repo_url": f"{address}#{found.revision}", "sdg_repo_branch": "", "sdg_repo_pr": 0}
    return values


def run_step(folder: Path, name: str) -> None:
    """Make one step: the same command as by hand. Raises TaskFailedError; signals go on to the command."""
    trust_bundle()
    show_key()
    _keep_on_volume(str(_load(folder).config.where.cache))
    arguments = ["-C", str(folder), "--config", "DEFAULT", "step", "run", "--plan", str(folder / PLAN), "--step", name]
    _command(arguments)


@dataclass(frozen=True)
class Outputs:
    """What ``results`` fills: the four outputs of a run, the pages of its report and of a nightly run's changelog."""

    trained_model: Path
    evaluation_results: Path
    training_logs: Path
    artifacts: Path
    report: Path
    changelog: Path | None = None


def results(folder: Path, out: Outputs) -> dict[str, float]:
    """Copy what a run gives out of the store; returns figures for KFP's page. The gate has spoken, maybe with no."""
    from ilab.core.files import read_json

    trust_bundle()
    _, made, page, beside_it = _drawn(folder)
    for name, (source, target) in {
        "select-phase-2": ("model", out.trained_model),
        "final-evaluation": (".", out.evaluation_results / "final-evaluation"),
        "gate": (".", out.evaluation_results / "gate"),
        "train-phase-1": ("metrics.jsonl", out.training_logs / "train-phase-1.jsonl"),
        "train-phase-2": ("metrics.jsonl", out.training_logs / "train-phase-2.jsonl"),
    }.items():
        if name in made:
            _copy(made[name] / source, target)
    for name in (PLAN, SETTINGS, GRAPH):
        _copy(folder / name, out.artifacts / name)
    _copy(beside_it / "checkpoints", out.artifacts / "checkpoints")  # output_save_checkpoints
    if page is not None:
        _copy(page, out.report)
        for beside in ("report.json", "metrics.csv", "metrics.json", changelog.NAME, changelog.PAGE):
            if (page.parent / beside).is_file():
                _copy(page.parent / beside, out.evaluation_results / beside)
        if out.changelog is not None:
            _copy(page.parent / changelog.PAGE, out.changelog)
    gate = read_json(made["gate"] / "report.json") if "gate" in made else {}
    figures = {"score": gate.get("score"), "passed": float(gate.get("outcome") == "pass") if gate else None}
    for name, contents in made.items():
        record = read_json(contents / "record.json")
        figures[f"{name}: seconds"] = record["seconds"]
        figures |= {f"{name}: {key}": value for key, value in record["counts"].items()}
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def links(folder: Path) -> dict[str, str]:
    """What the dashboard finds a run's model in the Model Registry by; nothing where it was not registered. A registry
    that cannot be asked makes a line in the log: the model is registered all the same."""
    from ilab.errors import IlabError
    from ilab.packaging.sinks import links_of
    from ilab.transfer.stores import open_store

    build = _build(folder)
    store, planned = open_store(build.loaded), build.plan.steps.get("register")
    if planned is None or store.record(planned.step.type, planned.key) is None:
        return {}
    name, version = (str(build.plan.parameters[f"output_model_{what}"]) for what in ("name", "version"))
    try:
        return links_of(build.where, name, version)
    except IlabError as error:
        print(f"the model is not linked to the Model Registry: {error.message}")  # noqa: T201
        return {}


def finish(kept: Kept, config_map: str, state: str, error: str) -> None:
    """The last word of a run, whatever became of it: its state, the report if it came that far, what to type."""
    print(f"the run ended: {state}{f': {error}' if error else ''}", flush=True)  # noqa: T201
    if IN_CLUSTER in os.environ:
        end_left(kept.run)
    trust_bundle()
    where = parsed(read_document(read_live(config_map).settings, config_map))
    folder = kept.found(KEPT, where, Path(tempfile.mkdtemp(prefix="ilab-plan-")))
    if not (folder / PLAN).is_file():
        print("nothing was planned: look at the log of the task `resolve`")  # noqa: T201
        return
    build, made, page, _ = _drawn(folder)
    missing = [name for name in build.plan.steps if name not in made]
    print(f"made: {len(made)} of {len(build.plan.steps)} steps; the same run again goes on from here")  # noqa: T201
    if missing:
        print(f"not made: {', '.join(missing)}")  # noqa: T201
    if page is not None:
        print(f"report: {page}")  # noqa: T201


def _drawn(folder: Path) -> tuple[Build, dict[str, Path], Path | None, Path]:
    """The build of ``folder``, the contents of every step that is made, the report's page (maybe that of an earlier run
    that shows the same), and the folder of what this run keeps beside it.
    """
    from ilab.core.files import read_json
    from ilab.core.run import Engine, run_folder
    from ilab.nightly import write_papers
    from ilab.outcome import draw_report
    from ilab.transfer.stores import open_store

    build = _build(folder)
    engine = Engine(open_store(build.loaded), build.where)
    try:
        made = {
            name: engine.store.contents(record)
            for name, planned in build.plan.steps.items()
            if (record := engine.store.record(planned.step.type, planned.key)) is not None
        }
        own = run_folder(engine.store)
        page = draw_report(build, engine, own)
        if page is not None and "changelog" in made:
            name, version = (str(build.plan.parameters[f"output_model_{what}"]) for what in ("name", "version"))
            told = read_json(made["changelog"] / "report.json")[changelog.KEY]
            write_papers(told, (name, version), page.parent)
        return build, made, page, own
    finally:
        engine.close()


def _build(folder: Path) -> Build:
    from ilab.actions import Build, absolute_where
    from ilab.core.files import read_json
    from ilab.core.pipeline import Plan
    from ilab.steps import STEPS

    loaded = _load(folder)
    plan = Plan.load(read_json(folder / PLAN), STEPS)
    given = collect(loaded.parameters(), loaded.config.environment)
    return Build(loaded, plan, given, absolute_where(loaded, plan.parameters), ())


def _load(folder: Path) -> Loaded:
    from ilab.config import load

    loaded = load(folder, user=None)
    package = loaded.config.where.package
    if package.logins == str(LOGINS) and not LOGINS.exists():  # the last task has no Secrets
        where = loaded.config.where.model_copy(update={"package": package.model_copy(update={"logins": ""})})
        loaded = replace(loaded, config=loaded.config.model_copy(update={"where": where}))
    return loaded


def _given(form: Mapping[str, Any], defaults: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """What the run itself gives: of a form, which always holds all values, those that somebody changed."""
    return {name: _value(name, value) for name, value in form.items() if name in given or value != defaults[name]}


def _where(compiled: Compiled) -> dict[str, Any]:
    """The settings about where of this run's pods. Of a Secret only the name of a variable stands here."""
    root = Path(compiled.root)
    where: dict[str, Any] = {"store": compiled.store, "cache": str(root / "cache")}
    if not compiled.store.startswith(S3):  # else it is in the bucket too
        where["registry"] = str(root / "registry.sqlite")
    for role, prefix in SERVERS.items():
        if url := os.environ.get(f"{prefix}_ENDPOINT"):
            token = f"env:{prefix}_TOKEN" if os.environ.get(f"{prefix}_TOKEN") else ""
            where[role] = {"url": url, "model": os.environ.get(f"{prefix}_MODEL", ""), "api_key": token}
    if (LOGINS / ".dockerconfigjson").is_file():
        where["package"] = {"logins": str(LOGINS)}
    if IN_CLUSTER in os.environ:
        where["monitoring"] = METRICS
    return where


def show_key() -> None:
    """Tell git of the key that the taxonomy's Secret holds, if it holds one. A command that is started knows it too."""
    if (TAXONOMY / SSH_KEY).is_file():
        os.environ.setdefault("GIT_SSH_KEY", str(TAXONOMY / SSH_KEY))


def _compiled(loaded: Loaded, compiled: Compiled) -> dict[str, Any]:
    """What whoever compiled the pipeline gave, beside what environment and pipeline file say."""
    from ilab.actions import parameters_of
    from ilab.kubeflow.definition import defaults

    usual = defaults({row["name"]: row["value"] for row in parameters_of(loaded, {})})
    return {name: _value(name, value) for name, value in compiled.defaults.items() if value != usual[name]}


def _value(name: str, value: Any) -> Any:
    """A value of the form; where a parameter may have none, empty text is none."""
    return None if value == "" and BY_NAME[name].default is None else value


def _unheard(values: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[str]:
    """What somebody patched since this run was submitted, and comes too late for it."""
    return [
        f"{name} is {values[name]} now, but this run was made with {fixed[name] or 'none'} and keeps it; submit again "
        "for the other: ilab pipeline submit"
        for name in FIXED
        if name in fixed and str(values[name]) != str(fixed[name])
    ]


def _told(given: Mapping[str, Given]) -> list[str]:
    return [f"{name} = {one.value}  ({one.origin})" for name, one in given.items() if one.origin != "default"]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        shutil.copyfile(source, target)


def _command(arguments: list[str]) -> None:
    # A session of its own: a signal to the pod's whole group would reach it twice, and the second means `at once`.
    child = subprocess.Popen([sys.executable, "-m", "ilab", *arguments], start_new_session=True)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, lambda caught, _frame: child.send_signal(caught))
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        raise TaskFailedError(f"{ENDED}{code}; what was wrong stands above")
