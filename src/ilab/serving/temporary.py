"""A server for as long as a block runs; and what a server answers to the question for its models.

The server is ``ilab model serve`` as a child process, so it takes what that command takes: a GGUF file or a Hugging
Face directory, by whatever backend serves it here. It ends with the block, with an exception, with Ctrl-C, and when
this process is killed (:mod:`ilab.serving.keeper`).
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ilab.config_where import Where
from ilab.core.events import Emit
from ilab.errors import SetupError
from ilab.models.tls import is_local
from ilab.serving.keeper import GRACE, MORE, Child

ASK = 2.0  # seconds that a server may take to list its models
PAUSE = 0.1  # seconds between two questions whether it is ready
SPEAK = 5.0  # seconds between two lines about the start
SILENT = 900.0  # seconds without a word in the log after which a start has failed
TAIL = 16 << 10  # bytes of a log that are looked at
LINES = 6  # of a log that an error shows
WRONG = re.compile(r"\berror\b|Error:|Exception:|\bfatal\b|\bfailed\b", re.IGNORECASE)


@contextmanager
def temporary_server(model: Path, name: str, where: Where, *, log: Path, emit: Emit | None = None) -> Iterator[str]:
    """Serve ``model`` under ``name`` while the block runs; gives the base URL, ``http://127.0.0.1:PORT/v1``.

    What the server says is appended to ``log``. The start may take as long as it takes while the server lives and
    says something; ``emit`` is told every few seconds how it goes. Raises ``SetupError`` with the last lines of the
    log where it ends instead.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        begin = sink.tell()
        # The inner server stops children of its own in order, hence longer than their time of grace.
        with Child(_command(model, name, where, port), sink, GRACE + MORE) as child:
            _until_ready(child, url, (name, model), _Log(log, begin), emit)
            yield url


def answering(url: str, key: str = "", timeout: float = ASK) -> list[str]:
    """The names of the models that the server at the base URL ``url`` lists; empty where none answers.

    ``key`` is sent where it is given. A server on this machine is never asked through a proxy.
    """
    try:
        return [str(entry["id"]) for entry in json.loads(_get(f"{url.rstrip('/')}/models", timeout, key))["data"]]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return []


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_words(text: str) -> str:
    """The end of a server's log as an error shows it: from its last error on, else its last lines."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    wrong = [at for at, line in enumerate(lines) if WRONG.search(line)]
    begin = wrong[-1] if wrong else max(0, len(lines) - LINES)
    return "\n".join(lines[begin : begin + LINES])


class _Log:
    """What a child has written to its log since ``begin`` (bytes)."""

    def __init__(self, path: Path, begin: int) -> None:
        self.path, self._begin = path, begin

    def size(self) -> int:
        return self.path.stat().st_size

    def tail(self) -> str:
        with self.path.open("rb") as source:
            source.seek(max(self._begin, self.size() - TAIL))
            return source.read().decode("utf-8", "replace")


def _command(model: Path, name: str, where: Where, port: int) -> list[str]:
    """Settings are those of ``where``; no file of the user's is read again."""
    settings = {"where.device": where.device, "where.threads": where.threads}
    sets = [word for path, value in settings.items() for word in ("--set", f"{path}={json.dumps(value)}")]
    serve = ["--model-path", str(model.resolve()), "--served-model-name", name, "--host", "127.0.0.1"]
    return [sys.executable, "-P", "-m", "ilab", "--config", "DEFAULT", *sets, "model", "serve", *serve, "-p", str(port)]


def _until_ready(child: Child, url: str, served: tuple[str, Path], log: _Log, emit: Emit | None) -> None:
    name, model = served
    begun = spoken = heard = time.monotonic()
    size = 0
    while True:
        if child.code is not None:
            raise SetupError(
                f"the server of {name} ended with {child.code} before it was ready:\n{last_words(log.tail())}",
                where=str(log.path),
                hint=f"try it alone: ilab model serve --model-path {model}",
            )
        if _ready(url, name):
            return
        now = time.monotonic()
        if log.size() != size:
            size, heard = log.size(), now
        if now - heard > SILENT:
            raise SetupError(
                f"the server of {name} is not ready and has said nothing for {SILENT / 60:.0f} minutes:\n"
                + last_words(log.tail()),
                where=str(log.path),
                hint="a smaller model, or another server: --backend",
            )
        if emit is not None and now - spoken >= SPEAK:
            spoken = now
            said = log.tail().splitlines()[-1:]
            emit.progress(int(now - begun), None, "s", note=" ".join([f"starting the server of {name}:", *said])[:200])
        time.sleep(PAUSE)


def _ready(url: str, name: str) -> bool:
    try:
        _get(url.removesuffix("/v1") + "/health", ASK)
    except (OSError, http.client.HTTPException):  # not listening yet, or still loading (503)
        return False
    return name in answering(url)


def _get(url: str, timeout: float, key: str = "") -> bytes:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url} is no address of a server")
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_local(parts.hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
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
