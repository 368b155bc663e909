"""A blob to a registry (OCI distribution-spec 1.1, push): in one request, or in chunks that survive a cut line.

    HEAD  it is there already: nothing is sent
    POST  an upload begins; the registry says where it goes on
    PATCH one chunk; after a cut GET says how far it came, and it goes on there
    PUT   the digest; the registry checks it

A registry may drop the upload that a cut hit (docker's own does): then the blob is begun again. Memory is constant,
whatever the size of the blob.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

from ilab.core.transport import shown
from ilab.errors import ServiceError
from ilab.transfer.registry import Registry, absolute
from ilab.transfer.source import BLOCK
from ilab.transfer.web import Answer, Busy

CHUNK = 64 << 20  # bytes of a request; larger blobs are sent in several
TRIES = 6  # in a row without a byte of progress
LONGEST_PAUSE = 30.0  # seconds
ACTIONS = "pull,push"
FORGOTTEN = (404, 410, 416)  # no such upload, or it is not as far as we were told
_AGAIN = "what has arrived as a whole is kept; the same command sends the rest"
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


class Blob:
    """What is sent: ``digest`` (``sha256:…``), and its bytes in memory or in a file."""

    def __init__(self, digest: str, content: bytes | Path) -> None:
        self.digest, self._content = digest, content
        self.size = len(content) if isinstance(content, bytes) else content.stat().st_size

    def blocks(self, start: int, end: int, sent: Callable[[int], None]) -> Iterator[bytes]:
        """The bytes from ``start`` until before ``end``."""
        if isinstance(self._content, bytes):
            sent(end - start)
            yield self._content[start:end]
            return
        with self._content.open("rb") as handle:
            handle.seek(start)
            while start < end and (block := handle.read(min(BLOCK, end - start))):
                start += len(block)
                yield block
                sent(len(block))


class Upload:
    """Sends blobs to one repository. ``sent`` is told how many bytes went out (less than 0: they go once more)."""

    def __init__(self, registry: Registry, sent: Callable[[int], None], chunk: int = CHUNK) -> None:
        self._registry, self._sent, self._chunk = registry, sent, chunk

    def push(self, blob: Blob) -> bool:
        """Bring ``blob`` there. False where it was there already.

        Raises ``InputError`` where we may not write, ``ServiceError`` for a registry that keeps failing.
        """
        if self._ask("HEAD", self._registry.url(f"blobs/{blob.digest}")).ok:
            self._sent(blob.size)
            return False
        url, at, tries = "", 0, 0
        while True:
            before = at
            try:
                if not url:
                    url, at = self._begin(), 0
                elif tries:
                    url, at = self._where(url, at)
                while blob.size - at > self._chunk:
                    url, at = self._patch(url, blob, at)
                self._finish(url, blob, at)
                return True
            except ServiceError as error:
                if not error.retryable:
                    raise
                if isinstance(error, _Dropped):
                    self._sent(-at)
                    url, at = "", 0
                tries = 1 if at > before else tries + 1
                if tries >= TRIES:
                    raise
                _pause(error, tries)

    def _begin(self) -> str:
        begun = self._ask("POST", self._registry.url("blobs/uploads/"), {"content-length": "0"}, b"")
        if begun.status != 202:
            raise self._registry.failure(begun)
        least = begun.headers.get("oci-chunk-min-length", "")
        self._chunk = max(self._chunk, int(least) if least.isdecimal() and len(least) < 12 else 0)
        return absolute(begun.headers.get("location", ""), begun.url)

    def _where(self, url: str, at: int) -> tuple[str, int]:
        """How far the upload came, by the registry's word. Raises ``_Dropped`` where it knows nothing of it."""
        answer = self._ask("GET", url)
        if answer.status in FORGOTTEN:
            raise _Dropped(url)
        if not answer.ok:
            raise self._registry.failure(answer)
        come = _received(answer)
        if come is None or come > at + self._chunk:
            raise _Dropped(url)
        self._sent(come - at)
        return _next(answer, url), come

    def _patch(self, url: str, blob: Blob, at: int) -> tuple[str, int]:
        end = at + self._chunk
        answer = self._stream("PATCH", url, blob, (at, end))
        if answer.status != 202:
            raise _Dropped(url) if answer.status in FORGOTTEN else self._registry.failure(answer)
        if _received(answer) not in (None, end):
            raise ServiceError("the registry took another part than was sent", where=shown(url), retryable=True)
        return _next(answer, url), end

    def _finish(self, url: str, blob: Blob, at: int) -> None:
        """The last request: what is left of the blob (all of a small one), and the digest."""
        named = f"{url}{'&' if '?' in url else '?'}{urlencode({'digest': blob.digest})}"
        answer = self._stream("PUT", named, blob, (at, blob.size))
        if answer.status != 201:
            raise _Dropped(url) if answer.status in FORGOTTEN else self._registry.failure(answer)

    def _stream(self, method: str, url: str, blob: Blob, part: tuple[int, int]) -> Answer:
        """Send a part of the blob. A token lives for minutes, an upload for hours: it is renewed, and the part sent
        once more. What did not arrive is not counted."""
        start, end = part
        told = 0

        def sent(count: int) -> None:
            nonlocal told
            told += count
            self._sent(count)

        headers = {"content-type": "application/octet-stream", "content-length": str(end - start)}
        if method == "PATCH":
            headers["content-range"] = f"{start}-{end - 1}"
        arrived = False
        try:
            answer = self._registry.ask(method, url, headers, blob.blocks(start, end, sent), actions=ACTIONS)
            if answer.status == 401:
                self._sent(-told)
                told = 0
                self._registry.gain_access(answer, ACTIONS)
                answer = self._registry.ask(method, url, headers, blob.blocks(start, end, sent), actions=ACTIONS)
            arrived = answer.ok
        finally:
            if not arrived:
                self._sent(-told)
        return answer

    def _ask(
        self, method: str, url: str, headers: dict[str, str] | None = None, content: bytes | None = None
    ) -> Answer:
        return self._registry.ask(method, url, headers, content, actions=ACTIONS)


class _Dropped(ServiceError):
    """The registry knows nothing of the upload any more."""

    def __init__(self, url: str) -> None:
        super().__init__("the registry has dropped the upload", where=shown(url), hint=_AGAIN, retryable=True)


def _received(answer: Answer) -> int | None:
    """Bytes that the registry has, by its Range header; it writes ``0-0`` for one byte and for none."""
    match = _RANGE.fullmatch(answer.headers.get("range", ""))
    if match is None or len(match[1]) > 18:
        return None
    last = int(match[1])
    return last + 1 if last else 0


def _next(answer: Answer, url: str) -> str:
    location = answer.headers.get("location", "")
    return absolute(location, answer.url) if location else url


def _pause(error: ServiceError, tries: int) -> None:
    wait = error.wait if isinstance(error, Busy) else None
    time.sleep(min(LONGEST_PAUSE, 2.0 ** (tries - 1) if wait is None else wait))
