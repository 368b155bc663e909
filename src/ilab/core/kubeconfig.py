"""How to reach a Kubernetes cluster: address, trust and credentials, of a pod's account or of a kubeconfig file.

    a file that is named ─▶ $KUBECONFIG ─▶ the account of the pod this runs in ─▶ ~/.kube/config

Tokens and certificates are understood. What a kubeconfig would have to run (``exec``, ``auth-provider``) is refused:
nothing is started because a file says so.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ilab.errors import SetupError

POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
TOKEN = "kubectl create token ACCOUNT gives one for a service account"  # noqa: S105 - says how to get one


@dataclass(frozen=True)
class Account:
    """An API server, and who asks it. ``pod`` is the name of the pod that this runs in, empty elsewhere."""

    server: str
    namespace: str
    tls: ssl.SSLContext = field(repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    proxy: str = ""
    pod: str = ""

    def bearer(self) -> str:
        """The token as it is now: a pod's is renewed every hour. Raises ``SetupError`` where it cannot be read."""
        if self.token_file is None:
            return self.token
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SetupError(f"the token cannot be read: {error.strerror}", where=str(self.token_file)) from error


def find_account(kubeconfig: str | None = None, context: str | None = None, pod: Path = POD) -> Account:
    """The account that this process has. Raises ``SetupError`` where there is none, or its file cannot be used."""
    named = kubeconfig or next((one for one in os.environ.get("KUBECONFIG", "").split(os.pathsep) if one), "")
    if named:
        return read_kubeconfig(Path(named).expanduser(), context)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if host:
        return _of_pod(f"https://{f'[{host}]' if ':' in host else host}:{port}", pod)
    usual = Path("~/.kube/config").expanduser()
    if usual.is_file():
        return read_kubeconfig(usual, context)
    raise SetupError(
        "no cluster is known here: this is no pod, and there is no kubeconfig",
        hint="log in (oc login URL), or --set where.train.kubernetes.kubeconfig=FILE",
    )


def _of_pod(server: str, folder: Path) -> Account:
    try:
        namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
        tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    except OSError as error:
        raise SetupError(
            f"the pod's account cannot be read: {error.strerror}",
            where=str(folder),
            hint="the pod needs a service account with its token (automountServiceAccountToken)",
        ) from error
    name = os.environ.get("KFP_POD_NAME") or os.environ.get("HOSTNAME", "")  # a host's name is cut at 63 letters
    return Account(server, namespace, tls, token_file=folder / "token", pod=name)


def read_kubeconfig(path: Path, context: str | None = None) -> Account:
    """The account of ``context`` (empty: the current one) in the file ``path``. Raises ``SetupError``."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _wrong(path, "cannot be read", "correct where.train.kubernetes.kubeconfig") from error
    if not isinstance(found, dict):
        raise _wrong(path, "is no kubeconfig")
    name = context or str(found.get("current-context") or "")
    chosen = _entry(found, "context", name, path)
    cluster = _entry(found, "cluster", str(chosen.get("cluster")), path)
    user = _entry(found, "user", str(chosen.get("user")), path) if chosen.get("user") else {}
    server = str(cluster.get("server", "")).rstrip("/")
    parts = urlsplit(server)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise _wrong(path, f"the server of the context {name!r} has no https address: {server!r}")
    for method in ("exec", "auth-provider", "username"):
        if method in user:
            raise _wrong(path, f"{method} of the context {name!r} is not supported", f"give a token: {TOKEN}")
    try:
        tls = _trust(cluster, path)
        _certify(tls, user, path)
    except (OSError, ssl.SSLError, binascii.Error, UnicodeDecodeError) as error:
        raise _wrong(path, f"a certificate or key of the context {name!r} cannot be read: {error}") from error
    file = user.get("tokenFile")
    return Account(
        server,
        str(chosen.get("namespace") or "default"),
        tls,
        token=str(user.get("token") or ""),
        token_file=path.parent / str(file) if file else None,
        proxy=str(cluster.get("proxy-url") or ""),
    )


def _entry(found: Mapping[str, Any], kind: str, name: str, path: Path) -> Mapping[str, Any]:
    """The entry ``name`` of a list of named ones."""
    listed = found.get(f"{kind}s")
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and one.get("name") == name and isinstance(one.get(kind), dict):
            entry: Mapping[str, Any] = one[kind]
            return entry
    raise _wrong(path, f"there is no {kind} {name!r}", "kubectl config get-contexts shows what there is")


def _trust(cluster: Mapping[str, Any], path: Path) -> ssl.SSLContext:
    if data := cluster.get("certificate-authority-data"):
        return ssl.create_default_context(cadata=base64.b64decode(str(data)).decode("ascii"))
    file = cluster.get("certificate-authority")
    tls = ssl.create_default_context(cafile=str(path.parent / str(file)) if file else None)
    if cluster.get("insecure-skip-tls-verify") is True:  # the owner of the file says so
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _certify(tls: ssl.SSLContext, user: Mapping[str, Any], path: Path) -> None:
    """Let ``tls`` show the user's certificate, if there is one."""
    if "client-certificate-data" not in user and "client-certificate" not in user:
        return
    with tempfile.TemporaryDirectory() as folder:  # ssl reads files only; the folder is this user's alone
        files = []
        for name in ("client-certificate", "client-key"):
            if f"{name}-data" in user:
                file = Path(folder, name)
                file.write_bytes(base64.b64decode(str(user[f"{name}-data"])))
            else:
                file = path.parent / str(user.get(name, ""))
            files.append(str(file))
        tls.load_cert_chain(*files)


def _wrong(path: Path, message: str, hint: str = "kubectl config view shows what it holds") -> SetupError:
    return SetupError(message, where=str(path), hint=hint)
