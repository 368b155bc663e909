"""A Kubernetes cluster: the tool to change it, the way there, and what runs need of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ilab.core.kubeconfig import find_account
from ilab.core.kubernetes import Api
from ilab.doctor import deployment
from ilab.doctor.deployment import Right
from ilab.doctor.finding import Finding
from ilab.errors import SetupError

if TYPE_CHECKING:
    from ilab.config import Loaded

MADE = {  # launcher: what the user makes there for it
    "TrainJob": Right("create", "trainer.kubeflow.org", "trainjobs"),
    "PyTorchJob": Right("create", "kubeflow.org", "pytorchjobs"),
}
NEEDED = "what runs on a cluster"


def look(loaded: Loaded) -> Iterator[Finding]:
    """The tool, the context, and all that :mod:`ilab.doctor.deployment` looks at. Nothing is made."""
    where, place = loaded.config.where.train, loaded.config.where.kubeflow
    tool = shutil.which("oc") or shutil.which("kubectl")
    if tool is None:
        fix = "install kubectl or oc" + (
            "" if where.launcher == "here" else "; or ilab config set where.train.launcher here"
        )
        yield Finding("cluster", "bad", "neither kubectl nor oc is installed", NEEDED, fix)
    else:
        yield Finding("cluster", "ok", tool)
    try:
        found = find_account(where.kubernetes.kubeconfig, place.context or where.kubernetes.context)
    except SetupError as error:
        yield Finding("cluster context", "bad", error.message, NEEDED, error.hint)
        return
    namespace = place.namespace or where.kubernetes.namespace or found.namespace
    yield Finding("cluster context", "ok", f"{found.name} at {found.server}, namespace {namespace}")
    made = (MADE[where.launcher],) if where.launcher in MADE else ()
    try:
        with Api(found) as api:
            yield from deployment.look(api, namespace, place, made)
    except SetupError as error:  # the program that gives the token is started by the first request
        yield Finding("cluster login", "bad", error.message, NEEDED, error.hint)
