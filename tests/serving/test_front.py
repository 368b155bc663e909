"""What every server of ours has: greeting, names, key, TLS, metrics, the page of addresses, ports that are taken."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ilab.config_where import ServeWhere
from ilab.errors import SetupError
from ilab.models.local import LocalModel
from ilab.serving.front import GREETING, Front
from ilab.serving.listen import bind, run, server_tls
from ilab.serving.readiness import answering
from ilab.serving.server import Server
from ilab.testing.loopback import serving

MESSAGES = [{"role": "user", "content": "How many locks?"}]
NAMES = ("tiny", "models/tiny", "<b>")


@pytest.fixture
def base(local: LocalModel) -> Iterator[str]:
    with serving(Server(local, "tiny", Front(NAMES, "a-key", 256)).application()) as url:
        yield url


def call(url: str, body: Any = None, key: str = "") -> tuple[int, str]:
    async def talk() -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request("POST" if body else "GET", url, json=body) as reply,
        ):
            return reply.status, await reply.text()

    return asyncio.run(talk())


def test_greeting_and_addresses(base: str) -> None:
    status, text = call(base)
    assert (status, GREETING in text) == (200, True)
    status, page = call(f"{base}/docs")
    assert status == 200
    assert "<code>/v1/chat/completions</code>" in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_every_name_is_served(base: str) -> None:
    assert answering(f"{base}/v1", "a-key") == list(NAMES)
    for name in NAMES:
        body = {"model": name, "messages": MESSAGES, "max_tokens": 1}
        status, text = call(f"{base}/v1/chat/completions", body, "a-key")
        assert status == 200
        assert f'"model": "{name}"' in text
    assert call(f"{base}/v1/chat/completions", {"model": "other", "messages": MESSAGES}, "a-key")[0] == 404


@pytest.mark.parametrize("key", ["", "another", "a-key2"])
def test_the_key(base: str, key: str) -> None:
    status, text = call(f"{base}/v1/models", key=key)
    assert status == 401
    assert "invalid_api_key" in text
    assert "a-key" not in text
    assert answering(f"{base}/v1", key) == []
    assert call(f"{base}/health", key=key)[0] == 200


def test_metrics(base: str) -> None:
    call(f"{base}/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 3, "temperature": 0}, "a-key")
    call(f"{base}/v1/completions", {"prompt": "a", "max_tokens": 2, "stream": True}, "a-key")
    call(f"{base}/v1/chat/completions", {"messages": []}, "a-key")
    call(f"{base}/made/up/by/a/client")
    _, text = call(f"{base}/metrics")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    chat = "/v1/chat/completions"
    assert found["ilab_requests_total", chat, "200"] == found["ilab_requests_total", chat, "400"] == 1
    assert found["ilab_requests_total", "other", "404"] == 1
    assert found["ilab_request_seconds_count", chat] == 2
    assert found[("ilab_requests_in_flight",)] == 1  # this one
    assert 3 <= found["ilab_tokens_total", "completion"] <= 5
    assert found["ilab_tokens_total", "prompt"] > 3
    assert "made" not in text


def test_tls(local: LocalModel, tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=localhost", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    subprocess.run(made, check=True, capture_output=True)
    settings = ServeWhere(tls_cert=str(tmp_path / "cert"), tls_key=str(tmp_path / "key"))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert"))

    async def talk() -> tuple[int, str, int]:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        with bind("127.0.0.1", 0) as bound:
            application = Server(local, "tiny").application()
            server = asyncio.create_task(run(application, bound, server_tls(settings), ready.set_result))
            url = await ready
            address = url.replace("127.0.0.1", "localhost") + "/models"
            async with aiohttp.ClientSession() as session, session.get(address, ssl=trusting) as reply:
                status = reply.status
            os.kill(os.getpid(), 15)
            return status, url, await server

    status, url, number = asyncio.run(talk())
    assert (status, number) == (200, 15)
    assert url.startswith("https://127.0.0.1:")
    with pytest.raises(SetupError, match="cannot be used"):
        server_tls(ServeWhere(tls_cert=str(tmp_path / "none")))


def test_who_has_the_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"error while attempting to bind on address .*{port}") as caught:
            bind("127.0.0.1", port)
    told = re.search(r"is taken by (\S+).*, process (\d+)", caught.value.message)
    if Path("/proc/net/tcp").exists():
        assert told
        assert int(told[2]) == os.getpid()
