"""How to reach a Kubernetes cluster: address, trust and credentials, of kubeconfig files or of a pod's account.

    a file that is named ─▶ the files of $KUBECONFIG, else ~/.kube/config ─▶ where none is there: this pod's account

Of several files the first counts, entry by entry, as kubectl merges them; their paths are relative to the file that
holds them. Tokens, certificates, and programs that give one of them (:mod:`ilab.core.exec_credential`) are understood;
what would be another way to be somebody (``auth-provider``, a password, ``as``) is refused, not left out.

The package `kubernetes` would do this too, but it starts ``exec`` programs without a time limit, knows neither
``tls-server-name`` nor a proxy of a cluster, and weighs more than all that reaches clusters here.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ilab.core.exec_credential import Plugin
from ilab.errors import SetupError

POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
TOKEN = "kubectl create token ACCOUNT gives one for a service account"  # noqa: S105 - says how to get one
TUNNEL = "kubectl proxy   and let the cluster's server in a kubeconfig be http://127.0.0.1:8001"
CONTEXTS = "oc login URL   or: kubectl config get-contexts, then: kubectl config use-context NAME"
REFUSED = ("auth-provider", "username", "as", "as-uid", "as-groups")  # ways to be somebody that are not understood


@dataclass(frozen=True)
class Account:
    """An API server, and who asks it.

    ``name``: the context, or whose account it is. ``host_name``: what the server's certificate must say; empty: the
    address's own. ``authority``: PEM of who vouches for the server; empty: those that the system trusts. ``pod``: the
    name of the pod that this runs in; empty elsewhere.
    """

    name: str
    server: str
    namespace: str
    tls: ssl.SSLContext = field(repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    plugin: Plugin | None = field(default=None, repr=False)
    authority: str = field(default="", repr=False)
    host_name: str = ""
    proxy: str = field(default="", repr=False)  # there may be a password in it
    pod: str = ""

    def bearer(self) -> str:
        """The token as it is now: a pod's is renewed every hour. Raises ``SetupError`` where it cannot be had."""
        if self.plugin is not None:
            given = self.plugin.credential()
            _certify(self.tls, given.certificate, given.key)
            return given.token
        if self.token_file is None:
            return self.token
        return _of_one_line(_text(self.token_file).strip())

    def beside(self, server: str) -> Account:
        """The same caller at another server of the cluster, whose certificate may also be one that everybody trusts."""
        tls = ssl.create_default_context()
        if self.authority:
            tls.load_verify_locations(cadata=self.authority)
        return replace(self, server=server, tls=tls, host_name="")


def find_account(
    kubeconfig: str | None = None,
    context: str | None = None,
    pod: Path = POD,
    environ: Mapping[str, str] = os.environ,
) -> Account:
    """The account that this process has: of ``context`` (empty: the current one) in the files that hold here.

    Raises ``SetupError``, with the line to type, where there is none or it cannot be used.
    """
    if kubeconfig:
        named = Path(kubeconfig).expanduser()
        if not named.is_file():
            raise SetupError(
                "there is no such file", where=kubeconfig, hint="correct where.train.kubernetes.kubeconfig"
            )
        return _of_files([named], context, environ)
    listed = [Path(one) for one in environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    found = [path for path in listed or [Path("~/.kube/config").expanduser()] if path.is_file()]
    if found:
        return _of_files(found, context, environ)
    host = environ.get("KUBERNETES_SERVICE_HOST")
    if host and not context:
        port = environ.get("KUBERNETES_SERVICE_PORT", "443")
        return _of_pod(f"https://{f'[{host}]' if ':' in host else host}:{port}", pod, environ)
    raise SetupError(
        "no cluster is known here: this is no pod, and there is no kubeconfig",
        where="KUBECONFIG" if listed else "~/.kube/config",
        hint="log in (oc login URL), or --set where.train.kubernetes.kubeconfig=FILE",
    )


def _of_pod(server: str, folder: Path, environ: Mapping[str, str]) -> Account:
    try:
        namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
        authority = ascii_only((folder / "ca.crt").read_bytes())
        tls = ssl.create_default_context(cadata=authority)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"the pod's account cannot be read: {error}",
            where=str(folder),
            hint="the pod needs a service account with its token (automountServiceAccountToken)",
        ) from error
    name = environ.get("KFP_POD_NAME") or environ.get("HOSTNAME", "")  # a host's name is cut at 63 letters
    return Account(
        "this pod's account", server, namespace, tls, token_file=folder / "token", authority=authority, pod=name
    )


@dataclass(frozen=True)
class _Entry:
    """What a kubeconfig says under a name; ``path`` is the file that says it."""

    told: Mapping[str, Any]
    path: Path

    def pem(self, name: str) -> str:
        """``name`` as text, which stands here itself (``…-data``, base64) or in a file; empty where neither does."""
        if encoded := self.told.get(f"{name}-data"):
            try:
                return ascii_only(base64.b64decode("".join(str(encoded).split()), validate=True))
            except ValueError as error:
                raise _wrong(self.path, f"{name}-data is no base64") from error
        file = self.told.get(name)
        return ascii_only(_bytes(self.path.parent / str(file))) if file else ""


def _of_files(paths: Sequence[Path], context: str | None, environ: Mapping[str, str]) -> Account:
    read = {path: _read(path) for path in paths}
    name = context or next((str(one["current-context"]) for one in read.values() if one.get("current-context")), "")
    if not name:
        raise _wrong(paths[0], "no context is chosen")
    chosen = _entry(read, "context", name)
    cluster = _entry(read, "cluster", str(chosen.told.get("cluster")))
    user = _entry(read, "user", str(chosen.told["user"])) if chosen.told.get("user") else _Entry({}, chosen.path)
    server = str(cluster.told.get("server") or "").rstrip("/")
    parts = urlsplit(server)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:  # a token is not sent in the clear
        raise _wrong(cluster.path, f"the server of the context {name!r} has no https address: {server!r}")
    for method in REFUSED:
        if method in user.told:
            raise _wrong(user.path, f"{method} of the context {name!r} is not supported", f"give a token: {TOKEN}")
    proxy = str(cluster.told.get("proxy-url") or "")
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise _wrong(cluster.path, f"the proxy of the context {name!r} is none of http or https", f"type: {TUNNEL}")
    told = user.told.get("exec")
    plugin = Plugin(told, user.path.parent, cluster.told, environ) if isinstance(told, dict) else None
    authority, token = cluster.pem("certificate-authority"), str(user.told.get("token") or "")
    file = user.told.get("tokenFile")
    tls = _trust(cluster, authority)
    _certify(tls, user.pem("client-certificate"), user.pem("client-key"), user.path)
    return Account(
        name,
        server,
        str(chosen.told.get("namespace") or "default"),
        tls,
        token=_of_one_line(token),
        token_file=user.path.parent / str(file) if file and not token else None,
        plugin=plugin,
        authority=authority,
        host_name=str(cluster.told.get("tls-server-name") or ""),
        proxy=proxy,
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _wrong(path, "this kubeconfig cannot be read") from error
    if found is not None and not isinstance(found, dict):
        raise _wrong(path, "this is no kubeconfig")
    return found or {}


def _entry(read: Mapping[Path, Mapping[str, Any]], kind: str, name: str) -> _Entry:
    """The first entry ``name`` of the lists of a kind."""
    for path, found in read.items():
        listed = found.get(f"{kind}s")
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict) and one.get("name") == name and isinstance(one.get(kind), dict):
                return _Entry(one[kind], path)
    raise _wrong(next(iter(read)), f"there is no {kind} {name!r}")


def _trust(cluster: _Entry, authority: str) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cadata=authority or None)
    except (ValueError, ssl.SSLError) as error:
        raise _wrong(cluster.path, f"the certificate of its authority cannot be used: {error}") from error
    if cluster.told.get("insecure-skip-tls-verify") is True:  # the owner of the file says so
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _certify(tls: ssl.SSLContext, certificate: str, key: str, path: Path | None = None) -> None:
    """Let ``tls`` show the user's certificate, if there is one."""
    if not certificate:
        return
    with tempfile.TemporaryDirectory(prefix="ilab-") as folder:  # OpenSSL reads files only; this is the user's alone
        file = Path(folder, "client.pem")
        file.touch(0o600)
        file.write_text(f"{certificate}\n{key}", encoding="utf-8")
        try:
            tls.load_cert_chain(file, password="")  # of a key that needs one OpenSSL would ask the terminal
        except (OSError, ValueError) as error:
            raise _wrong(path, f"the user's certificate or key cannot be used: {error}") from error


def ascii_only(pem: bytes) -> str:
    """Certificates and keys without what others write between them: names in any script, which Python does not take."""
    return pem.decode("ascii", "ignore")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise _wrong(path, "a file that the kubeconfig names cannot be read") from error


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _wrong(path, "a file that the kubeconfig names is no text") from error


def _of_one_line(token: str) -> str:
    if not token.isprintable():  # it would be taken for another header
        raise SetupError("the token has line ends or control characters in it", hint=TOKEN)
    return token


def _wrong(path: Path | None, message: str, hint: str = CONTEXTS) -> SetupError:
    return SetupError(message, where=str(path or "exec"), hint=hint)
