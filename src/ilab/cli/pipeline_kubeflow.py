"""``ilab pipeline`` on a cluster: compile, submit, upload, logs, wait, cancel, and the runs that `status` shows."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ilab.cli.app import Options
from ilab.cli.building import Asked, building
from ilab.cli.outputs import output_file
from ilab.errors import GateError, InputError, ServiceError

if TYPE_CHECKING:
    from ilab.kubeflow.client import Kubeflow
    from ilab.kubeflow.definition import Target
    from ilab.kubeflow.run_details import Run, Task
    from ilab.parameters.infrastructure import Cluster

F = TypeVar("F", bound=Callable[..., Any])

SETTINGS = (
    "host", "token", "ca_file", "namespace", "experiment", "image", "claim", "access_mode", "store", "storage_secret",
    "context",
)  # fmt: skip
SERVER = (
    click.option("--host", metavar="URL", help="Address of the pipeline server.  [config: where.kubeflow.host]"),
    click.option("--token", metavar="REF", help="env:NAME or file:PATH.  [config: where.kubeflow.token]"),
    click.option("--ca-file", metavar="FILE", help="Certificates to trust.  [config: where.kubeflow.ca_file]"),
    click.option("-n", "--namespace", metavar="NAME", help="Project.  [config: where.kubeflow.namespace]"),
    click.option("--experiment", metavar="NAME", help="[config: where.kubeflow.experiment]"),
)
TARGET = (
    click.option("--image", metavar="IMAGE", help="Image of the tasks.  [config: where.kubeflow.image]"),
    click.option("--claim", metavar="NAME", help="Volume that runs share.  [config: where.kubeflow.claim]"),
    click.option(
        "--access-mode",
        metavar="MODE",
        help="ReadWriteMany: for several machines.  [config: where.kubeflow.access_mode]",
    ),
    click.option("--run-store", "store", metavar="s3://…", help="Store of the runs.  [config: where.kubeflow.store]"),
    click.option(
        "--storage-secret", metavar="NAME", help="Keys of its bucket.  [config: where.kubeflow.storage_secret]"
    ),
)
IR = "# PIPELINE DEFINITION"  # how the compiler begins its file
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,300}")
RUN = click.argument("run_id", metavar="RUN")


def options_of(*tables: tuple[Callable[[Any], Any], ...]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed([option for table in tables for option in table]):
            command = option(command)
        return command

    return add


@click.command(name="compile")
@building
@options_of(TARGET)
@click.option("-o", "--output", default="pipeline.yaml", show_default=True, metavar="FILE", help="The file to write.")
@click.pass_obj
def compile_(options: Options, /, asked: Asked, output: str, **given: Any) -> None:
    """Write the pipeline for Kubeflow: import it in the dashboard, or `ilab pipeline upload`.

    The values of parameters become the defaults of the run form.
    """
    path = output_file(options, output, lambda text: text.startswith(IR) and "ilab.kubeflow.tasks" in text)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError("the compiled pipeline is a YAML file", where=output, hint="-o pipeline.yaml")
    made = _compiled(options, asked, given, path)
    options.result({"path": str(path), **made}, f"{path}: {made['tasks']} tasks, {made['inputs']} inputs")


@click.command()
@building
@options_of(SERVER, TARGET)
@click.option("--run-name", metavar="NAME", help="[default: pipeline and time]")
@click.option("--recurring", metavar="CRON", help="Run at these times, as '0 2 * * *'; six fields: seconds first.")
@click.option("--wait", "waits", is_flag=True, help="Stay until it has ended.")
@click.option("--dry-run", is_flag=True, help="Compile and say what would be sent; send nothing.")
@click.option("--context", metavar="NAME", help="Whose ConfigMap is read.  [config: where.kubeflow.context]")
@click.option("--no-config-map", is_flag=True, help="Do not read the ConfigMap now; the run reads it all the same.")
@click.pass_obj
def submit(options: Options, /, asked: Asked, run_name: str | None, recurring: str | None, **given: Any) -> None:
    """Run the pipeline on a cluster.

    What -p and --parameters give goes before the ConfigMap; all else the run takes from the ConfigMap as it is when the
    run begins, also a recurring one.
    """
    waits, dry, unread = (given.pop(name) for name in ("waits", "dry_run", "no_config_map"))
    if recurring and waits:
        raise InputError("--wait and --recurring exclude each other")
    recurring = six_fields(recurring) if recurring else None
    loaded = loaded_for(options, asked, given)
    values = {name: value for layer in (*loaded.given.values(), asked.values) for name, value in layer.items()}
    name = run_name or f"{loaded.config.pipeline.removesuffix('.yaml')} {time.strftime('%Y-%m-%d %H:%M')}"
    place = loaded.config.where.kubeflow
    shape = {} if unread else _as_patched(loaded, values)
    with tempfile.TemporaryDirectory(prefix="ilab-") as folder:
        package = Path(folder) / "pipeline.yaml"
        made = _compiled(options, asked, given, package, tuple(sorted(values)), shape)
        arguments = {key: value for key, value in made["form"].items() if key in values}
        if dry:
            sent: dict[str, Any] = {
                "run": name,
                "host": place.host,
                "namespace": place.namespace,
                "experiment": place.experiment,
            }
            sent |= {"recurring": recurring, "arguments": arguments, "config_map": shape, **made}
            options.result(sent, "\n".join(_would_send(sent)))
            return
        server = server_of(loaded)
        if recurring:
            told = server.recur(package, name, place.experiment, recurring, arguments)
            options.result({"recurring": told}, f"{told} runs {name!r} at {recurring}")
            return
        told = server.submit(package, name, place.experiment, arguments)
    options.result({"run": told, "name": name}, f"{told} {name!r}\nTo follow it: ilab pipeline wait {told}")
    if waits:
        _wait(options, server, told, None)


@click.command()
@building
@options_of(SERVER, TARGET)
@click.option("--name", default="instructlab", show_default=True, help="The pipeline's name in the dashboard.")
@click.option("--version", "version", metavar="NAME", help="[default: this ilab's version and the time]")
@click.pass_obj
def upload(options: Options, /, asked: Asked, name: str, version: str | None, **given: Any) -> None:
    """Put the pipeline into the dashboard, as a new version."""
    from ilab import __version__

    version = version or f"{__version__} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    loaded = loaded_for(options, asked, given)
    with tempfile.TemporaryDirectory(prefix="ilab-") as folder:
        package = Path(folder) / "pipeline.yaml"
        _compiled(options, asked, given, package)
        told = server_of(loaded).upload(package, name, version)
    options.result({"version_id": told, "pipeline": name, "version": version}, f"{name}, version {version}")


def show_runs(options: Options, asked: Asked, run_id: str | None, given: dict[str, Any]) -> None:
    """The newest runs on the cluster; of one run every task."""
    from rich.table import Table

    from ilab.cli.render import console

    loaded = loaded_for(options, asked, given)
    server = server_of(loaded)
    found = [server.run(run_id)] if run_id else server.runs(loaded.config.where.kubeflow.experiment)
    if options.as_json:
        options.result([_json(run) for run in found])
        return
    if not found:
        click.echo(f"No runs yet in the experiment {loaded.config.where.kubeflow.experiment}: ilab pipeline submit")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "state", "seconds") if run_id else ("run", "name", "state"):
        table.add_column(column, overflow="fold")
    if run_id:
        for task in found[0].tasks:
            table.add_row(task.name, task.state, "" if task.seconds is None else f"{task.seconds:.0f}")
    else:
        for run in found:
            table.add_row(run.id, run.name, run.state)
    console().print(table)


@click.command()
@options_of(SERVER)
@RUN
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Give up after so long; the run goes on.")
@click.pass_obj
def wait(options: Options, /, run_id: str, timeout: float | None, **given: Any) -> None:
    """Follow a run until it has ended. Exit code 0 where it succeeded, 4 where a task failed, 5 at the gate."""
    _wait(options, server_of(loaded_for(options, Asked(), given)), run_id, timeout)


@click.command()
@options_of(SERVER)
@RUN
@click.argument("task", required=False, metavar="[TASK]")
@click.pass_obj
def logs(options: Options, /, run_id: str, task: str | None, **given: Any) -> None:
    """What the tasks of a run printed; of one TASK alone, by its name in `ilab pipeline status RUN`."""
    server = server_of(loaded_for(options, Asked(), given))
    run = server.run(run_id)
    chosen = [one for one in run.tasks if task is None or task in (one.name, one.step)]
    if not chosen:
        known = ", ".join(one.name for one in run.tasks) or "none yet"
        raise InputError(f"the run has no task {task!r}", where=run_id, hint=f"its tasks: {known}")
    for one in chosen:
        for line in server.log(run_id, one):
            click.echo(f"{one.name}: {line}" if task is None else line)


@click.command()
@options_of(SERVER)
@click.option("--context", metavar="NAME", help="Where its training is.  [config: where.kubeflow.context]")
@RUN
@click.pass_obj
def cancel(options: Options, /, run_id: str, **given: Any) -> None:
    """Stop a run, and delete its training jobs. What it made stays, and the next run goes on from there."""
    from ilab.kubeflow.training_jobs import end_jobs_of

    loaded = loaded_for(options, Asked(), given)
    server_of(loaded).cancel(run_id)
    place = loaded.config.where.kubeflow
    ended, note = end_jobs_of(run_id, place.namespace, place.host, place.context)
    lines = [f"{run_id} is being stopped", *(f"{job} is deleted" for job in ended)]
    if note:
        click.echo(f"note: {note}", err=True)
    options.result({"run": run_id, "state": "canceling", "deleted": ended}, "\n".join(lines))


def _wait(options: Options, server: Kubeflow, run_id: str, timeout: float | None) -> None:
    run = follow(server, run_id, timeout)
    options.result(_json(run), f"{run.id}: {run.state.lower()}")
    must_have_succeeded(server, run)


def follow(server: Kubeflow, run_id: str, timeout: float | None = None) -> Run:
    """The run when it has ended; until then what its tasks do is said."""
    shown: dict[str, str] = {}

    def seen(run: Run) -> None:
        for task in run.tasks:
            if shown.get(task.name) != task.state:
                shown[task.name] = task.state
                took = f" ({task.seconds:.0f} s)" if task.seconds is not None else ""
                click.echo(f"{task.name}: {task.state.lower()}{took}", err=True)

    return server.wait(run_id, timeout, seen)


def must_have_succeeded(server: Kubeflow, run: Run) -> None:
    """Raises GateError where the gate ended a run, ServiceError where something else did."""
    if run.state == "SUCCEEDED":
        return
    failed = [task for task in run.tasks if task.state == "FAILED"]
    if any(_gate_said_no(server, run.id, task) for task in failed):
        raise GateError(
            "the run ended before packaging", hint="the report of the task Results says what the gate found"
        )
    where = f" at {failed[0].name}" if failed else ""
    task = f" {failed[0].step}" if failed and failed[0].step else ""
    raise ServiceError(
        f"the run ended as {run.state.lower()}{where}{f': {run.error}' if run.error else ''}",
        where=run.id,
        hint=f"ilab pipeline logs {run.id}{task}; submitted again it goes on from what is made",
    )


def _gate_said_no(server: Kubeflow, run_id: str, task: Task) -> bool:
    """Whether a task ended with the gate's exit code, by its log; packaging whose log is gone is taken for it."""
    from ilab.kubeflow.tasks import ENDED

    code = None
    try:
        for line in server.log(run_id, task):
            _, mark, rest = line.partition(ENDED)
            code = rest.partition(";")[0].strip() if mark else code
    except ServiceError:
        pass
    return task.step == "package" if code is None else code == str(GateError.exit_code)


def six_fields(cron: str, where: str = "--recurring") -> str:
    """``cron`` as Kubeflow takes it: seconds first, Sunday is 0. Raises InputError for what is no time."""
    from ilab.core.cron import read_cron

    fields = cron.split()
    seconds, rest = (fields[0], " ".join(fields[1:])) if len(fields) == 6 else ("0", cron)
    try:
        times = read_cron(rest)
    except InputError as error:
        error.where = where
        raise
    *days, weekday = times.text.split()
    if "7" in weekday:
        weekday = ",".join(map(str, sorted(times.weekdays)))
    return " ".join((seconds, *days, weekday))


def _json(run: Run) -> dict[str, Any]:
    tasks = [{"name": task.name, "state": task.state, "seconds": task.seconds} for task in run.tasks]
    return {"run": run.id, "name": run.name, "state": run.state, "error": run.error, "tasks": tasks}


def loaded_for(options: Options, asked: Asked, given: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Any:
    """The configuration with the options of SERVER and TARGET; ``more`` are settings by their dotted paths."""
    flags = {f"where__kubeflow__{name}": given.get(name) for name in SETTINGS}
    return asked.load(options, **flags, **{path.replace(".", "__"): value for path, value in (more or {}).items()})


def _as_patched(loaded: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """What Kubeflow fixes when a run is made (volume, kinds of pods), as the ConfigMap has it; nothing else is taken
    from it here, since the run reads it itself. ``values`` are the run's own, which go before it.

    From where it was read is told; notes say which settings of this machine reach no pod, and what a run would miss.
    Raises InputError(s) for what the ConfigMap has and a run would end at.
    """
    from ilab.actions import parameters_of
    from ilab.kubeflow.configmap import read_as_user
    from ilab.kubeflow.nights import patched
    from ilab.kubeflow.settings import not_in_pods, read_document
    from ilab.kubeflow.tasks import FIXED, SHAPES
    from ilab.parameters.files import CONFIG_MAP, SETTINGS_KEY

    place = loaded.config.where.kubeflow
    live = read_as_user(CONFIG_MAP, place.namespace, place.host, place.context)
    if live.note:
        click.echo(f"note: {live.note}; volume and GPUs are asked for as they are set here", err=True)
    else:
        click.echo(f"ConfigMap {CONFIG_MAP}: {live.place}", err=True)
    only_here = [] if live.note else not_in_pods(loaded.origins, read_document(live.settings, CONFIG_MAP))
    if only_here:
        how = f"oc set data configmap/{CONFIG_MAP} --from-file={SETTINGS_KEY}=FILE, which holds `where:`"
        click.echo(f"note: {', '.join(only_here)}: set here, and in no pod; for the pods: {how}", err=True)
    found = {row["name"]: row["value"] for row in parameters_of(patched(loaded, live), values)}
    for note in _missing(found):
        click.echo(f"note: {note}", err=True)
    return {name: found[name] for name in (*FIXED, *SHAPES) if name in live.values and name not in values}


def _missing(values: Mapping[str, Any]) -> Iterator[str]:
    """What a run ends at after its pods have started, though it can be seen before."""
    from ilab.core.git import is_url

    later = "the run ends in its first task, unless the ConfigMap has it by then"
    if not values["sdg_base_model"]:
        yield f"there is no base model (-p sdg_base_model=s3://BUCKET/MODEL): {later}"
    if not is_url(str(values["sdg_repo_url"] or "")):
        taxonomy = values["sdg_repo_url"] or "(none)"
        yield f"pods cannot see this taxonomy: {taxonomy} (-p sdg_repo_url=https://HOST/NAME.git): {later}"


def _would_send(told: Mapping[str, Any]) -> Iterator[str]:
    """What a dry run shows, by line."""
    when = f" at {told['recurring']}" if told["recurring"] else ""
    yield f"would run {told['run']!r}{when}: {told['tasks']} tasks"
    for name in ("host", "namespace", "experiment", "image"):
        yield f"{name}: {told[name] or '(none)'}"
    for name, value in told["arguments"].items():
        yield f"{name} = {value}  (given to the run)"
    for name, value in told["config_map"].items():
        yield f"{name} = {value}  (ConfigMap)"


def server_of(loaded: Any) -> Kubeflow:
    """The pipeline server of the settings; in a pod without any, the one of its namespace."""
    from ilab.kubeflow.client import Connection, Kubeflow, of_this_pod

    place = loaded.config.where.kubeflow
    host, ca_file = (place.host, "") if place.host else of_this_pod()
    ca_file = str(loaded.path(place.ca_file)) if place.ca_file else ca_file
    return Kubeflow(Connection(host, place.token, place.namespace, ca_file))


def _compiled(
    options: Options,
    asked: Asked,
    given: dict[str, Any],
    path: Path,
    names: tuple[str, ...] = (),
    shape: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compile to ``path``; what there is to tell of it, the form's values. ``names``: what this very run is given;
    ``shape``: of :func:`_as_patched`.
    """
    from ilab.kubeflow.client import need_kfp

    need_kfp()
    from ilab.actions import parameters_of, pipeline_of
    from ilab.kubeflow.definition import compile_to, defaults, kubeflow_pipeline

    loaded = loaded_for(options, asked, given)
    target = target_of(loaded, names, shape)
    values = {row["name"]: row["value"] for row in parameters_of(loaded, asked.values)}
    pipeline = pipeline_of(loaded)
    path.parent.mkdir(parents=True, exist_ok=True)
    compile_to(path, kubeflow_pipeline(pipeline, values, wanted_of(values, target), target))
    return {"tasks": len(pipeline.steps) + 4, "inputs": len(values), "image": target.image, "form": defaults(values)}


def target_of(loaded: Any, names: tuple[str, ...] = (), shape: Mapping[str, Any] | None = None) -> Target:
    """What a pipeline is compiled for; ``names`` are the parameters that this very run is given, ``shape`` is of
    :func:`_as_patched`.
    """
    from ilab.kubeflow.definition import Target

    place, train = loaded.config.where.kubeflow, loaded.config.where.train
    image = place.image or train.kubernetes.image
    if not image:
        hint = "--image REGISTRY/NAME:TAG, or ilab config set where.kubeflow.image …; deploy/Containerfile makes one"
        raise InputError("there is no image for the tasks", where="where.kubeflow.image", hint=hint)
    if not IMAGE.fullmatch(image):
        raise InputError(f"no name of an image: {image!r}", where="where.kubeflow.image", hint="REGISTRY/NAME:TAG")
    if place.store and not place.store.startswith("s3://"):
        raise InputError(
            f"no address of a bucket: {place.store}", where="where.kubeflow.store", hint="s3://BUCKET/PREFIX"
        )
    return Target(
        image=image,
        environment=loaded.config.environment,
        claim=place.claim,
        store=place.store,
        storage_secret=place.storage_secret,
        given=names,
        shape=shape or {},
        access_mode=place.access_mode,
        launcher="" if train.launcher == "here" else train.launcher,
    )


def wanted_of(values: Mapping[str, Any], target: Target) -> Cluster:
    """What a run asks of the cluster. A note says where fewer machines train than are asked for."""
    from ilab.kubeflow.volume import HOW, machines
    from ilab.parameters.infrastructure import cluster

    wanted = cluster({**values, **target.shape})
    if note := machines(wanted, target.several)[1]:
        click.echo(f"note: {note}; for as many machines: {HOW}", err=True)
    return wanted
