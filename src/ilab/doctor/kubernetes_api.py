"""The API server of a Kubernetes cluster, asked by plain HTTPS as the user's kubeconfig says, or as a pod's account.

Of a kubeconfig (https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/) it takes: the present context, its
namespace, the server with its certificate authority, and a token, a client certificate, or a program that gives one of
them (``exec``), which is started as kubectl starts it. Nothing of these is ever shown.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ilab.errors import ServiceError, SetupError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT = 10.0
NO_CONTEXT = "oc login URL   or: kubectl config get-contexts, then: kubectl config use-context NAME"


@dataclass(frozen=True)
class Access:
    """Where the API server is, and who asks. ``name`` is the context's."""

    name: str
    server: str
    namespace: str
    tls: ssl.SSLContext = field(repr=False)
    token: str = field(default="", repr=False)
    authority: str = field(default="", repr=False)  # PEM, or a file of it

    def beside(self, server: str) -> Access:
        """The same caller at another server of the cluster, which may also have a certificate that everybody trusts."""
        tls = _tls("", "", False)
        if self.authority.startswith("-----"):
            tls.load_verify_locations(cadata=self.authority)
        elif self.authority:
            tls.load_verify_locations(cafile=self.authority)
        return replace(self, server=server, tls=tls)

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and object of a GET. Raises ServiceError where the server cannot be reached."""
        return self._send("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and object of a POST. Raises ServiceError where the server cannot be reached."""
        return self._send("POST", path, body)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
        import httpx2

        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        try:
            with httpx2.Client(verify=self.tls, timeout=TIMEOUT) as client:
                answer = client.request(method, self.server.rstrip("/") + path, json=body, headers=headers)
            found = answer.json() if answer.content else {}
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ServiceError(f"the cluster does not answer: {error}", where=self.server, retryable=True) from error
        except ValueError:  # a proxy's page, in place of the API
            return answer.status_code, {}
        return answer.status_code, found if isinstance(found, dict) else {}


def access(environ: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> Access:
    """The way to the cluster of the present context; in a pod without a kubeconfig, that of its service account.

    Raises SetupError, with the line to type, where there is none or it is not usable.
    """
    given = environ.get("KUBECONFIG", "")
    paths = [Path(one) for one in given.split(os.pathsep) if one] or [Path("~/.kube/config").expanduser()]
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    if host and not any(path.is_file() for path in paths) and (account / "token").is_file():
        address = f"https://{f'[{host}]' if ':' in host else host}:{environ.get('KUBERNETES_SERVICE_PORT', '443')}"
        namespace, token = (account / "namespace").read_text().strip(), (account / "token").read_text().strip()
        ca = str(account / "ca.crt")
        return Access("this pod's account", address, namespace, _tls(ca, "", False), token, ca)
    return _by_files(paths, environ)


def _by_files(paths: list[Path], environ: Mapping[str, str]) -> Access:
    lists: dict[str, dict[str, Any]] = {"contexts": {}, "clusters": {}, "users": {}}
    current = ""
    for path in paths:
        read = _read(path)
        current = current or str(read.get("current-context") or "")
        for kind, known in lists.items():
            for one in read.get(kind) or []:
                # As kubectl: of two with one name the first counts; paths are relative to their file.
                known.setdefault(str(one.get("name")), (path.parent, one.get(kind.removesuffix("s")) or {}))
    if not current:
        raise SetupError("none is chosen", hint=NO_CONTEXT)
    _, context = lists["contexts"].get(current, (Path(), {}))
    base, cluster = lists["clusters"].get(str(context.get("cluster")), (Path(), {}))
    home, user = lists["users"].get(str(context.get("user")), (Path(), {}))
    server = str(cluster.get("server") or "")
    if not server.startswith("https://"):
        raise SetupError(f"the context {current} names no server with https", hint=NO_CONTEXT)
    if "exec" in user:
        user = {**user, **_asked(user["exec"], home, environ)}
    token = str(user.get("token") or "")
    if not token and user.get("tokenFile"):
        token = _text(home / str(user["tokenFile"])).strip()
    if not token.isprintable():
        raise SetupError("the kubeconfig's token has line ends or control characters in it", hint=NO_CONTEXT)
    ca = _data(cluster, "certificate-authority", base)
    pair = "".join(_data(user, name, home) for name in ("client-certificate", "client-key"))
    tls = _tls(ca, pair, bool(cluster.get("insecure-skip-tls-verify")))
    return Access(current, server, str(context.get("namespace") or "default"), tls, token, ca)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError("this kubeconfig cannot be read", where=str(path), hint=NO_CONTEXT) from error
    return found if isinstance(found, dict) else {}


def _data(section: Mapping[str, Any], name: str, base: Path) -> str:
    """PEM text of ``name``, which stands in the kubeconfig itself (…-data) or in a file."""
    if encoded := section.get(f"{name}-data"):
        try:
            return base64.b64decode(str(encoded), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise SetupError(f"{name}-data of the kubeconfig is no base64", hint=NO_CONTEXT) from error
    return _text(base / str(section[name])) if section.get(name) else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() + "\n"
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError("the kubeconfig names a file that cannot be read", where=str(path), hint=NO_CONTEXT) from error


def _tls(ca: str, pair: str, insecure: bool) -> ssl.SSLContext:
    """``ca``: PEM, or a file of it; ``pair``: certificate and key in PEM, empty for none."""
    try:
        named = {"cadata": ca} if ca.startswith("-----") else {"cafile": ca or None}
        context = ssl.create_default_context(**named)
        if pair:  # OpenSSL reads a client's certificate from files only
            with tempfile.TemporaryDirectory(prefix="ilab-") as folder:
                file = Path(folder) / "client.pem"
                file.touch(0o600)
                file.write_text(pair)
                context.load_cert_chain(file)
    except (OSError, ValueError) as error:
        raise SetupError(f"the kubeconfig's certificates cannot be used: {error}", hint=NO_CONTEXT) from error
    if insecure:  # the user's own kubeconfig says so
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _asked(program: Mapping[str, Any], home: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """What a credential plugin gives: https://kubernetes.io/docs/reference/access-authn-authz/authentication/."""
    command = str(program.get("command") or "")
    line = [str(home / command) if "/" in command else command, *(str(one) for one in program.get("args") or [])]
    version = str(program.get("apiVersion") or "client.authentication.k8s.io/v1")
    asked = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}})
    given = {str(one["name"]): str(one["value"]) for one in program.get("env") or []}
    env = {**environ, **given, "KUBERNETES_EXEC_INFO": asked}
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * TIMEOUT, check=True, env=env
        )
        status = json.loads(done.stdout)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        hint = "kubectl get pods   starts the same program, and shows what it says"
        raise SetupError(f"{line[0]}, which gives the token, failed", hint=hint) from error
    return {
        "token": status.get("token"),
        "client-certificate-data": _encoded(status.get("clientCertificateData")),
        "client-key-data": _encoded(status.get("clientKeyData")),
    }


def _encoded(text: Any) -> str:
    return base64.b64encode(str(text).encode()).decode() if text else ""
