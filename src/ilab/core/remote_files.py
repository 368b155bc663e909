"""Folders in an object store: sent file by file, received with resume, every byte checked.

``Files`` says what a folder holds: relative name -> [size, SHA-256]. It comes from a server, so it is not trusted: its
names must lead nowhere else, and the digest over it must be the one that the record names.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from ilab.core import objects as waiting
from ilab.core.events import Emit
from ilab.core.objects import Objects, patiently
from ilab.core.store import BLOCK, Files
from ilab.errors import ServiceError

WORTH_TELLING = 16 << 20  # bytes of files on their way
AT_ONCE = 4  # files that are under way at the same time
WRONG = "make it again (ilab run --force STEP), or remove it from the bucket"


def read_files(data: bytes, where: str) -> Files:
    """Parse a listing. Raises ``ServiceError`` for anything that is none, or whose names leave the folder."""
    try:
        parsed = json.loads(data)
        files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in parsed.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ServiceError("this is no list of files", where=where, hint=WRONG) from error
    for name in files:
        path = PurePosixPath(name)
        if not name or ".." in path.parts or path.is_absolute() or str(path) != name or "\0" in name:
            raise ServiceError(f"a file of it is called {name[:60]!r}, which leads elsewhere", where=where, hint=WRONG)
    return files


def send(objects: Objects, folder: Path, names: dict[str, str], files: Files) -> None:
    """Send files of ``folder``: ``names`` maps their relative names to those of the objects."""

    def one(name: str) -> None:
        patiently(lambda: objects.put(names[name], folder / name, files[name][1]))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for job in [pool.submit(one, name) for name in names]:
            job.result()


class Arriving:
    """Adds up the bytes of ``files`` as they arrive, from any thread, and tells how far it is, every second at most.
    Says nothing of few bytes, which are here at once."""

    def __init__(self, emit: Emit, files: Files, note: str) -> None:
        self._emit, self._note = emit, note
        self._total = sum(size for size, _ in files.values())
        self._done, self._last = 0, 0.0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if self._total < WORTH_TELLING or (self._done < self._total and now < self._last + 1.0):
                return
            self._last = now
            self._emit.progress(round(self._done / 1e6), round(self._total / 1e6), "MB", self._note)


def receive(
    objects: Objects,
    names: dict[str, str],
    files: Files,
    folder: Path,
    parts: Path,
    told: Callable[[int], None] | None = None,
) -> None:
    """Receive ``files`` into ``folder``; unfinished ones wait in ``parts``, from where the next try goes on. ``told``
    gets the bytes of whatever is here.

    Raises ``ServiceError`` for a server that stays away, and for bytes that are not those of ``files``.
    """
    parts.mkdir(parents=True, exist_ok=True)
    tell = told or (lambda count: None)

    def one(name: str) -> None:
        target = folder / name
        if target.is_file() and target.stat().st_size == files[name][0]:  # it was checked before it got its name
            tell(files[name][0])
            return
        part = parts / hashlib.sha256(f"{name}\0{files[name]}".encode()).hexdigest()
        _receive(objects, names[name], part, files[name], tell)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for job in [pool.submit(one, name) for name in sorted(files)]:
            job.result()


def _receive(objects: Objects, name: str, part: Path, wanted: tuple[int, str], tell: Callable[[int], None]) -> None:
    size, sha256 = wanted
    begun = part.stat().st_size if part.exists() else 0
    if _arrive(objects, name, part, size, tell) == sha256:
        return
    tell(-part.stat().st_size)
    part.unlink()
    if begun:  # its beginning is from an earlier try, and may be what is wrong
        _receive(objects, name, part, wanted, tell)
        return
    where = f"{objects.address}/{name}"
    raise ServiceError("the object is not what was stored (its checksum is wrong)", where=where, hint=WRONG)


def _arrive(objects: Objects, name: str, part: Path, size: int, tell: Callable[[int], None]) -> str:
    """Append to ``part`` up to ``size`` bytes; the SHA-256 of all. As long as bytes come, waiting begins anew."""
    digest = hashlib.sha256()
    with part.open("a+b") as handle:
        handle.seek(0)
        while block := handle.read(BLOCK):
            digest.update(block)
            tell(len(block))
        pause, last = 0.5, time.monotonic()
        while (here := handle.tell()) < size:
            try:
                with objects.stream(name, here) as blocks:
                    for block in blocks:
                        handle.write(block)
                        digest.update(block)
                        tell(len(block))
                if handle.tell() > here:
                    continue
                raise ServiceError("it ends too soon", where=f"{objects.address}/{name}", hint=WRONG)
            except ServiceError as error:
                if handle.tell() > here:
                    pause, last = 0.5, time.monotonic()
                if not error.retryable or time.monotonic() + pause > last + waiting.PATIENCE:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, waiting.LONGEST)
        handle.flush()
        os.fsync(handle.fileno())
    return digest.hexdigest()
