"""The exclusive right to make one key, as an object: written only where there is none, renewed by a thread.

A lease that nobody renewed for ``STALE`` seconds is taken over: it is replaced by its ETag, so of several that try
exactly one wins. Ages are measured by the server's clock alone. Each renewal counts up, so that the ETag changes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from typing import Any

from ilab.core.lease import STALE, TakenError, taken_over
from ilab.core.objects import SHORT, Facts, Objects, patiently
from ilab.core.pids import born
from ilab.core.remote_check import unsafe
from ilab.errors import ServiceError, SetupError

BEAT = 15.0  # seconds between two renewals; each is a request


class RemoteLease:
    """Held from the moment it is made until ``release``. Raises ``SetupError`` where somebody else holds it."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._name = objects, name
        self._holder = {"id": uuid.uuid4().hex, "pid": os.getpid(), "host": socket.gethostname()}
        self._holder["born"] = born(os.getpid())
        self._beats = 0
        self._stop = threading.Event()
        self._lost = False
        self._etag = self._acquire()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()

    def check(self) -> None:
        """Raises ``ServiceError`` where another machine took over, as this one could not be reached for too long."""
        with suppress(ServiceError):  # out of reach: so is whatever is going to be done
            self._renew()
        if self._lost:
            raise taken_over(f"{self._objects.address}/{self._name}")

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(ServiceError):  # otherwise it runs out by itself
            found = patiently(lambda: self._objects.get(self._name), SHORT)
            if found is not None and _holder(found[0]).get("id") == self._holder["id"]:
                patiently(lambda: self._objects.delete([self._name]), SHORT)

    def _acquire(self) -> str:
        for _ in range(10):
            etag = patiently(lambda: self._objects.write(self._name, self._text(), absent=True))
            etag = etag or self._take_over()
            if etag:
                self._check_conditions()
                return etag
        raise SetupError("could not take over an abandoned lease", where=f"{self._objects.address}/{self._name}")

    def _take_over(self) -> str:
        """The ETag of our lease where the old one was abandoned, ``""`` where somebody else was quicker."""
        found = patiently(lambda: self._objects.get(self._name))
        if found is None:
            return ""
        holder, facts = _holder(found[0]), found[1]
        if holder.get("id") == self._holder["id"]:  # our own: only the answer to the writing got lost
            return facts.etag
        if not _abandoned(holder, facts):
            raise TakenError(
                f"process {holder.get('pid')} on {holder.get('host')} is already making this result",
                where=f"{self._objects.address}/{self._name}",
                hint="wait for it, or stop it; its work is kept and the next run goes on from there",
            )
        return patiently(lambda: self._objects.write(self._name, self._text(), match=facts.etag))

    def _check_conditions(self) -> None:
        """A server that ignores conditions would let two machines make the same thing, each over the other's work."""
        if patiently(lambda: self._objects.write(self._name, self._text(), absent=True)):
            raise unsafe("ignores If-None-Match", self._objects.address)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self._renew()
            except ServiceError:  # out of reach for now; whether it was taken over is seen when it is back
                continue
            if self._lost:
                return

    def _renew(self) -> None:
        self._beats += 1
        etag = self._objects.write(self._name, self._text(), match=self._etag)
        if not etag:
            found = self._objects.get(self._name)
            if found is None or _holder(found[0]).get("id") != self._holder["id"]:
                self._lost = True
                return
            etag = found[1].etag
        self._etag = etag

    def _text(self) -> bytes:
        return json.dumps({**self._holder, "beats": self._beats}).encode()


def is_held_remotely(objects: Objects, name: str) -> bool:
    """Whether a living process holds the lease of that name."""
    found = patiently(lambda: objects.get(name))
    return found is not None and not _abandoned(_holder(found[0]), found[1])


def _holder(data: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(data)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _abandoned(holder: dict[str, Any], facts: Facts) -> bool:
    if holder.get("host") == socket.gethostname() and isinstance(holder.get("pid"), int):
        return born(holder["pid"]) != holder.get("born")
    return facts.age > STALE
