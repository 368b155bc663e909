"""The live ConfigMap of parameters, read in a pod: with plain HTTPS and the service account's own token."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT = 20.0


@dataclass(frozen=True)
class Live:
    """``values`` of the ConfigMap; ``note`` says why there are none, for people."""

    values: dict[str, str] = field(default_factory=dict)
    note: str = ""


def read_live(name: str, account: Path = ACCOUNT) -> Live:
    """The ConfigMap ``name`` of the pod's own namespace, as it is now. Nothing that fails here stops a run."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not name:
        return Live(note="" if host else "this is no pod of a cluster: there is no ConfigMap to read")
    import httpx2

    try:
        namespace = (account / "namespace").read_text().strip()
        token = (account / "token").read_text().strip()
        address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
        with httpx2.Client(verify=trusted, timeout=TIMEOUT, trust_env=False) as client:
            answer = client.get(
                f"{address}/api/v1/namespaces/{namespace}/configmaps/{name}",
                headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            )
        if answer.status_code != 200:
            known = {403: "the service account may not read it (deploy/base/rbac.yaml)", 404: "there is none"}
            reason = known.get(answer.status_code, f"the API server answered {answer.status_code}")
            return Live(note=f"ConfigMap {name} was not read: {reason}")
        data = answer.json().get("data") or {}
        return Live({str(key).lower(): str(value) for key, value in data.items()})
    except (OSError, ValueError, AttributeError, httpx2.HTTPError) as error:
        return Live(note=f"ConfigMap {name} was not read: {error}")
