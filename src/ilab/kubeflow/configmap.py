"""The ConfigMap of parameters as it is on the cluster now: of the pod that a run begins in, or of whoever submits.

Whoever submits has a kubeconfig and names a pipeline server, and the two may be of different clusters. They are of the
same one where their addresses have the same host, or, as OpenShift builds them, the same domain
(``api.DOMAIN`` and ``….apps.DOMAIN``); of others nothing can be told by the address, and what is read is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ilab.core.kubeconfig import LOOPBACK, POD, Account, find_account
from ilab.core.kubernetes import Api, Refused
from ilab.errors import IlabError, SetupError
from ilab.parameters.files import SETTINGS_KEY


@dataclass(frozen=True)
class Live:
    """``values`` of parameters in the ConfigMap, and the document of ``settings`` beside them (its key `ilab.yaml`).

    ``place`` is where it is; ``note`` says why there are none, for people.
    """

    values: dict[str, str] = field(default_factory=dict)
    note: str = ""
    place: str = ""
    settings: str = ""


def read_live(name: str, pod: Path = POD) -> Live:
    """The ConfigMap ``name`` of the pod's own namespace, as it is now. Nothing that fails here stops a run."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return Live(note="this is no pod of a cluster: there is no ConfigMap to read")
    return _try(name, lambda: find_account(pod=pod), "")


def read_as_user(name: str, namespace: str = "", host: str = "", context: str = "") -> Live:
    """The same as the user of the kubeconfig sees it; ``namespace``: empty for the context's own.

    ``context``: empty for the current one, which is asked only where it may be of the same cluster as ``host``, the
    address of a pipeline server. Nothing that fails here stops anything.
    """
    try:
        account = account_beside(host, context)
    except IlabError as error:
        return Live(note=f"ConfigMap {name} was not read: {error.message}")
    return _try(name, lambda: account, namespace)


def account_beside(host: str, context: str = "") -> Account:
    """The user's account in the cluster that ``host`` is of. Raises ``SetupError`` where the context is of another."""
    account = find_account(context=context or None)
    if not context and host and not account.pod and one_cluster(account.server, host) is False:
        raise SetupError(
            f"the context {account.name} is of {account.server}, which is another cluster than that of {host}; "
            "--context NAME says which is its own"
        )
    return account


def one_cluster(server: str, host: str) -> bool | None:
    """Whether an API server and a pipeline server, by their addresses, are of one cluster; None: nobody can tell."""
    api, pipelines = (urlsplit(one).hostname or "" for one in (server, host))
    if api == pipelines:
        return True
    _, mark, domain = pipelines.partition(".apps.")
    if api in LOOPBACK or not api.startswith("api.") or not mark:
        return None
    return api.removeprefix("api.") == domain


def _try(name: str, account: Callable[[], Account], namespace: str) -> Live:
    try:
        return _read(account(), name, namespace) if name else Live()
    except Refused as refused:
        known = {403: "the account may not read it (deploy/base/rbac.yaml)"}
        return Live(note=f"ConfigMap {name} was not read: {known.get(refused.status, refused.message)}")
    except IlabError as error:
        return Live(note=f"ConfigMap {name} was not read: {error.message}")


def _read(account: Account, name: str, namespace: str) -> Live:
    namespace = namespace or account.namespace
    place = f"{account.name} at {account.server}, namespace {namespace}"
    with Api(account) as api:
        found = api.find(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
    if found is None:
        return Live(note=f"ConfigMap {name} was not read: there is none ({place})", place=place)
    data = found.get("data")
    values = {str(key).lower(): str(value) for key, value in data.items()} if isinstance(data, dict) else {}
    settings = values.pop(SETTINGS_KEY, "")
    return Live(values, place=place, settings=settings)
