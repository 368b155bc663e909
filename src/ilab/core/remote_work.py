"""What is not finished yet, kept in the bucket as it grows, so that a run can move to another machine.

    <type>/<key>.partial/work.json        {"id", "files"}: what the work was at one moment; written last
    <type>/<key>.partial/work/<sha256>    its files, by contents: what did not change is not sent again

A snapshot is what lay there at one moment: small files are copied and large ones linked, and it counts only if every
file is still the same one afterwards. One that grew meanwhile (a log) is taken as long as it was. Names with a dot in
front are being written and belong to no snapshot. Sending takes at most half of the
time, so a slow connection makes the snapshots rarer, not the work slower.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from ilab.core.files import take_over, write_text
from ilab.core.objects import Objects, patiently
from ilab.core.remote_files import read_files, receive, send
from ilab.core.store import Files, list_files
from ilab.errors import ServiceError

SMALL = 16 << 20  # bytes up to which a file is copied for a snapshot: it may be one that grows
TRIES = 5  # to find the work at rest
Told = tuple[int, int, int]  # file number, size, time
Scan = dict[str, Told]


class Work:
    """The ``work`` folder of one key that this process makes. ``partial`` is its place here, ``name`` there."""

    def __init__(self, objects: Objects, name: str, partial: Path) -> None:
        self._objects, self._name, self._partial = objects, name, partial
        self._work = partial / "work"
        self._mark = partial / "sent.json"  # id of the snapshot that this folder was last equal to
        self._sent: Files = {}
        self._scan: Scan = {}
        self._rest = 0.0  # until when the connection is left to others

    def restore(self) -> None:
        """Go on from what was sent last, unless it was sent from here. Replaces what lies here."""
        found = patiently(lambda: self._objects.get(f"{self._name}/work.json"))
        if found is None:
            return
        identity, files = self._read(found[0])
        self._sent = files
        if self._mark.is_file() and self._mark.read_text() == identity:
            return
        fresh = self._partial / "fresh"
        if (self._partial / "fresh.id").is_file() and (self._partial / "fresh.id").read_text() != identity:
            shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(exist_ok=True)
        write_text(self._partial / "fresh.id", identity)
        names = {name: self._blob(files, name) for name in files}
        receive(self._objects, names, files, fresh, self._partial / "parts")
        shutil.rmtree(self._work, ignore_errors=True)
        os.rename(fresh, self._work)
        write_text(self._mark, identity)
        shutil.rmtree(self._partial / "parts")

    def send(self, *, now: bool = False) -> None:
        """Send the work as it is, if it changed; ``now`` also when it was sent a moment ago.

        Raises ``ServiceError``; what was in the bucket before counts then.
        """
        scan = _scan(self._work)
        if not scan or scan == self._scan or (time.monotonic() < self._rest and not now):
            return
        began = time.monotonic()
        still = self._partial / "sending"
        taken = _snapshot(self._work, still)
        if taken is None:
            return
        try:
            before, files = _scan(still), list_files(still)
            names = {name: self._blob(files, name) for name in files}
            known = {sha256 for _, sha256 in self._sent.values()}
            send(self._objects, still, {n: blob for n, blob in names.items() if files[n][1] not in known}, files)
            if _scan(still) != before:  # a linked file was written in place while it was sent
                return
            identity = uuid.uuid4().hex
            text = json.dumps({"id": identity, "files": files}).encode()
            patiently(lambda: self._objects.write(f"{self._name}/work.json", text))
            write_text(self._mark, identity)
            gone = known - {sha256 for _, sha256 in files.values()}
            self._sent, self._scan = files, taken
            patiently(lambda: self._objects.delete([f"{self._name}/work/{sha256}" for sha256 in sorted(gone)]))
        finally:
            shutil.rmtree(still, ignore_errors=True)
            self._rest = 2 * time.monotonic() - began

    def _blob(self, files: Files, name: str) -> str:
        return f"{self._name}/work/{files[name][1]}"

    def _read(self, data: bytes) -> tuple[str, Files]:
        where = f"{self._objects.address}/{self._name}/work.json"
        try:
            told = json.loads(data)
            identity, files = str(told["id"]), json.dumps(told["files"]).encode()
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceError("this is no snapshot", where=where, hint="remove it from the bucket") from error
        return identity, read_files(files, where)


def _scan(work: Path) -> Scan:
    found: Scan = {}
    for folder, folders, names in os.walk(work):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):  # it has just gone
                if not name.startswith(".") and path.is_file():
                    told = path.stat()
                    found[path.relative_to(work).as_posix()] = (told.st_ino, told.st_size, told.st_mtime_ns)
    return found


def _snapshot(work: Path, still: Path) -> Scan | None:
    """The work at one moment in ``still``; None where it never rested.

    All files are linked first, so none of their numbers is given to another file before they are compared.
    """
    for _ in range(TRIES):
        shutil.rmtree(still, ignore_errors=True)
        before = _scan(work)
        with suppress(FileNotFoundError):
            for name in before:
                (still / name).parent.mkdir(parents=True, exist_ok=True)
                take_over(str(work / name), str(still / name))
            taken, after = _scan(still), _scan(work)
            if all(name in after and _same(told, taken[name], after[name]) for name, told in before.items()):
                for name, (_, size, _) in taken.items():
                    if size <= SMALL:
                        content = (still / name).read_bytes()[:size]
                        (still / name).unlink()  # it is the file itself, not to be written to
                        (still / name).write_bytes(content)
                return taken
    return None


def _same(before: Told, taken: Told, after: Told) -> bool:
    """Whether what was taken is what still stands there; a small file may have grown, which the copy leaves out."""
    if taken[0] != after[0]:  # replaced meanwhile, or copied where a file system has no links
        return before == after
    return taken == after or (taken[1] <= SMALL and taken[1] < after[1])
