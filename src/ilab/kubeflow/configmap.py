"""The ConfigMap of parameters as it is on the cluster now: of the pod that a run begins in, or of whoever submits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ilab.core.kubeconfig import POD, Account, find_account
from ilab.core.kubernetes import Api, Refused
from ilab.errors import IlabError
from ilab.parameters.files import SETTINGS_KEY


@dataclass(frozen=True)
class Live:
    """``values`` of parameters in the ConfigMap, and the document of ``settings`` beside them (its key `ilab.yaml`).

    ``note`` says why there are none, for people.
    """

    values: dict[str, str] = field(default_factory=dict)
    note: str = ""
    settings: str = ""


def read_live(name: str, pod: Path = POD) -> Live:
    """The ConfigMap ``name`` of the pod's own namespace, as it is now. Nothing that fails here stops a run."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return Live(note="this is no pod of a cluster: there is no ConfigMap to read")
    return read_as_user(name, pod=pod)


def read_as_user(name: str, namespace: str = "", pod: Path = POD) -> Live:
    """The same as the user of the kubeconfig sees it; ``namespace``: empty for the context's own."""
    try:
        return _read(find_account(pod=pod), name, namespace) if name else Live()
    except Refused as refused:
        known = {403: "the account may not read it (deploy/base/rbac.yaml)"}
        return Live(note=f"ConfigMap {name} was not read: {known.get(refused.status, refused.message)}")
    except IlabError as error:
        return Live(note=f"ConfigMap {name} was not read: {error.message}")


def _read(account: Account, name: str, namespace: str) -> Live:
    with Api(account) as api:
        found = api.find(f"/api/v1/namespaces/{namespace or account.namespace}/configmaps/{name}")
    if found is None:
        return Live(note=f"ConfigMap {name} was not read: there is none")
    data = found.get("data")
    values = {str(key).lower(): str(value) for key, value in data.items()} if isinstance(data, dict) else {}
    settings = values.pop(SETTINGS_KEY, "")
    return Live(values, settings=settings)
