"""The port that `ilab model serve` takes, and the servers that the configuration names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ilab.doctor.finding import Finding
from ilab.errors import IlabError

if TYPE_CHECKING:
    from ilab.config import Endpoint, Loaded

PATIENCE = 10.0  # seconds that a server may take
PORT = 8000  # where `ilab model serve` listens
LISTENING = "0A"  # a state of proc_net_tcp(5)
SHOWN = 5  # models of a server that are named


def port() -> Finding:
    """Whether the usual port is free; else who has it, and what a model server there serves."""
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex(("127.0.0.1", PORT)) == 0
    name = f"port {PORT}"
    if not taken:
        return Finding(name, "ok", "free")
    from ilab.config import Endpoint

    answering = _asked(name, Endpoint(url=f"http://127.0.0.1:{PORT}/v1", timeout=2.0), "")
    what = answering.found if answering.state == "ok" else "taken by something that is no model server"
    owner = listener(PORT)
    found = f"{what}{f' ({owner})' if owner else ''}"
    return Finding(name, "note", found, "model serve", f"ilab model serve --port {PORT + 1}")


def listener(port: int, proc: Path = Path("/proc")) -> str:
    """Name and number of the process of this user that listens at ``port``; ``""`` where it is not to be seen."""
    sockets: set[str] = set()
    for table in (proc / "net/tcp", proc / "net/tcp6"):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        sockets |= {
            f"socket:[{row[9]}]"
            for row in rows
            if len(row) > 9 and row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port
        }
    for process in proc.glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in sockets for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()}, process {process.name}"
        except OSError:  # somebody else's, or it has just ended
            continue
    return ""


def endpoints(loaded: Loaded) -> Iterator[Finding]:
    """Every server that `where` names: whether it answers, and has the model that it is to serve."""
    from ilab.config import SERVED, Endpoint

    where = loaded.config.where
    for role in type(where).model_fields:
        endpoint = getattr(where, role)
        if isinstance(endpoint, Endpoint):
            model = loaded.config.parameters.get(SERVED.get(role, "")) or endpoint.model
            yield _asked(f"where.{role}", endpoint, str(model))


def _asked(name: str, endpoint: Endpoint, model: str) -> Finding:
    from ilab.models.probe import probe

    quick = endpoint.model_copy(update={"timeout": min(PATIENCE, endpoint.timeout)})
    try:
        found = asyncio.run(probe(quick, model, wanted=()))
    except IlabError as error:
        fix = error.hint or f"ilab endpoint check {endpoint.url}"
        return Finding(name, "bad", error.message, "what asks it", fix)
    served = ", ".join(found.models[:SHOWN]) or "no list of models"
    return Finding(name, "ok", f"{endpoint.url} serves {served}")
