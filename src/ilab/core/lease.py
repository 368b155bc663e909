"""The exclusive right to make something in a folder, as a file with a heartbeat.

A lease whose process is gone, or whose heartbeat is old, is taken over; by a rename, so of several exactly one wins.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ilab.core.files import read_json
from ilab.core.pids import born
from ilab.errors import ServiceError, SetupError

LEASE = "lease.json"
HEARTBEAT = 5.0  # seconds between two beats
STALE = 60.0  # seconds without a beat after which another machine may take over
UNFILLED = 2.0  # seconds after which an empty lease was left by somebody who was killed while writing it


class TakenError(SetupError):
    """Somebody else holds the lease."""


class Held(Protocol):
    """An exclusive right, wherever it is written down."""

    def check(self) -> None:
        """Asked right before something that must not happen twice. Raises ``ServiceError`` where it was taken over."""

    def release(self) -> None: ...


class Lease:
    """Exclusive right to write one key, renewed by a thread until closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()
        self._told: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname(), "id": uuid.uuid4().hex}
        self._told["born"] = born(os.getpid())
        self._acquire()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _acquire(self) -> None:
        for _ in range(50):
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if not _abandoned(self.path):
                    holder = _holder(self.path)
                    if not holder:  # somebody is just writing it, or was killed at that
                        time.sleep(0.1)
                        continue
                    raise TakenError(
                        f"process {holder.get('pid')} on {holder.get('host')} is already making this result",
                        where=str(self.path.parent),
                        hint="wait for it, or stop it; its work is kept and the next run goes on from there",
                    ) from None
                # Renaming is atomic: of several waiting processes exactly one wins the stale lease.
                try:
                    os.rename(self.path, self.path.with_name(f"lease.{uuid.uuid4().hex}.stale"))
                except FileNotFoundError:
                    time.sleep(0.01)
                continue
            try:
                with os.fdopen(descriptor, "w") as handle:
                    json.dump(self._told, handle)
            except OSError:  # a full disk: an empty lease would lock everybody out
                self.path.unlink()
                raise
            for stale in self.path.parent.glob("lease.*.stale"):
                stale.unlink(missing_ok=True)
            return
        raise SetupError("could not take over an abandoned lease", where=str(self.path))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            if not self._is_ours():  # this machine slept, or its disk was away, and another took over
                return
            with suppress(OSError):  # a disk that is away for now
                os.utime(self.path)

    def check(self) -> None:
        if not self._is_ours():
            raise taken_over(str(self.path.parent))

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._is_ours():
            self.path.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        """Whether nobody took over, as far as can be seen."""
        try:
            return bool(read_json(self.path) == self._told)
        except (FileNotFoundError, ValueError):  # given up, or another's that is just being written
            return False
        except OSError:
            return True


def taken_over(where: str) -> ServiceError:
    return ServiceError(
        "another machine took this over while its place was out of reach",
        where=where,
        hint="run the same command again: it takes the other's result when it is there",
    )


def is_held(path: Path) -> bool:
    """Whether a living process holds the lease at ``path``."""
    return path.exists() and not _abandoned(path)


def _holder(path: Path) -> dict[str, Any]:
    try:
        holder: dict[str, Any] = read_json(path)
    except (OSError, ValueError):  # just being written, or torn by a crash
        return {}
    return holder


def _abandoned(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    holder = _holder(path)
    if not holder:
        return age > UNFILLED
    if holder.get("host") == socket.gethostname() and "pid" in holder:
        return born(holder["pid"]) != holder.get("born")
    return age > STALE
