"""Docker's own registry behind TLS, with passwords or with a token server of ours; and a line that can be cut."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import NameOID

from ilab.testing.loopback import serving

LOGIN = ("ann", "wordpass")
HASHED = "$2b$04$YhwKlF.cJABD7kgOwptTV.8KqKKE7nxCRroHgnTrMce4C2RCOzDCC"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    """A key and its self-signed certificate, as PEM files."""

    key: Key
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path


def pair(folder: Path, name: str, key: Key) -> Pair:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.key", folder / f"{name}.crt"
    pem = serialization.Encoding.PEM
    files[0].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
    files[1].write_bytes(certificate.public_bytes(pem))
    return Pair(key, certificate, *files)


@contextmanager
def docker_registry(folder: Path, auth: dict[str, Any], tls: Pair | None = None) -> Iterator[str]:
    """Docker's registry on a free port: ``127.0.0.1:PORT``. Skips the test where it is not installed."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    if tls:
        http["tls"] = {"certificate": str(tls.certificate_file), "key": str(tls.key_file)}
    config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(folder / "data")}}, "http": http, **auth}
    (folder / "config.yml").write_text(json.dumps(config))
    command = [program, "serve", str(folder / "config.yml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def htpasswd(folder: Path) -> dict[str, Any]:
    (folder / "htpasswd").write_text(f"{LOGIN[0]}:{HASHED}\n")
    return {"auth": {"htpasswd": {"realm": "here", "path": str(folder / "htpasswd")}}}


class TokenServer:
    """Gives tokens as distribution's specification has them: JWTs, signed, with the certificate in their head."""

    def __init__(self, signer: Pair) -> None:
        self._signer = signer
        self.given: list[str] = []
        self.life = 60  # seconds

    async def give(self, request: web.Request) -> web.Response:
        expected = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
        if request.headers.get("Authorization") != expected:
            return web.Response(status=401)
        _, name, actions = request.query["scope"].split(":")
        self.given.append(request.query["scope"])
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": LOGIN[0],
            "aud": request.query["service"],
            "exp": now + self.life,
            "nbf": now - 10,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": [{"type": "repository", "name": name, "actions": actions.split(",")}],
        }
        return web.json_response({"token": self._sign(claims)})

    def _sign(self, claims: dict[str, Any]) -> str:
        key = self._signer.key
        der = self._signer.certificate.public_bytes(serialization.Encoding.DER)
        head = {
            "typ": "JWT",
            "alg": "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256",
            "x5c": [base64.b64encode(der).decode()],
        }
        signed = ".".join(_url(json.dumps(part).encode()) for part in (head, claims))
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return f"{signed}.{_url(signature)}"


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def token_server(signer: Pair) -> Iterator[tuple[TokenServer, dict[str, Any]]]:
    """The server, and what docker's registry has to know of it."""
    server = TokenServer(signer)
    application = web.Application()
    application.router.add_get("/token", server.give)
    with serving(application) as url:
        settings = {
            "realm": f"{url}/token",
            "service": "registry.test",
            "issuer": "tests",
            "rootcertbundle": str(signer.certificate_file),
        }
        yield server, {"auth": {"token": settings}}


class Line:
    """A way to a server that counts what goes there, and is cut on demand."""

    def __init__(self, to: str) -> None:
        host, _, port = to.partition(":")
        self._to = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.sent = self.got = 0
        self.cut_at: list[int] = []  # bytes sent at which the line is cut
        self.cut_back_at: list[int] = []  # bytes received
        self.cuts = 0

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            for source, target, counts in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._carry, args=(source, target, counts), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while block := source.recv(1 << 16):
                if counts:
                    self.sent += len(block)
                else:
                    self.got += len(block)
                come, cuts = (self.sent, self.cut_at) if counts else (self.got, self.cut_back_at)
                if cuts and come > cuts[0]:
                    cuts.pop(0)
                    self.cuts += 1
                    break
                target.sendall(block)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@contextmanager
def line(to: str) -> Iterator[Line]:
    way = Line(to)
    thread = threading.Thread(target=way.serve, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        way.close()
        thread.join(5)


def docker_login(folder: Path, host: str) -> Path:
    """A docker config file with the login."""
    file = folder / "config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(":".join(LOGIN).encode()).decode()}}}))
    return file


Signer = Callable[[], Key]
SIGNERS: dict[str, Signer] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
}
