"""The way to a cluster: kubeconfig files as kubectl reads them, against an API server over TLS that knows who asks."""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.core import exec_credential
from ilab.core.kubeconfig import find_account
from ilab.core.kubernetes import Api
from ilab.errors import ServiceError, SetupError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
TOKEN = "sesame-of-the-user"
WHO = "/api/v1/who"
PATHS = "/usr/bin:/bin"


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the server, for the name ``api.internal`` and this machine's address, and of a user; one authority."""
    folder = tmp_path_factory.mktemp("tls")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl(folder, *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    for name, more in (
        ("server", ["-addext", "subjectAltName=IP:127.0.0.1"]),
        ("named", ["-addext", "subjectAltName=DNS:api.internal"]),
        ("client", []),
    ):
        made = ["-subj", f"/CN={name}", *more, "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl(folder, *new, *signed, *made)
    return folder


class Server(ThreadingHTTPServer):
    """Says who asked: by a token of ``tokens``, or by a certificate."""

    daemon_threads = True

    def __init__(self, folder: Path, name: str = "server") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self.tokens = {TOKEN}

    def handle_error(self, *_: object) -> None:
        """A client that does not trust us goes away."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        certificate = self.connection.getpeercert()  # type: ignore[attr-defined]
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        who = "certificate" if certificate else "token" if token in self.server.tokens else ""
        body = json.dumps({"who": who, "message": "Unauthorized"}).encode()
        self.send_response(200 if who else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(certificates: Path) -> Iterator[Server]:
    yield from running(Server(certificates))


def running(made: Server) -> Iterator[Server]:
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def config(server: Server, certificates: Path, user: Any = None, **cluster: Any) -> dict[str, Any]:
    ca = base64.b64encode((certificates / "ca.pem").read_bytes()).decode()
    place = {"server": server.url, "certificate-authority-data": ca, **cluster}
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
        "clusters": [{"name": "c", "cluster": place}],
        "users": [{"name": "u", "user": {"token": TOKEN} if user is None else user}],
    }


def write(path: Path, found: dict[str, Any]) -> dict[str, str]:
    path.write_text(yaml.safe_dump(found))
    return {"KUBECONFIG": str(path), "PATH": PATHS}


def who(environ: dict[str, str]) -> str:
    with Api(find_account(environ=environ)) as api:
        return str(api.get(WHO)["who"])


def program(path: Path, status: dict[str, Any], version: str = "client.authentication.k8s.io/v1") -> None:
    """One that counts its starts in ``starts`` beside it, and keeps what it was asked in ``asked``."""
    told = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    path.write_text(
        f'#!/bin/sh\necho x >> "{path.parent}/starts"\nprintf %s "$KUBERNETES_EXEC_INFO" > "{path.parent}/asked"\n'
        f"[ \"$1$REGION\" = getnorth ] || {{ echo 'no $REGION, sorry' >&2; exit 3; }}\ncat <<'END'\n{told}\nEND\n"
    )
    path.chmod(0o755)


EXEC = {"command": "./plugin", "args": ["get"], "env": [{"name": "REGION", "value": "north"}]}


def test_ways_to_say_who_one_is(server: Server, certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for name in ("client.pem", "client.key"):
        shutil.copy(certificates / name, tmp_path / name)
    program(tmp_path / "plugin", {"token": TOKEN})
    pem = {
        name: base64.b64encode((certificates / f"client.{end}").read_bytes()).decode()
        for name, end in (("certificate", "pem"), ("key", "key"))
    }
    users: list[tuple[dict[str, Any], str]] = [
        ({"token": TOKEN}, "token"),
        ({"tokenFile": "token"}, "token"),
        ({"client-certificate": "client.pem", "client-key": "client.key"}, "certificate"),
        ({f"client-{name}-data": text for name, text in pem.items()}, "certificate"),
        ({"exec": EXEC}, "token"),
    ]
    for user, expected in users:
        assert who(write(tmp_path / "config", config(server, certificates, user))) == expected, user
    (tmp_path / "token").write_text("outdated")
    environ = write(tmp_path / "config", config(server, certificates, {"tokenFile": "token"}))
    with Api(find_account(environ=environ)) as api:
        assert api.answer("GET", WHO)[0] == 401
        (tmp_path / "token").write_text(TOKEN)
        assert api.answer("GET", WHO) == (200, {"who": "token", "message": "Unauthorized"}), "read anew each time"


def test_a_program_that_gives_a_certificate_and_is_told_of_the_cluster(
    server: Server, certificates: Path, tmp_path: Path
) -> None:
    pair = {
        "clientCertificateData": (certificates / "client.pem").read_text(),
        "clientKeyData": (certificates / "client.key").read_text(),
    }
    version = "client.authentication.k8s.io/v1beta1"
    program(tmp_path / "plugin", pair, version)
    told = {**EXEC, "apiVersion": version, "provideClusterInfo": True}
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "lab"}}
    found = config(server, certificates, {"exec": told}, extensions=[extension])
    assert who(write(tmp_path / "config", found)) == "certificate"
    asked = json.loads((tmp_path / "asked").read_text())
    assert (asked["apiVersion"], asked["spec"]["interactive"]) == (version, False)
    assert asked["spec"]["cluster"]["server"] == server.url and asked["spec"]["cluster"]["config"] == {
        "audience": "lab"
    }


def test_a_credential_is_kept_until_it_ends_or_is_not_taken(server: Server, certificates: Path, tmp_path: Path) -> None:
    def starts() -> int:
        return (tmp_path / "starts").read_text().count("x")

    environ = write(tmp_path / "config", config(server, certificates, {"exec": EXEC}))
    program(tmp_path / "plugin", {"token": TOKEN, "expirationTimestamp": "2999-01-01T00:00:00Z"})
    with Api(find_account(environ=environ)) as api:
        assert [api.answer("GET", WHO)[0] for _ in range(3)] == [200] * 3 and starts() == 1
        program(tmp_path / "plugin", {"token": "another", "expirationTimestamp": "2999-01-01T00:00:00Z"})
        server.tokens = {"another"}  # the first is taken back
        assert api.answer("GET", WHO)[0] == 200 and starts() == 2
    program(tmp_path / "plugin", {"token": "another", "expirationTimestamp": "2001-01-01T00:00:00Z"})
    with Api(find_account(environ=environ)) as api:
        assert [api.answer("GET", WHO)[0] for _ in range(2)] == [200] * 2 and starts() == 4, "over each time"


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("exit 0", {}, "printed no ExecCredential"),
        ('echo "not today for ${1}" >&2; exit 1', {"args": ["$(id); x"]}, r"failed: not today for \$\(id\); x"),
        ("sleep 5", {}, "took more than"),
        ("cat $0.none", {}, "failed: cat"),
        ('echo \'{"apiVersion": "client.authentication.k8s.io/v1", "status": {"token": ""}}\'', {}, "gave neither"),
        ('echo \'{"apiVersion": "v7", "status": {"token": "x"}}\'', {}, "answered for v7"),
        ("", {"command": "absent-program"}, "cannot be started"),
        ("", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "version is unknown"),
        ("", {"interactiveMode": "Always"}, "wants to ask somebody"),
    ],
)
def test_what_is_wrong_with_a_program_is_told(
    server: Server,
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    more: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(exec_credential, "LIMIT", 0.3 if "sleep" in text else 20.0)
    (tmp_path / "plugin").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "plugin").chmod(0o755)
    environ = write(tmp_path / "config", config(server, certificates, {"exec": {"command": "./plugin", **more}}))
    with pytest.raises(SetupError, match=said):
        who(environ)


def test_the_certificate_may_bear_another_name(certificates: Path, tmp_path: Path) -> None:
    for server in running(Server(certificates, "named")):
        with pytest.raises(ServiceError, match="cannot be reached"):
            who(write(tmp_path / "config", config(server, certificates)))
        assert (
            who(write(tmp_path / "config", config(server, certificates, **{"tls-server-name": "api.internal"})))
            == "token"
        )
        untrusted = config(server, certificates, **{"certificate-authority-data": "", "insecure-skip-tls-verify": True})
        assert who(write(tmp_path / "config", untrusted)) == "token"


def test_certificates_are_taken_with_what_stands_between_them(
    server: Server, certificates: Path, tmp_path: Path
) -> None:
    """Names in any script, as in the bundles of systems and in what `openssl pkcs12` writes; folded base64."""
    for name in ("ca.pem", "client.pem"):
        (tmp_path / name).write_bytes("friendlyName: Jürgen Őry\n".encode() + (certificates / name).read_bytes())
    user = {"client-certificate": "client.pem", "client-key": str(certificates / "client.key")}
    files = {"certificate-authority-data": "", "certificate-authority": "ca.pem"}
    assert who(write(tmp_path / "config", config(server, certificates, user, **files))) == "certificate"
    folded = base64.encodebytes((tmp_path / "ca.pem").read_bytes()).decode()
    data = {"certificate-authority-data": folded}
    assert who(write(tmp_path / "config", config(server, certificates, user, **data))) == "certificate"


def test_nobody_is_asked_for_the_password_of_a_key(server: Server, certificates: Path, tmp_path: Path) -> None:
    openssl(tmp_path, "ec", "-in", str(certificates / "client.key"), "-aes128", "-passout", "pass:x", "-out", "key")
    user = {"client-certificate": str(certificates / "client.pem"), "client-key": "key"}
    write(tmp_path / "config", config(server, certificates, user))
    script = "from ilab.core.kubeconfig import find_account; find_account()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KUBECONFIG": str(tmp_path / "config")},
        start_new_session=True,  # without a terminal OpenSSL cannot ask, and says so on its own
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "certificate or key cannot be used" in done.stderr and "pass phrase" not in done.stderr + done.stdout


def test_a_proxy_of_the_cluster_is_asked(server: Server, certificates: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            seen.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None: ...

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        with pytest.raises(ServiceError, match="cannot be reached"):
            who(write(tmp_path / "config", config(server, certificates, **{"proxy-url": address})))
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
    assert seen == [server.url.removeprefix("https://")]


def test_a_token_is_in_no_message(server: Server, certificates: Path, tmp_path: Path) -> None:
    for user in ({"token": f"{TOKEN}\nX: y"}, {"tokenFile": "token"}):
        (tmp_path / "token").write_text(f"{TOKEN}\nX: y")
        with pytest.raises(SetupError, match="line ends") as caught:
            who(write(tmp_path / "config", config(server, certificates, user)))
        assert TOKEN not in f"{caught.value}{caught.value.hint}"
    account = find_account(environ=write(tmp_path / "config", config(server, certificates)))
    assert TOKEN not in repr(account)


def test_of_several_files_the_first_counts(server: Server, certificates: Path, tmp_path: Path) -> None:
    whole = config(server, certificates)
    (tmp_path / "a").write_text(yaml.safe_dump({"current-context": "here", "users": whole["users"]}))
    other = {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "second"}}
    later = {**whole, "current-context": "elsewhere", "users": [{"name": "u", "user": {"token": "wrong"}}]}
    (tmp_path / "b").write_text(yaml.safe_dump(later))
    (tmp_path / "c").write_text(yaml.safe_dump({"contexts": [other, {**other, "name": "third"}]}))
    environ = {"KUBECONFIG": ":".join(str(tmp_path / name) for name in ("a", "missing", "b", "c"))}
    found = find_account(environ=environ)
    assert (found.name, found.namespace, who(environ)) == ("here", "lab", "token")
    assert find_account(context="third", environ=environ).namespace == "second"
    with pytest.raises(SetupError, match="no context 'fourth'"):
        find_account(context="fourth", environ=environ)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no context is chosen"),
        ("[]", "no kubeconfig"),
        ("{broken", "cannot be read"),
        ("current-context: x", "there is no context 'x'"),
        ("{current-context: x, contexts: [{name: x, context: {cluster: c}}]}", "there is no cluster 'c'"),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: c}}], "
            "clusters: [{name: c, cluster: {server: 'https://h', certificate-authority: nowhere}}]}",
            "names cannot be read",
        ),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: c}}], "
            "clusters: [{name: c, cluster: {server: 'https://h', certificate-authority-data: '%%'}}]}",
            "no base64",
        ),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}], "
            "clusters: [{name: c, cluster: {server: 'https://h'}}], users: [{name: u, user: {as: admin}}]}",
            "as of the context 'x' is not supported",
        ),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: c}}], "
            "clusters: [{name: c, cluster: {server: 'https://h', proxy-url: 'socks5://h:1'}}]}",
            "none of http or https",
        ),
    ],
)
def test_a_kubeconfig_that_leads_nowhere(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(SetupError, match=message) as caught:
        find_account(environ={"KUBECONFIG": str(path)})
    assert caught.value.hint
