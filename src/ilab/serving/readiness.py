"""Waiting for a server that was just started, as long as it lives and says something."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ilab.core.keeper import Child
from ilab.errors import SetupError
from ilab.models.tls import is_local

ASK = 2.0  # seconds that a server may take to list its models
PAUSE = 0.1  # seconds between two questions whether it is ready
SPEAK = 5.0  # seconds between two lines about the start
SILENT = 900.0  # seconds without a word in the log after which a start has failed
TAIL = 16 << 10  # bytes of a log that are looked at
LINES = 6  # of a log that an error shows
CAUSES = 3  # errors before the last one that it shows too
WRONG = re.compile(r"\berror\b|Error:|Exception:|\bfatal\b|\bfailed\b", re.IGNORECASE)

Tell = Callable[[float, str], None]  # seconds since the start, and the last line of the log


class Log:
    """What a child has written to its log since ``begin`` (bytes)."""

    def __init__(self, path: Path, begin: int = 0) -> None:
        self.path, self._begin = path, begin

    def size(self) -> int:
        return self.path.stat().st_size

    def tail(self) -> str:
        with self.path.open("rb") as source:
            source.seek(max(self._begin, self.size() - TAIL))
            return source.read().decode("utf-8", "replace")

    def last_words(self) -> str:
        """The end as an error shows it: the last errors, with what stands behind the last of them; else the last lines.

        What a program says first is often the cause, and what it says last only that it gives up.
        """
        return last_words(self.tail())


def last_words(text: str) -> str:
    """See :meth:`Log.last_words`."""
    lines = [printable(line).rstrip() for line in text.splitlines() if line.strip()]
    wrong = [at for at, line in enumerate(lines) if WRONG.search(line)]
    begin = wrong[-1] if wrong else max(0, len(lines) - LINES)
    before = [line for line in dict.fromkeys(lines[at] for at in wrong[:-1]) if line != lines[begin]]
    return "\n".join([*before[-CAUSES:], *lines[begin : begin + LINES]])


def printable(line: str) -> str:
    """A line of a log without what would move a terminal's cursor."""
    return "".join(letter for letter in line if letter.isprintable())[:300]


def answering(url: str, key: str = "", timeout: float = ASK) -> list[str]:
    """The names of the models that the server at the base URL ``url`` lists; empty where none answers.

    ``key`` is sent where it is given. A server on this machine is never asked through a proxy.
    """
    try:
        return [str(entry["id"]) for entry in json.loads(get(f"{url.rstrip('/')}/models", timeout, key))["data"]]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return []


@dataclass(frozen=True)
class Start:
    """A server that was started: ``what`` it is for people, its base URL, the key that it wants, its ``log`` where it
    has one of its own. ``tell`` is called every few seconds; where ``given_up`` says so, nobody waits any more."""

    what: str
    url: str
    log: Log | None = None
    key: str = field(default="", repr=False)
    tell: Tell | None = None
    given_up: Callable[[], bool] = bool


def until_ready(child: Child, start: Start) -> None:
    """Return once the server answers ``/health`` and lists its models.

    Raises ``SetupError`` with the last lines of its log where ``child`` ends instead, or falls silent.
    """
    log = start.log
    begun = spoken = heard = time.monotonic()
    size = 0
    while child.code is None:
        if start.given_up() or (_healthy(start.url) and answering(start.url, start.key)):
            return
        now = time.monotonic()
        if log is None:
            heard = now  # it speaks for itself, on the terminal
        elif log.size() != size:
            size, heard = log.size(), now
        if now - heard > SILENT:
            raise _failed(start, f"is not ready and has said nothing for {SILENT / 60:.0f} minutes")
        if start.tell is not None and now - spoken >= SPEAK:
            spoken = now
            start.tell(now - begun, printable(next(iter(log.tail().splitlines()[-1:]), "")) if log else "")
        time.sleep(PAUSE)
    raise _failed(start, f"ended with {child.code} before it was ready")


def _failed(start: Start, how: str) -> SetupError:
    if start.log is None:
        return SetupError(f"{start.what} {how}", hint="what it said stands above")
    return SetupError(
        f"{start.what} {how}:\n{start.log.last_words()}",
        where=str(start.log.path),
        hint="all that it said stands in this file",
    )


def _healthy(url: str) -> bool:
    try:
        get(url.removesuffix("/v1") + "/health", ASK)
    except (OSError, http.client.HTTPException):  # not listening yet, or still loading (503)
        return False
    return True


def get(url: str, timeout: float, key: str = "") -> bytes:
    """The body of an answer, up to a mebibyte. Raises ``OSError``, ``HTTPException``, and ``ValueError`` for what is no
    address of a server. The certificate of a server on this machine is not checked: it is made for another name."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url} is no address of a server")
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_local(parts.hostname or ""):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers += [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was just checked
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            body: bytes = response.read(1 << 20)
            return body
    except urllib.error.HTTPError as error:
        error.close()
        raise


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the key to another server."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None
