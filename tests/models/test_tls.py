"""TLS against a real server on loopback, with certificates made for the test."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ilab.config import Endpoint
from ilab.data import Message
from ilab.errors import InputError, ServiceError, SetupError
from ilab.models.chat import Request
from ilab.models.openai import OpenAIModel
from ilab.models.tls import Route, tls_context
from ilab.models.wire import Wire
from ilab.testing.teacher import Teacher, serve

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem; server.pem for 127.0.0.1; client.pem with an encrypted and a plain key."""
    folder = tmp_path_factory.mktemp("tls")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl(folder, *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    usual = ["-addext", "basicConstraints=critical,CA:FALSE"]
    server = ["-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", *usual]
    openssl(folder, *new, *signed, "-keyout", "server.key", "-out", "server.pem", *server)
    openssl(folder, *new, *signed, "-keyout", "client.key", "-out", "client.pem", "-subj", "/CN=client", *usual)
    openssl(folder, "pkey", "-in", "client.key", "-aes128", "-passout", "pass:opensesame", "-out", "locked.key")
    return folder


@pytest.fixture
def secure(certificates: Path) -> Iterator[Teacher]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    with serve(lambda body: "yes", tls=context) as teacher:
        yield teacher


@pytest.fixture
def strict(certificates: Path) -> Iterator[Teacher]:
    """A server that wants a client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    with serve(lambda body: "yes", tls=context) as teacher:
        yield teacher


def ask(teacher: Teacher, times: int = 1, **settings: Any) -> list[str]:
    async def run() -> list[str]:
        client = OpenAIModel(Endpoint(url=teacher.url, **settings), backoff=0.01, tries=2)
        try:
            asked = Request("teacher", (Message(role="user", content="a"),))
            return [reply.text for reply in await asyncio.gather(*(client.complete(asked) for _ in range(times)))]
        finally:
            await client.close()

    return asyncio.run(run())


def test_a_certificate_of_an_own_authority_is_trusted_when_named(secure: Teacher, certificates: Path) -> None:
    assert ask(secure, 20, ca_file=str(certificates / "ca.pem")) == ["yes"] * 20
    with pytest.raises(ServiceError) as caught:
        ask(secure)
    assert "certificate verify failed" in caught.value.message
    assert "where.teacher.ca_file" in caught.value.hint


def test_insecure_warns_each_time(secure: Teacher, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert ask(secure, insecure=True) == ["yes"]
    assert [record.message for record in caplog.records if record.name == "ilab.models.tls"] == [
        f"{secure.url}: the server's certificate is not checked (where.teacher.insecure)"
    ]


def test_a_client_certificate_with_a_locked_key(
    strict: Teacher, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = {"ca_file": str(certificates / "ca.pem")}
    shown = {**trusted, "client_cert": str(certificates / "client.pem")}
    assert ask(strict, **shown, client_key=str(certificates / "client.key")) == ["yes"]
    monkeypatch.setenv("KEY_PASSWORD", "opensesame")
    locked = {**shown, "client_key": str(certificates / "locked.key")}
    assert ask(strict, **locked, client_key_password="env:KEY_PASSWORD") == ["yes"]
    with pytest.raises(ServiceError):
        ask(strict, **trusted)
    monkeypatch.setenv("KEY_PASSWORD", "wrong-secret")
    with pytest.raises(SetupError) as caught:
        ask(strict, **locked, client_key_password="env:KEY_PASSWORD")
    assert "secret" not in str(caught.value)
    with pytest.raises(SetupError):  # and openssl does not ask on the terminal
        ask(strict, **locked)


def test_files_that_are_no_certificates_are_told(certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    for settings in ({"ca_file": str(tmp_path / "no.pem")}, {"client_cert": str(tmp_path / "missing.pem")}):
        with pytest.raises(SetupError) as caught:
            tls_context(Endpoint(url="https://127.0.0.1/v1", **settings))
        assert caught.value.where == next(iter(settings.values()))
    with pytest.raises(InputError, match="needs its certificate"):
        tls_context(Endpoint(url="https://127.0.0.1/v1", client_key=str(certificates / "client.key")))


def test_the_password_is_given_by_reference() -> None:
    with pytest.raises(ValueError, match="by reference") as caught:
        Endpoint(url="https://127.0.0.1/v1", client_key_password="opensesame")
    assert "opensesame" not in str(caught.value)


def test_tls_goes_through_a_proxys_tunnel(secure: Teacher, certificates: Path) -> None:
    tunnels = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnels.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        host, port = tunnels[-1].split()[1].decode().split(":")
        onwards = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, onwards[1]), copy(onwards[0], writer), return_exceptions=True)

    async def run() -> int:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        context = tls_context(Endpoint(url=secure.url, ca_file=str(certificates / "ca.pem")))
        wire = Wire(secure.url, Route(context, f"http://127.0.0.1:{port}"), {})
        statuses = [(await wire.send("GET", "/models", b"", 5.0)).status for _ in range(2)]
        await wire.close()
        server.close()
        await server.wait_closed()
        return sum(statuses)

    assert asyncio.run(run()) == 400
    assert tunnels == [f"CONNECT {secure.url.split('/')[2]} HTTP/1.1".encode()]
