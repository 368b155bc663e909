"""Nightly builds on a cluster: where its nights meet, how their runs are known again, and the task that begins them.

    the caller      a CronJob's pod, the task of a recurring run, or a laptop: decides, submits, waits, moves channels
    the run         named ``MODEL VERSION nightly``: the cut pipeline, every parameter as it was decided

Store and registry are the only memory. Both lie where the caller and the pods of every night see them: in a bucket, or
on a volume claim, which the caller has to have at the same place. The name of a run is what a caller that comes after
one that died knows it by.

(No annotation here is text: kfp reads those of a component as they are.)
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab.config import Loaded
from ilab.core import trust
from ilab.core.git import is_url
from ilab.errors import InputError
from ilab.kubeflow import definition
from ilab.kubeflow.configmap import Live, read_as_user
from ilab.kubeflow.secret_names import LOGINS, MOUNTED, SECRETS, STORAGE, TOKENS
from ilab.kubeflow.settings import parsed, read_document
from ilab.kubeflow.tasks import SERVERS
from ilab.parameters.files import CONFIG_MAP
from ilab.training.pods import TOKEN_VARIABLES, TOKENS_SECRET

if TYPE_CHECKING:
    from ilab.kubeflow.run_details import Run

NAME = "instructlab-nightly"  # the pipeline that a recurring run begins
LITTLE, MUCH = {"cpu": "100m", "memory": "512Mi"}, {"cpu": "1", "memory": "4Gi"}  # what the caller's task asks for
TO_SHARE = "--run-store s3://BUCKET/PREFIX, or ilab config set where.kubeflow.store s3://BUCKET/PREFIX"
_NIGHT = "(?P<version>[0-9]\\S*) nightly"


def run_name(model: str, version: str) -> str:
    return f"{model} {version} nightly"


def newest(runs: Sequence["Run"], model: str) -> "tuple[Run, str] | None":
    """The newest nightly run of a model among ``runs`` (newest first), and the version that it builds."""
    for run in runs:
        if match := re.fullmatch(re.escape(model) + " " + _NIGHT, run.name):
            return run, match["version"]
    return None


def shared(loaded: Loaded) -> Loaded:
    """The configuration with store and registry where the pods of every night have them.

    Raises ``InputError`` where nothing is shared, or what is shared is not here.
    """
    place, where = loaded.config.where.kubeflow, loaded.config.where
    store = place.store or loaded.bucket
    if store:
        if where.registry and "://" not in where.registry:
            raise InputError(
                "the nights on a cluster have their registry in the store that they share, and this is a file",
                where="where.registry",
                hint="--set where.registry=",
            )
        update: dict[str, Any] = {"store": store, "kubeflow": place.model_copy(update={"store": store})}
    elif place.claim:
        root = Path(definition.VOLUME)
        if not root.is_dir():
            raise InputError(
                f"the volume {place.claim} is not here: whoever decides what is built has to see the store",
                where=str(root),
                hint=f"call it in a pod that has the claim mounted there, or share a bucket: {TO_SHARE}",
            )
        update = {"store": str(root / "store"), "registry": str(root / "registry.sqlite")}
    else:
        raise InputError(
            "the nights on a cluster share no store: each would know nothing of the one before",
            where="where.kubeflow.store",
            hint=TO_SHARE,
        )
    config = loaded.config
    return replace(loaded, config=config.model_copy(update={"where": config.where.model_copy(update=update)}))


def live_of(loaded: Loaded) -> Live:
    """The ConfigMap as it is now."""
    place = loaded.config.where.kubeflow
    return read_as_user(CONFIG_MAP, place.namespace, place.host, place.context)


def of_pods(loaded: Loaded, live: Live) -> dict[str, Any]:
    """Settings that ``loaded`` has not and pods have, by their paths: teacher, judge and logins of their Secrets, and
    the groups of the cluster's own settings. Raises ``InputError`` for a document that is none.
    """
    given = {path.split(".")[1] for path in loaded.origins if path.startswith("where.")}
    document = read_document(live.settings, CONFIG_MAP)
    parsed(document)  # raises for what is none
    groups = document.tree.get("where", {}).items()
    found = {f"where.{group}": value for group, value in groups if group not in given and value is not None}
    for role, prefix in SERVERS.items():
        url = os.environ.get(f"{prefix}_ENDPOINT")
        if url and role not in given:
            token = f"env:{prefix}_TOKEN" if os.environ.get(f"{prefix}_TOKEN") else ""
            said = {"url": url, "model": os.environ.get(f"{prefix}_MODEL", ""), "api_key": token}
            below = found.get(f"where.{role}", {})
            below = below if "url" not in below else {}
            found[f"where.{role}"] = {**below, **{name: value for name, value in said.items() if value}}
        elif "url" not in found.get(f"where.{role}", {}):  # its Secret would have the address, and is not here
            found.pop(f"where.{role}", None)
    if (LOGINS / ".dockerconfigjson").is_file() and "package" not in given:
        found["where.package"] = {"logins": str(LOGINS), **found.get("where.package", {})}
    return found


def patched(loaded: Loaded, live: Live) -> Loaded:
    """The configuration with the ConfigMap's parameters below those that are given."""
    return replace(loaded, given={f"ConfigMap {CONFIG_MAP}": live.values, **loaded.given})


def check_reachable(values: Mapping[str, Any]) -> None:
    """Raises ``InputError`` where pods cannot have the taxonomy."""
    if not is_url(str(values["sdg_repo_url"] or "")):
        raise InputError(
            f"pods cannot see this taxonomy: {values['sdg_repo_url'] or '(none)'}",
            where="sdg_repo_url",
            hint="-p sdg_repo_url=https://HOST/NAME.git, pushed where the cluster can fetch it",
        )


@dataclass(frozen=True)
class Caller:
    """The task of a recurring run: ``arguments`` of ``ilab``; ``secrets`` are parameters that name a Secret."""

    image: str
    arguments: tuple[str, ...]
    secrets: Mapping[str, str]
    storage_secret: str = ""
    claim: str = ""


def caller_pipeline(caller: Caller) -> Any:
    """A pipeline of one task, which runs ``ilab`` in the project's image with what the pods of a run have."""
    from kfp import dsl

    def nightly() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=caller.image, command=["ilab"], args=list(caller.arguments))

    component = dsl.container_component(nightly)

    def pipeline() -> None:
        task = component().set_display_name("Nightly build").set_caching_options(enable_caching=False)
        task.set_env_variable("HOME", "/tmp")  # noqa: S108 - of the pod, which nobody else uses
        task.set_cpu_request(LITTLE["cpu"]).set_cpu_limit(MUCH["cpu"])
        task.set_memory_request(LITTLE["memory"]).set_memory_limit(MUCH["memory"])
        _equip(task, caller)

    return dsl.pipeline(name=NAME, description="What was merged since the stable release is taught to it.")(pipeline)


def _equip(task: Any, caller: Caller) -> None:
    """Secrets and volume: what is decided depends on taxonomy, base model and store, which may be private."""
    from kfp import kubernetes

    named = [(caller.secrets.get(parameter, ""), keys) for parameter, keys in SECRETS.items()]
    tokens = dict(zip(TOKEN_VARIABLES, TOKEN_VARIABLES, strict=True))
    for name, keys in (*named, (TOKENS_SECRET, tokens), (caller.storage_secret, STORAGE)):
        if name and keys:
            kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env=dict(keys), optional=True)
    for parameter, folder in MOUNTED.items():
        if secret := caller.secrets.get(parameter):
            kubernetes.use_secret_as_volume(task, secret_name=secret, mount_path=str(folder), optional=True)
    kubernetes.use_secret_as_volume(task, TOKENS_SECRET, mount_path=str(TOKENS), optional=True)
    kubernetes.use_config_map_as_volume(task, trust.CONFIG_MAP, mount_path=str(trust.BUNDLE), optional=True)
    if caller.claim:
        kubernetes.mount_pvc(task, pvc_name=caller.claim, mount_path=definition.VOLUME)
