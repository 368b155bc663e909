"""What grows while a run goes on, sent every few seconds: runs, the memo's own segments, unfinished work.

Everybody sends only what is their own: runs whose names end in this machine's label, segments that were written here
(those of others are received under names that end in ``.far.jsonl``). So nothing that is older ever lies over
something newer, and a server that is gone costs nothing but time: what is missing there goes with the next round.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ilab.core.objects import SHORT, Objects, patiently
from ilab.core.remote_work import Work
from ilab.errors import ServiceError

ROUND = 5.0  # seconds between two rounds
FAR = ".far.jsonl"
SHARE = 10  # a segment is sent anew after so many times of what sending it took


class Sync:
    """Sends what grows below ``root``: in rounds while something is made, and whenever it is told to."""

    def __init__(self, root: Path, objects: Objects, label: str) -> None:
        self._root, self._objects, self._label = root, objects, label
        self._there: dict[str, int] | None = None  # sizes in the bucket when this process began
        self._sent: dict[str, tuple[int, int]] = {}
        self._rest: dict[str, float] = {}
        self._work: list[Work] = []
        self._lock = threading.RLock()  # one round at a time
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def making(self, work: Work) -> Iterator[None]:
        """Send ``work`` as it grows; a last time where it ends without a result."""
        with self._lock:
            self._work.append(work)
        self._start()
        try:
            yield
        except BaseException:
            with self._lock, suppress(ServiceError, OSError):  # what ended the step is what counts
                work.send(now=True)
            raise
        finally:
            with self._lock:
                self._work.remove(work)

    def close(self) -> None:
        """The last round. Raises ``ServiceError`` where the server stays away; the next run sends the rest."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        patiently(lambda: self._round(last=True), SHORT)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._stop.clear()
                self._thread = threading.Thread(target=self._rounds, daemon=True, name="sync")
                self._thread.start()

    def _rounds(self) -> None:
        while not self._stop.wait(ROUND):
            with suppress(ServiceError, OSError):  # out of reach, or a file went away: the next round has it
                self._round()

    def _round(self, *, last: bool = False) -> None:
        with self._lock:
            for path in self._own():
                self._send(path, last=last)
            for work in self._work:
                work.send()

    def _own(self) -> list[Path]:
        runs = [path for path in (self._root / "runs").glob(f"*{self._label}/**/*") if path.is_file()]
        segments = [path for path in (self._root / "memo").glob("*/*.jsonl") if not path.name.endswith(FAR)]
        return sorted([*runs, *segments])

    def _send(self, path: Path, *, last: bool) -> None:
        name = path.relative_to(self._root).as_posix()
        told = path.stat()
        now = (told.st_size, told.st_mtime_ns)
        if self._sent.get(name) == now or (not last and time.monotonic() < self._rest.get(name, 0.0)):
            return
        if self._there is None:
            self._there = {name: size for top in ("runs", "memo") for name, size in self._objects.list(f"{top}/")}
        began = time.monotonic()
        if self._there.pop(name, None) != told.st_size:  # what an earlier process sent is there
            self._objects.put(name, path)
        self._sent[name] = now
        self._rest[name] = began + (SHARE + 1) * (time.monotonic() - began)
