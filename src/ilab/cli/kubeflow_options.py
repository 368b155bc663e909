"""The options of commands that are about a pipeline server, and what they lead to: settings, server, target."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ilab.cli.app import Options
from ilab.cli.building import Asked
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.kubeflow.client import Kubeflow
    from ilab.kubeflow.definition import Target
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
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,300}")


def options_of(*tables: tuple[Callable[[Any], Any], ...]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed([option for table in tables for option in table]):
            command = option(command)
        return command

    return add


def loaded_for(options: Options, asked: Asked, given: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Any:
    """The configuration with the options of SERVER and TARGET; ``more`` are settings by their dotted paths."""
    flags = {f"where__kubeflow__{name}": given.get(name) for name in SETTINGS}
    return asked.load(options, **flags, **{path.replace(".", "__"): value for path, value in (more or {}).items()})


def server_of(loaded: Any) -> Kubeflow:
    """The pipeline server of the settings; in a pod without any, the one of its namespace."""
    from ilab.kubeflow.client import Connection, Kubeflow, of_this_pod

    place = loaded.config.where.kubeflow
    host, ca_file = (place.host, "") if place.host else of_this_pod()
    ca_file = str(loaded.path(place.ca_file)) if place.ca_file else ca_file
    return Kubeflow(Connection(host, place.token, place.namespace, ca_file))


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
