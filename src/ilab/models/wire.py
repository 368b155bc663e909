"""HTTP/1.1 for one server: requests with a body in memory, answers read whole, connections kept (RFC 9110, 9112).

Generation is bound by the processor time of a call, and a general HTTP client spends most of it (docs/decisions/0008):
here a call is one write, one future and one timer. So there is only what the teacher's protocol needs: no redirects,
no cookies, no streaming, no HTTP/2. Connections are as many as requests under way, the last used is taken first, and
one that the server closed while it was idle is replaced without a word. TLS and proxies come from
:mod:`ilab.models.tls`.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import zlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote, unquote, urlsplit

from ilab import __version__
from ilab.errors import SetupError
from ilab.models.tls import Route, is_local

CONNECT = 10.0  # seconds at most for a connection, its proxy and its TLS handshake
HEAD_LIMIT, BODY_LIMIT = 1 << 16, 1 << 26  # bytes of an answer; beyond it is no chat completion
OTHER_FILES = 256  # that may be open beside the connections
CLOSING = 1.0  # seconds that a TLS connection may take to say goodbye


class NoConnection(ConnectionError):
    """No connection could be made: nobody listens there, the name is unknown, the certificates do not fit."""


class Broken(ConnectionError):
    """The connection broke off, or what came is not HTTP. ``unanswered``: before the first byte of an answer."""

    def __init__(self, reason: str, unanswered: bool = False) -> None:
        super().__init__(reason)
        self.unanswered = unanswered


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` by name in lower case; ``body`` decoded from its transfer and content codings."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """Connections to the server of ``base`` (its URL without a slash at the end). ``headers`` go with each request."""

    def __init__(self, base: str, route: Route, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._route = route
        self._path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = f"{host}:{self._port}"
        own = {"Host": self._authority if parts.port else host, "User-Agent": f"ilab/{__version__}"}
        own |= {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        self._proxy = urlsplit(route.proxy)
        self._through = _proxy_head(self._proxy.username, self._proxy.password)
        self._head = "".join(f"{name}: {value}\r\n" for name, value in {**own, **headers}.items())
        self._prefixes: dict[tuple[str, str], bytes] = {}
        self._idle: dict[_Connection, None] = {}
        self._open: set[_Connection] = set()

    async def send(self, method: str, path: str, body: bytes, limit: float) -> Answer:
        """Send one request to ``base + path`` and read the answer.

        Raises ``TimeoutError`` when the whole of it does not come within ``limit`` seconds, :class:`NoConnection`
        or :class:`Broken` when the connection fails, ``SetupError`` when this process may open no more of them.
        """
        prefix = self._prefixes.get((method, path)) or self._prefix(method, path)
        data = b"%s%d\r\n\r\n%s" % (prefix, len(body), body)
        while True:
            idle = bool(self._idle)
            connection = self._idle.popitem()[0] if idle else await self._connect(min(CONNECT, limit))
            try:
                answer = await connection.exchange(data, limit)
            except Broken as error:
                if idle and error.unanswered:  # closed by the server while nobody used it
                    continue
                raise
            if connection.alive:
                self._idle[connection] = None
            return answer

    async def close(self) -> None:
        """Close every connection. The wire may be used again afterwards, also on another event loop."""
        closing = list(self._open)
        for connection in closing:
            connection.transport.close()
        if closing:
            await asyncio.wait([connection.lost for connection in closing], timeout=CLOSING)
        for connection in closing:
            connection.transport.abort()
        self._idle.clear()
        self._open.clear()

    def _prefix(self, method: str, path: str) -> bytes:
        plain_proxy = self._route.proxy and not self._secure
        target = f"{self._path}{path}"
        if plain_proxy:  # the proxy reads the request itself
            target = f"http://{self._authority}{target}"
        head = f"{method} {target} HTTP/1.1\r\n{self._head}{self._through if plain_proxy else ''}Content-Length: "
        self._prefixes[method, path] = head.encode()
        return self._prefixes[method, path]

    async def _connect(self, limit: float) -> _Connection:
        try:
            async with asyncio.timeout(limit):
                return await self._dial()
        except TimeoutError as error:
            raise NoConnection(f"no connection within {limit:g} seconds") from error
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise SetupError(
                    f"no more than {len(self._open)} connections may be open at once",
                    hint="lower where.teacher.in_flight, or raise the limit of open files: ulimit -n 8192",
                ) from error
            raise NoConnection(" ".join(str(error).split()) or type(error).__name__) from error

    async def _dial(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connection = _Connection(self)
        tls = self._route.context if self._secure else None
        try:
            if not self._route.proxy:
                # Addresses are tried side by side (RFC 8305); on this machine there is nothing to wait for.
                delay = None if is_local(self._host) else 0.25
                await loop.create_connection(
                    lambda: connection, self._host, self._port, ssl=tls, happy_eyeballs_delay=delay
                )
                return connection
            proxied = self._proxy.scheme == "https"
            port = self._proxy.port or (443 if proxied else 80)
            context = self._route.context if proxied else None
            await loop.create_connection(lambda: connection, self._proxy.hostname or "", port, ssl=context)
            if tls:
                await self._tunnel(connection)
                upgraded = await loop.start_tls(connection.transport, connection, tls, server_hostname=self._host)
                connection.transport = cast(asyncio.Transport, upgraded)
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _tunnel(self, connection: _Connection) -> None:
        head = f"CONNECT {self._authority} HTTP/1.1\r\nHost: {self._authority}\r\n{self._through}\r\n"
        answer = await connection.exchange(head.encode(), CONNECT, tunnel=True)
        if answer.status != 200:
            raise Broken(f"the proxy {self._proxy.hostname} refuses the connection: HTTP {answer.status}")


def allow_connections(count: int) -> None:
    """Raise this process's soft limit of open files, often 1,024, so far that ``count`` connections fit beside others.

    Where the hard limit is lower, it is told when it is reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if resource.RLIM_INFINITY != soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    __slots__ = ("_buffer", "_head", "_pieces", "_size", "_tunnel", "_waiter", "_wire", "alive", "lost", "transport")
    transport: asyncio.Transport

    def __init__(self, wire: Wire) -> None:
        self.alive = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._waiter: asyncio.Future[Answer] | None = None
        self._buffer = bytearray()
        self._pieces: list[bytes] = []  # of a chunked body, and how long they are together
        self._size = 0
        self._head: _Head | None = None
        self._tunnel = False

    async def exchange(self, data: bytes, limit: float, tunnel: bool = False) -> Answer:
        """Send ``data`` and wait for the answer. Whatever goes wrong closes the connection."""
        loop = asyncio.get_running_loop()
        if not self.alive:
            raise Broken("the connection broke off", unanswered=True)
        waiter: asyncio.Future[Answer] = loop.create_future()
        self._waiter = waiter
        self._tunnel = tunnel
        timer = loop.call_later(limit, self._expire, limit)
        self.transport.write(data)
        try:
            return await waiter
        except BaseException:
            self.drop()
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def drop(self) -> None:
        """Close at once, without a word to the server."""
        if self.alive:
            self.alive = False
            self.transport.abort()

    # -- called by asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.alive = True
        self._wire._open.add(self)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.drop()  # an answer that nobody asked for: what follows cannot be told apart
            return
        self._buffer += data
        try:
            answer = self._read()
        except (ValueError, IndexError, zlib.error):
            self._fail(Broken(f"the answer is not HTTP: {bytes(self._buffer[:60])!r}"))
        else:
            if answer is not None:
                self._finish(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._wire._open.discard(self)
        self._wire._idle.pop(self, None)
        if not self.lost.done():
            self.lost.set_result(None)
        head = self._head
        if head is not None and head.length is None and not head.chunked and exc is None:
            self._finish(head.answer(bytes(self._buffer)))  # the end of the connection is the end of the body
        else:
            self._fail(Broken("the connection broke off", unanswered=not self._buffer and head is None))

    # -- reading an answer ---------------------------------------------------------------------------------------

    def _read(self) -> Answer | None:
        """The answer, once all of it is in the buffer. Raises ``ValueError`` for what is none."""
        while self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0 or end > HEAD_LIMIT:
                if len(self._buffer) > HEAD_LIMIT:
                    raise ValueError("the head is too long")
                return None
            head = _read_head(bytes(self._buffer[:end]), self._tunnel)
            del self._buffer[: end + 4]
            if head.status >= 200:  # others announce that the real one follows
                self._head = head
        if len(self._buffer) > BODY_LIMIT:
            raise ValueError("the body is too long")
        if self._head.chunked:
            return self._head.answer(b"".join(self._pieces)) if self._read_chunks() else None
        if self._head.length is None or len(self._buffer) < self._head.length:
            return None
        if len(self._buffer) > self._head.length:
            raise ValueError("more came than was announced")
        return self._head.answer(bytes(self._buffer))

    def _read_chunks(self) -> bool:
        """Move what is complete from the buffer to ``_pieces``; whether the last chunk and its trailers are in."""
        while (end := self._buffer.find(b"\r\n")) >= 0:
            size = int(bytes(self._buffer[:end]).partition(b";")[0].strip(), 16)
            if size < 0 or size + self._size > BODY_LIMIT:
                raise ValueError("the body is too long")
            if size == 0:
                trailers = self._buffer.find(b"\r\n\r\n", end)
                if 0 <= trailers < len(self._buffer) - 4:
                    raise ValueError("more came than was announced")
                return trailers >= 0
            if len(self._buffer) < end + size + 4:
                return False
            if self._buffer[end + 2 + size : end + 4 + size] != b"\r\n":
                raise ValueError("a chunk has no end")
            self._pieces.append(bytes(self._buffer[end + 2 : end + 2 + size]))
            self._size += size
            del self._buffer[: end + 4 + size]
        return False

    def _finish(self, answer: Answer) -> None:
        keep = self._head is not None and self._head.keep
        self._head = None
        self._buffer.clear()
        self._pieces.clear()
        self._size = 0
        if not keep:
            self.drop()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(answer)

    def _expire(self, limit: float) -> None:
        self._fail(TimeoutError(f"no answer within {limit:g} seconds"))

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Head:
    """``length`` of the body in bytes: None where it is chunked or ends with the connection."""

    status: int
    headers: dict[str, str]
    length: int | None
    chunked: bool
    keep: bool

    def answer(self, body: bytes) -> Answer:
        coding = self.headers.get("content-encoding", "identity").lower()
        if coding in ("gzip", "x-gzip", "deflate"):  # although only identity was asked for
            body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, BODY_LIMIT)
        elif coding != "identity":
            raise ValueError(f"unknown content coding {coding}")
        return Answer(self.status, self.headers, body)


def _read_head(raw: bytes, tunnel: bool) -> _Head:
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdecimal():
        raise ValueError("no status line")
    status = int(rest[:3])
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if not colon or not name or name != name.strip():
            raise ValueError("no header")
        if name == "content-length" and headers.get(name, value) != value:
            raise ValueError("two lengths")
        headers[name] = value
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    length: int | None = None
    if (tunnel and status == 200) or status in (204, 304) or status < 200:
        length, chunked = 0, False
    elif "transfer-encoding" in headers:
        if not chunked:
            raise ValueError("unknown transfer coding")
    elif "content-length" in headers:
        if not headers["content-length"].isdecimal():
            raise ValueError("no length")
        length = int(headers["content-length"])
    said = headers.get("connection", "").lower()
    keep = "close" not in said and (version == "HTTP/1.1" or "keep-alive" in said)
    return _Head(status, headers, length, chunked, keep and (chunked or length is not None))


def _proxy_head(user: str | None, password: str | None) -> str:
    if not user:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return f"Proxy-Authorization: Basic {b64encode(pair).decode()}\r\n"
