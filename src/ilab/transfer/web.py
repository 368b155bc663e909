"""HTTP as hubs and registries need it: any method, bodies of any size, ranges, tokens that stay where they belong.

Trust, proxies and time-outs are those of ``where.web``. A token goes to the origin it was given for: behind a redirect
to another one it is left out. From https no redirect leads to http.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from ilab.config import WebWhere
from ilab.core.addresses import Backend
from ilab.core.transport import in_our_words, new_client, proxy_for, shown, trust
from ilab.core.web import Reply
from ilab.errors import IlabError, InputError, ServiceError
from ilab.transfer.source import BLOCK, Body

MAX_REDIRECTS = 10
MOST = 32 << 20  # bytes of a reply that is read at once
PRIVATE = frozenset({"authorization", "cookie"})


class Busy(ServiceError):
    """A server that asks to come back; ``wait`` is in seconds, None where it does not say when."""

    def __init__(self, message: str, wait: float | None, **more: Any) -> None:
        super().__init__(message, retryable=True, **more)
        self.wait = wait


@dataclass(frozen=True)
class Answer:
    """``url`` is the address that answered, header names are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON. Raises ``ServiceError`` for anything else."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            hint = "is the address right?"
            raise ServiceError("does not answer with JSON", where=shown(self.url), hint=hint) from error

    def failure(self) -> IlabError:
        """What a status that is no success means, where nobody knows better."""
        wait = Reply(self.url, self.status, self.headers).retry_after
        where = shown(self.url)
        if self.status in (408, 425, 429) or self.status >= 500:
            busy = self.status == 429
            later = "try again later" if wait is None else f"it asks to wait {wait:.0f} seconds"
            hint = f"{later}; what has arrived is kept, the same command goes on from there"
            return Busy("too many requests (429)" if busy else f"answers {self.status}", wait, where=where, hint=hint)
        if self.status == 404:
            return InputError("there is nothing at this address (404)", where=where, hint="check the name")
        if self.status in (401, 403):
            return InputError(f"refuses access ({self.status})", where=where, hint="check the token or password")
        return InputError(f"answers {self.status}", where=where, hint="is the address right?")


class Http:
    """The client; may be used from several threads. Raises ``SetupError`` for a ``ca_file`` that cannot be read."""

    def __init__(self, settings: WebWhere) -> None:
        self._timeout = settings.timeout
        self._tls = trust(settings.ca_file)
        self._backend = Backend(None)  # the user named the server, so it may be in their own network
        self._clients: dict[str, httpx2.Client] = {}

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Answer:
        """One request, redirects of GET and HEAD followed; any status. Raises ``ServiceError`` for no answer."""
        with self._sent(method, url, headers or {}, content) as response:
            body = bytearray()
            for block in response.iter_bytes(BLOCK):
                body += block
                if len(body) > MOST:
                    raise ServiceError(f"answers with more than {MOST >> 20} MiB", where=shown(url))
            return _answer(response, bytes(body))

    @contextmanager
    def body(self, url: str, start: int, headers: Mapping[str, str]) -> Iterator[Body]:
        """The bytes at ``url`` from ``start`` on, or from 0 where the server knows no ranges.

        Raises what :meth:`Answer.failure` says, and ``ServiceError`` where the connection dies, also between blocks.
        """
        asked = {**headers, "accept-encoding": "identity"} | ({"range": f"bytes={start}-"} if start else {})
        with self._sent("GET", url, asked, None) as response:
            if response.status_code not in (200, 206):
                raise _answer(response, b"").failure()
            begins = 0
            if response.status_code == 206:
                text = response.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
                begins = int(text) if text.isdigit() else -1
            if begins not in (0, start):
                raise ServiceError("sends another part than was asked for", where=shown(url), retryable=True)
            yield Body(begins, response.iter_raw())  # as it comes: what is gathered would be lost when the line dies

    @contextmanager
    def _sent(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | Iterable[bytes] | None
    ) -> Iterator[httpx2.Response]:
        given = {name.lower(): value for name, value in headers.items()}
        for _ in range(MAX_REDIRECTS + 1):
            address = parsed(url)
            with in_our_words(shown(url), self._backend, self._timeout):
                client = self._client(proxy_for(address))
                request = client.build_request(method, address, headers=given, content=content)
                response = client.send(request, stream=True)
                try:
                    target = Reply(str(address), response.status_code, {**response.headers}).location
                    if not target or method not in ("GET", "HEAD"):
                        yield response
                        return
                finally:
                    response.close()
            if origin(target) != origin(url):
                given = {name: value for name, value in given.items() if name not in PRIVATE}
            url = target
        raise ServiceError(f"redirects more than {MAX_REDIRECTS} times", where=shown(url))

    def _client(self, proxy: str) -> httpx2.Client:
        if proxy not in self._clients:
            self._clients[proxy] = new_client(self._tls, self._backend, proxy, self._timeout)
        return self._clients[proxy]


def parsed(url: str) -> httpx2.URL:
    """``url`` as http or https address. Raises ``InputError`` for what is none."""
    try:
        address = httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise InputError(f"is no address ({error})", where=shown(url)) from error
    if address.scheme not in ("http", "https") or not address.host or address.userinfo:
        raise InputError("is no address of a server", where=shown(url), hint="it begins with https:// or http://")
    return address


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454)."""
    address = parsed(url)
    return address.scheme, address.host, address.port or (443 if address.scheme == "https" else 80)


def _answer(response: httpx2.Response, body: bytes) -> Answer:
    return Answer(str(response.url), response.status_code, {**response.headers}, body)
