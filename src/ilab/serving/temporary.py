"""A server for as long as a block runs; and what a server answers to the question for its models.

The server is ``ilab model serve`` as a child process, so it takes what that command takes: a GGUF file or a Hugging
Face directory, by whatever backend serves it here. It ends with the block, with an exception, with Ctrl-C, and when
this process is killed (:mod:`ilab.core.keeper`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ilab.config_where import Where
from ilab.core.events import Emit
from ilab.core.keeper import GRACE, MORE, Child, free_port
from ilab.serving.readiness import Log, Start, answering, until_ready

__all__ = ["answering", "temporary_server"]
OURS = {  # settings of a server that others are to reach, and of one that runs already
    "url", "host", "port", "api_key", "tls_cert", "tls_key", "log_file"
}  # fmt: skip


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

    def tell(seconds: float, line: str) -> None:
        if emit is not None:
            emit.progress(int(seconds), None, "s", note=f"starting the server of {name}: {line}".rstrip(": "))

    with log.open("ab") as sink:
        begin = sink.tell()
        # The inner server stops children of its own in order, hence longer than their time of grace.
        with Child(_command(model, name, where, port), sink, GRACE + MORE) as child:
            until_ready(child, Start(f"the server of {name}", url, Log(log, begin), tell=tell))
            yield url


def _command(model: Path, name: str, where: Where, port: int) -> list[str]:
    """Settings are those of ``where``; no file of the user's is read again."""
    serve: dict[str, Any] = where.serve.model_dump(mode="json", exclude=OURS)
    if serve["backend"] == "external":
        serve["backend"] = "auto"
    settings = {"where.device": where.device, "where.threads": where.threads, "where.serve": serve}
    sets = [word for path, value in settings.items() for word in ("--set", f"{path}={json.dumps(value)}")]
    options = ["--model-path", str(model.resolve()), "--served-model-name", name, "--host", "127.0.0.1"]
    command = [sys.executable, "-P", "-m", "ilab", "--config", "DEFAULT", *sets, "-v", "model", "serve", *options]
    return [*command, "--port", str(port)]
