"""HTTP/1.1 as the teacher's client speaks it, against servers that send exactly the bytes of a test."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.config import Endpoint
from ilab.models.tls import Route, proxy_for
from ilab.models.wire import Answer, Broken, NoConnection, Wire

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + PLAIN
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nhello"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
PACKED = gzip.compress(b"hello", mtime=0)
ZIPPED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(PACKED), PACKED)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head + await reader.readexactly(length)


def talk(
    handler: Handler,
    client: Callable[[Wire], Awaitable[object]],
    base: str = "",
    tls: ssl.SSLContext | None = None,
) -> object:
    """What ``client`` returns, with a server on loopback that answers each connection by ``handler``.

    With ``base`` the server is a proxy.
    """

    async def run() -> object:
        tasks = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(asyncio.current_task())
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await handler(reader, writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        proxy = f"http://u:p%40@127.0.0.1:{port}" if base else ""
        wire = Wire(base or f"http://127.0.0.1:{port}/v1", Route(tls, proxy), {})
        try:
            return await client(wire)
        finally:
            await wire.close()
            server.close()
            await asyncio.gather(*tasks)

    return asyncio.run(run())


def sends(*pieces: bytes, close: bool = False) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                break

    return handle


async def post(wire: Wire) -> Answer:
    return await wire.send("POST", "/x", b"{}", 5.0)


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED, EARLY, TO_THE_END, OLD, ZIPPED])
def test_every_way_to_frame_a_body(raw: bytes) -> None:
    answer = talk(sends(raw, close=raw is TO_THE_END), post)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, b"hello")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([PLAIN, CHUNKED, EARLY, ZIPPED]), st.data())
def test_where_the_bytes_are_cut_makes_no_difference(raw: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=6, unique=True).map(sorted))
    pieces = [raw[a:b] for a, b in pairwise([0, *cuts, len(raw)])]

    async def twice(wire: Wire) -> list[Answer]:
        return [await post(wire), await post(wire)]

    assert [answer.body for answer in talk(sends(*pieces), twice)] == [b"hello"] * 2


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"",
    ],
)
def test_what_is_no_answer_breaks_the_connection(raw: bytes) -> None:
    async def once(wire: Wire) -> None:
        with pytest.raises(Broken):
            await post(wire)
        assert not wire._idle

    talk(sends(raw, close=True), once)


def test_a_connection_is_used_again_and_replaced_when_the_server_closed_it() -> None:
    connections = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(await read_request(reader))
        writer.write(PLAIN)
        await read_request(reader)
        writer.write(PLAIN)
        if len(connections) == 1:
            await reader.readexactly(1)  # the next request is on its way, and is never answered
        writer.close()

    async def client(wire: Wire) -> None:
        for _ in range(4):
            assert (await post(wire)).body == b"hello"

    talk(handle, client)
    assert len(connections) == 2
    assert connections[0].startswith(b"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:")


def test_a_time_out_and_a_cancelled_call_cost_their_connection_alone() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while body := await read_request(reader):
            if b"slow" in body:
                await reader.read()
                return
            writer.write(PLAIN)

    async def client(wire: Wire) -> None:
        with pytest.raises(TimeoutError, match=r"within 0\.05 seconds"):
            await wire.send("POST", "/x", b"slow", 0.05)
        call = asyncio.create_task(wire.send("POST", "/x", b"slow", 5.0))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert (await post(wire)).body == b"hello"
        assert len(wire._idle) == 1

    talk(handle, client)


def test_plain_requests_go_through_a_proxy_whole() -> None:
    seen = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    answer = talk(handle, post, base="http://models.example/v1")
    assert isinstance(answer, Answer)
    assert answer.body == b"hello"
    assert seen[0].startswith(b"POST http://models.example:80/v1/x HTTP/1.1\r\nHost: models.example\r\n")
    assert b"Proxy-Authorization: Basic dTpwQA==\r\n" in seen[0]  # u:p@


def test_a_proxy_that_refuses_is_told() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def client(wire: Wire) -> None:
        with pytest.raises(NoConnection, match=r"the proxy 127\.0\.0\.1 refuses the connection: HTTP 407"):
            await post(wire)

    talk(handle, client, "https://models.example/v1", ssl.create_default_context())


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://models.example/v1", "http://proxy.example:3128"),
        ("http://models.example/v1", ""),
        ("https://inside.example/v1", ""),
        ("https://127.0.0.1:8000/v1", ""),
        ("https://[::1]:8000/v1", ""),
        ("https://localhost/v1", ""),
    ],
)
def test_the_environments_proxy_is_used_but_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, url: str, proxy: str
) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxy_for(url) == proxy


def test_the_limit_of_open_files_is_raised_and_told_when_it_is_reached() -> None:
    """In a process of its own: the limits hold for all of it."""
    program = """
import asyncio, resource
from ilab.errors import SetupError
from ilab.models.tls import Route
from ilab.models.wire import OTHER_FILES, Wire, allow_connections

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 400))
allow_connections(100)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (100 + OTHER_FILES, 400)
allow_connections(1000)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, 400)
allow_connections(1)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, 400)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 400))

async def main():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Route(None, ""), {})
    done = await asyncio.gather(*(wire.send("GET", "/", b"", 1.0) for _ in range(60)), return_exceptions=True)
    print(next(error.hint for error in done if isinstance(error, SetupError)))
    await wire.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "where.teacher.in_flight" in done.stdout


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match=r"where\.teacher\.api_key") as caught:
        Endpoint(url="http://me:secret@127.0.0.1:8000/v1")
    assert "secret" not in str(caught.value)
