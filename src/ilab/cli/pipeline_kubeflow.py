"""``ilab pipeline compile | submit | upload``: the pipeline, for a cluster."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ilab.cli.app import Options
from ilab.cli.building import Asked, building
from ilab.cli.kubeflow_options import (
    SERVER,
    TARGET,
    loaded_for,
    options_of,
    server_of,
    six_fields,
    target_of,
    wanted_of,
)
from ilab.cli.kubeflow_runs import wait_for
from ilab.cli.outputs import output_file
from ilab.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

IR = "# PIPELINE DEFINITION"  # how the compiler begins its file


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
        wait_for(options, server, told, None)


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
