"""One guarded, synchronous HTTP client for everything that is not a model.

    Web.ask      one request, any status, no redirects
    Web.follow   redirects followed, any status
    Web.get      redirects followed, an error for all but success
    fetch        get, kept in the cache with its validators

Addresses come out of documents that anybody may have written, so: http and https only, no passwords in addresses,
public addresses only (see ``core/addresses.py``) and so at every redirect, at most ``max_bytes`` *after* decompression,
an end to slow replies, TLS always verified, no cookies, no referrer. How httpx2 is told so stands in
``core/transport.py``, where its exceptions are wrapped too.

With a proxy in the environment (``HTTPS_PROXY`` …) the proxy connects. Names are then resolved and checked before they
are handed to it, which a changing name can outwit: the proxy has to guard itself. A name that this machine cannot
resolve, as is usual behind a proxy, is left to the proxy, unless it is one that only inner networks have.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx2

from ilab.core.addresses import Backend, is_private, resolve
from ilab.core.files import write_bytes, write_json
from ilab.core.transport import in_our_words, new_client, proxy_for, shown, trust
from ilab.errors import IlabError, InputError, ServiceError, SetupError

if TYPE_CHECKING:
    from ilab.config import WebWhere

MAX_REDIRECTS = 10
MAX_ADDRESS = 2000  # characters
TOTAL = 10  # times ``timeout``: how long a whole reply may take
_INNER_NAMES = (".internal", ".local", ".localhost", ".lan", ".home.arpa")
_CODINGS = {"", "gzip", "x-gzip", "deflate", "identity"}
_BUSY = (408, 425, 429)


@dataclass(frozen=True)
class Reply:
    """What a server answered. ``url`` is the address that answered, header names are in lower case.

    Only a success (2xx) has a ``body``.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def media(self) -> str:
        """The content type without parameters, in lower case, or ``""``."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """The character set named in the content type, or ``""``."""
        header = Message()
        header["content-type"] = self.headers.get("content-type", "")
        return header.get_content_charset("") or ""

    @property
    def found(self) -> bool:
        return 200 <= self.status < 300

    @property
    def unchanged(self) -> bool:
        return self.status == 304

    @property
    def location(self) -> str:
        """Where a redirect leads, as an absolute address, or ``""`` for all other replies.

        From https it never leads to http: the secure address is asked instead, on the same name.
        """
        target = self.headers.get("location", "")
        if self.status not in (301, 302, 303, 307, 308) or not target:
            return ""
        try:
            joined = httpx2.URL(self.url).join(target)
            if self.url.startswith("https:") and joined.scheme == "http":
                joined = joined.copy_with(scheme="https")
        except httpx2.InvalidURL as error:
            raise InputError(f"redirects to no valid address ({error})", where=self.url) from error
        return str(joined)

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait (RFC 9110, 10.2.3), or ``None``."""
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())

    def error(self) -> IlabError | None:
        """The error that the status means, or ``None`` for success and *not modified*."""
        if self.found or self.unchanged:
            return None
        if self.status in (404, 410):
            hint = "correct the address, or take the reference out"
            return InputError(f"there is nothing at this address ({self.status})", where=self.url, hint=hint)
        if self.status in (401, 403, 407):
            hint = "only what everybody may read can be fetched; save it by hand and refer to the file"
            return InputError(f"the server does not let us read this ({self.status})", where=self.url, hint=hint)
        if self.status in _BUSY or self.status >= 500:
            wait = self.retry_after
            hint = "try again later" if wait is None else f"the server asks to wait {wait:.0f} seconds"
            return ServiceError(f"the server answers {self.status}", where=self.url, hint=hint, retryable=True)
        return InputError(f"the server answers {self.status}", where=self.url, hint="look at it with a browser")


class Web:
    """The client. Keeps connections open between requests; for one thread at a time.

    Raises ``SetupError`` for a ``ca_file`` that cannot be read.
    """

    def __init__(self, settings: WebWhere) -> None:
        self.settings = settings
        self._tls = trust(settings.ca_file)
        self._direct = Backend(settings.private_hosts)
        self._routes: dict[str, tuple[httpx2.Client, Backend]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client, _backend in self._routes.values():
            client.close()

    def get(self, url: str, *, etag: str = "", modified: str = "") -> Reply:
        """The page at ``url``, behind at most ten redirects; status 2xx, or 304 where a validator is given.

        Raises ``InputError`` for an address that may not be read or holds nothing, ``ServiceError`` for a server
        that fails, is too busy, too slow or cannot be reached (``retryable``).
        """
        reply = self.follow(url, etag=etag, modified=modified)
        error = reply.error()
        if error is not None:
            raise error
        return reply

    def follow(self, url: str, *, etag: str = "", modified: str = "") -> Reply:
        """The reply behind at most ten redirects, each checked like a first address; any status."""
        asked = url
        for _ in range(MAX_REDIRECTS + 1):
            reply = self.ask(url, etag=etag, modified=modified)
            if not reply.location:
                return reply
            url = reply.location
        raise InputError(f"redirects more than {MAX_REDIRECTS} times", where=shown(asked))

    def ask(self, url: str, *, etag: str = "", modified: str = "", media: tuple[str, ...] = ()) -> Reply:
        """One request. Any status comes back, redirects too (see ``Reply.location``).

        With ``media`` the body of any other content type is not read. ``etag`` and ``modified`` (``Last-Modified``)
        of a copy at hand make the request conditional.
        """
        address = parsed(url)
        client, backend = self._route(address)
        given = {"if-none-match": etag, "if-modified-since": modified}
        request = client.build_request("GET", address, headers={name: value for name, value in given.items() if value})
        backend.deadline = time.monotonic() + TOTAL * self.settings.timeout
        with in_our_words(str(address), backend, self.settings.timeout):
            response = client.send(request, stream=True)
            try:
                head = Reply(str(address), response.status_code, {**response.headers})
                wanted = not media or not head.media or head.media in media
                return replace(head, body=self._body(response)) if head.found and wanted else head
            finally:
                response.close()

    def _body(self, response: httpx2.Response) -> bytes:
        """The decompressed body. The library decompresses at most 1 MiB at a time, so no bomb goes off."""
        codings = {coding.strip().lower() for coding in response.headers.get("content-encoding", "").split(",")}
        if codings - _CODINGS:
            message = f"answers in an encoding that nobody asked for: {', '.join(sorted(codings - _CODINGS))}"
            raise ServiceError(message, where=str(response.url))
        most = self.settings.max_bytes
        hint = "if it shall be read all the same: --set where.web.max_bytes=BYTES"
        too_large = InputError(f"is larger than {most / 2**20:.3g} MiB", hint=hint)
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise too_large
        body = bytearray()
        for part in response.iter_bytes():
            body += part
            if len(body) > most:
                raise too_large
        return bytes(body)

    def _route(self, url: httpx2.URL) -> tuple[httpx2.Client, Backend]:
        """The client for ``url``, and the backend that knows its deadline: direct, or through a proxy."""
        proxy = proxy_for(url)
        if proxy:
            self._check_name(url)
        if proxy not in self._routes:
            backend = Backend(None) if proxy else self._direct
            self._routes[proxy] = new_client(self._tls, backend, proxy, self.settings.timeout), backend
        return self._routes[proxy]

    def _check_name(self, url: httpx2.URL) -> None:
        """Refuse a name that stands for a private address before a proxy is asked for it."""
        try:
            addresses = resolve(url.host, url.port or 80)
        except (OSError, UnicodeError):
            name = url.host.rstrip(".").lower()
            inner = "." not in name or name.endswith(_INNER_NAMES)
            if inner and not is_private(name, self.settings.private_hosts):
                raise InputError(f"{name} is a name of an inner network", where=str(url)) from None
            return
        self._direct.check(url.host, addresses)


@dataclass(frozen=True)
class Fetched:
    """A file fetched from ``url`` (the address behind all redirects); ``media`` is its content type, or ``""``.

    ``path`` is named by the contents, so it keeps holding them when the address gives something else later.
    ``stale``: the server could not be reached, this is what it gave the last time.
    """

    path: Path
    url: str
    media: str
    stale: bool


@dataclass(frozen=True)
class _Copy:
    """What is remembered of a copy in the cache; ``sha256`` names the file."""

    asked: str
    url: str
    media: str
    etag: str
    modified: str
    sha256: str


def fetch(url: str, cache: Path, settings: WebWhere) -> Fetched:
    """The file at ``url``, kept below ``cache/web``. Asks the server each time whether the copy there still holds.

    Raises as :meth:`Web.get` does; a server that cannot be reached is no error while there is a copy.
    """
    asked = str(parsed(url))
    home = cache / "web" / hashlib.sha256(asked.encode()).hexdigest()[:16]
    copy = _read_copy(home, asked)
    with Web(settings) as web:
        try:
            reply = web.get(asked, etag=copy.etag if copy else "", modified=copy.modified if copy else "")
        except ServiceError:
            if copy is None:
                raise
            return Fetched(home / copy.sha256, copy.url, copy.media, stale=True)
    if copy is None or not reply.unchanged:
        if reply.unchanged:
            raise ServiceError("says that nothing changed, to a first request", where=asked)
        copy = _keep(home, asked, reply)
    return Fetched(home / copy.sha256, copy.url, copy.media, stale=False)


def parsed(url: str) -> httpx2.URL:
    """``url`` in one spelling, without fragment. Raises ``InputError`` for what may not be asked for."""
    try:
        address = httpx2.URL(url).copy_with(fragment=None)
        valid = bool(address.host) and (address.port is None or 0 < address.port < 65536)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise InputError(f"is no address of a web page ({error})", where=shown(url)) from error
    if address.scheme not in ("http", "https") or not valid or len(str(address)) > MAX_ADDRESS:
        raise InputError("is no address of a web page", where=shown(url), hint="it begins with https:// or http://")
    if address.userinfo:
        raise InputError("an address with a user name or password is not read", where=shown(url))
    return address


def _read_copy(home: Path, asked: str) -> _Copy | None:
    """The newest copy below ``home``, or ``None`` where there is none that can be used."""
    try:
        copy = _Copy(**json.loads((home / "reply.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return copy if copy.asked == asked and (home / copy.sha256).is_file() else None


def _keep(home: Path, asked: str, reply: Reply) -> _Copy:
    """Keep the body, then what points to it: whoever reads in between finds the older copy."""
    name = hashlib.sha256(reply.body).hexdigest()
    etag, modified = reply.headers.get("etag", ""), reply.headers.get("last-modified", "")
    copy = _Copy(asked, reply.url, reply.media, etag, modified, name)
    try:
        write_bytes(home / name, reply.body)
        write_json(home / "reply.json", asdict(copy))
    except OSError as error:
        hint = "free some disk space, or give another folder with --set where.cache=FOLDER"
        raise SetupError(f"cannot keep a fetched page: {error}", where=str(home), hint=hint) from error
    return copy
