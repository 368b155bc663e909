"""A store in a bucket: a mirror on this machine, and the objects that all machines share.

    <type>/<key>/record.json      an artifact exists if and only if this object exists; written last
                 files.json       what the contents are; its digest is the one in the record
                 …                the contents
    <type>/<key>.partial/         lease.json (remote_lease.py), work.json and work/ (remote_work.py)
    <type>/contents/<hash>        the key that has the result for these contents
    latest/<step name>            type/key
    kubeflow/<run>/…              the plan of a run on a cluster, for its last task
    memo/…  runs/…                as they grow (remote_sync.py)

The bucket is the truth. The mirror has what was made here and what a step had to read; it can be deleted at any time
when nothing runs, and what could not be sent yet is sent by the next run that needs it. A result is fetched whole, when
it is opened, and every byte is checked against its record.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial as calling
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ilab.core.events import Emit
from ilab.core.files import fsync_tree, write_json, write_text
from ilab.core.lease import LEASE, Held
from ilab.core.objects import Objects, patiently
from ilab.core.remote_files import WRONG, Arriving, read_files, receive, send
from ilab.core.remote_lease import RemoteLease, is_held_remotely
from ilab.core.remote_sync import FAR, Sync
from ilab.core.remote_work import Work
from ilab.core.step import KEY_LENGTH, Step
from ilab.core.store import RECORD, Files, Partial, RecordFile, Store, digest_files, disk_error, list_files
from ilab.errors import ServiceError, SetupError

FILES = "files.json"
PAPER = 8 << 20  # bytes up to which a file may be one that tells of an artifact, and none of its data
PLANS, NEWEST = "kubeflow", 50  # plans of runs on a cluster, and how many of the newest runs keep theirs
MACHINE = ".machine"  # names the mirror, so that several machines' runs do not meet
_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
_TYPE = re.compile(r"[a-z][a-z0-9_-]*")
_RUN = re.compile(r"runs/([\w.:-]+)/([\w.-]+)", re.ASCII)
_SEGMENT = re.compile(r"[0-9a-f]{32}\.jsonl")


class RemoteStore(Store):
    """The store below ``objects``, mirrored at ``root``: a :class:`Store` whose methods may raise ``ServiceError``."""

    def __init__(self, root: Path, objects: Objects) -> None:
        super().__init__(root)
        self.objects = objects
        machine = root / MACHINE
        if not machine.is_file():
            write_text(machine, uuid.uuid4().hex)
        self.label = f".{machine.read_text()[:8]}"
        self._known: dict[tuple[str, str], RecordFile] = {}  # records that are in the bucket
        self._leases: dict[Path, RemoteLease] = {}
        self._lock = threading.Lock()
        self._sync = Sync(root, objects, self.label)

    # -- reading -------------------------------------------------------------------------------------------------

    def address(self, path: Path) -> str:
        return f"{self.objects.address}/{path.relative_to(self.root).as_posix()}"

    def named(self, address: str) -> tuple[str, str] | None:
        folder, *names = address.rsplit("/", 2)
        # A path is one in a mirror, which has the same name on every machine.
        if len(names) != 2 or (folder != self.objects.address and Path(folder).name != self.root.name):
            return None
        type_, key = names
        return (type_, key) if _TYPE.fullmatch(type_) and _KEY.fullmatch(key) else None

    def record(self, type_: str, key: str) -> RecordFile | None:
        known = self._known.get((type_, key))
        if known is not None:
            return known
        found = patiently(lambda: self.objects.get(f"{type_}/{key}/{RECORD}"))
        if found is None:  # perhaps it was made here, and could not be sent
            return super().record(type_, key)
        record = self._read_record(found[0], type_, key)
        self._known[type_, key] = record
        return record

    def contents(self, record: RecordFile, emit: Emit | None = None) -> Path:
        directory = super().contents(record)
        if not self._is_here(directory, record.digest):
            self._fetch(record.type, directory.name, record.digest, emit)
        return directory

    def papers(self, record: RecordFile) -> Path:
        directory = super().contents(record)
        if self._is_here(directory, record.digest):
            return directory
        with self._coming(f"{record.type}.{directory.name}.{record.digest[:16]}.papers") as coming:
            files = self._files(record.type, directory.name, record.digest)
            small = {name: told for name, told in files.items() if told[0] <= PAPER}
            names = {name: f"{record.type}/{directory.name}/{name}" for name in small}
            receive(self.objects, names, small, coming / "artifact", coming / "parts")
            return coming / "artifact"

    def same_contents(self, step: Step, input_digests: dict[str, Any]) -> RecordFile | None:
        pointer = self._pointer(step.type, step.version, step.fields(), input_digests)
        found = patiently(lambda: self.objects.get(pointer.relative_to(self.root).as_posix()))
        key = found[0].decode("ascii", "replace") if found else ""
        if _KEY.fullmatch(key) and (record := self.record(step.type, key)) is not None:
            return record
        return super().same_contents(step, input_digests)

    def latest(self, name: str) -> RecordFile | None:
        found = patiently(lambda: self.objects.get(f"latest/{name}"))
        type_, _, key = (found[0].decode("ascii", "replace") if found else "").partition("/")
        if _TYPE.fullmatch(type_) and _KEY.fullmatch(key):
            return self.record(type_, key)
        return super().latest(name)

    def records(self) -> Iterator[RecordFile]:
        here = {
            (path.parent.parent.name, path.parent.name) for path in self.root.glob(f"*/{'?' * KEY_LENGTH}/{RECORD}")
        }
        there = [name.split("/") for name, _ in self._listed("")]
        for type_, key in sorted(here | {(one[0], one[1]) for one in there if len(one) == 3 and one[2] == RECORD}):
            if _TYPE.fullmatch(type_) and _KEY.fullmatch(key) and (record := self.record(type_, key)) is not None:
                yield record

    def memo(self, name: str) -> Path:
        folder = super().memo(name)
        folder.mkdir(parents=True, exist_ok=True)
        for entry, size in self._listed(f"memo/{name}/"):
            segment = entry.rpartition("/")[2]
            if _SEGMENT.fullmatch(segment) and not (folder / segment).exists():
                self._append(entry, folder / f"{segment.removesuffix('.jsonl')}{FAR}", size)
        return folder

    def runs(self, name: str, newest: int | None = None) -> list[Path]:
        matches = ((_RUN.fullmatch(entry), size) for entry, size in self._listed("runs/"))
        found = sorted((match[1], size) for match, size in matches if match and match[2] == name)
        for run, size in found if newest is None else found[-newest:]:
            if run.strip(".") and not run.endswith(self.label):
                (self.root / "runs" / run).mkdir(parents=True, exist_ok=True)
                self._append(f"runs/{run}/{name}", self.root / "runs" / run / name, size)
        return super().runs(name, newest)

    # -- making --------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, type_: str, key: str) -> Iterator[Partial]:
        name = f"{type_}/{key}.partial"
        with super().writing(type_, key) as partial:
            lease = RemoteLease(self.objects, f"{name}/{LEASE}")
            self._leases[partial.path] = lease
            try:
                work = Work(self.objects, name, partial.path)
                work.restore()
                with self._sync.making(work):
                    yield partial
            finally:
                del self._leases[partial.path]
                lease.release()

    def lease(self, name: str) -> Held:
        return RemoteLease(self.objects, f"{name}/{LEASE}")

    def publish(self, partial: Partial, record: RecordFile) -> RecordFile:
        lease = self._leases[partial.path]
        lease.check()
        record = super().publish(partial, record)
        self._send(record)
        return record

    def link(self, record: RecordFile, older: RecordFile) -> RecordFile:
        record = super().link(record, older)
        self.share(record)
        return record

    def share(self, record: RecordFile) -> None:
        if record.linked_to:
            older = self.record(record.type, record.linked_to)
            if older is not None:
                self.share(older)
        if self._known.get((record.type, record.key)) != record:
            self._send(record)

    def point_latest(self, name: str, record: RecordFile) -> None:
        super().point_latest(name, record)
        patiently(lambda: self.objects.write(f"latest/{name}", f"{record.type}/{record.key}".encode()))

    def close(self) -> None:
        """Send the rest. Raises ``ServiceError`` where it cannot be, unless something else is being raised."""
        failing = sys.exc_info()[0] is not None
        try:
            self._sync.close()
        except (ServiceError, OSError):
            if not failing:
                raise

    # -- removing ------------------------------------------------------------------------------------------------

    def partials(self) -> list[Path]:
        folders = {"/".join(name.split("/")[:2]) for name, _ in self._listed("") if ".partial/" in name}
        there = [self.root / folder for folder in folders if _TYPE.fullmatch(folder.partition("/")[0])]
        return sorted({*super().partials(), *there})

    def outdated_plans(self) -> list[Path]:
        first: dict[str, str] = {}
        for name, _ in self._listed(f"{PLANS}/"):
            first.setdefault(name.rpartition("/")[0], name)
        there = {run: patiently(calling(self.objects.get, name)) for run, name in first.items()}
        ages = {run: found[1].age for run, found in there.items() if found}
        return [self.root / run for run in sorted(ages, key=lambda run: (ages[run], run))[NEWEST:]]

    def held(self, partial: Path) -> bool:
        name = f"{partial.relative_to(self.root).as_posix()}/{LEASE}"
        return super().held(partial) or is_held_remotely(self.objects, name)

    def size(self, path: Path) -> int:
        there = sum(size for _, size in self._listed(f"{path.relative_to(self.root).as_posix()}/"))
        return there or super().size(path)

    def remove_partial(self, partial: Path) -> None:
        self._delete(f"{partial.relative_to(self.root).as_posix()}/")
        super().remove_partial(partial)

    def remove(self, record: RecordFile) -> int:
        name = f"{record.type}/{record.key}"
        size = self.size(self.root / name)
        patiently(lambda: self.objects.delete([f"{name}/{RECORD}"]))
        self._delete(f"{name}/")
        self._known.pop((record.type, record.key), None)
        super().remove(record)
        return size

    # -- the bucket ----------------------------------------------------------------------------------------------

    def _names(self, record: RecordFile) -> list[str]:
        files = self._files(record.type, record.linked_to or record.key, record.digest)
        return sorted({name.partition("/")[0] for name in files})

    def _send(self, record: RecordFile) -> None:
        """Contents first, record last. An older result of the same key makes room."""
        name, directory = f"{record.type}/{record.key}", self.directory(record.type, record.key)
        if patiently(lambda: self.objects.get(f"{name}/{RECORD}")) is not None:
            patiently(lambda: self.objects.delete([f"{name}/{RECORD}"]))
            self._delete(f"{name}/")
        if not record.linked_to:
            files = list_files(directory)
            send(self.objects, directory, {file: f"{name}/{file}" for file in files}, files)
            patiently(lambda: self.objects.write(f"{name}/{FILES}", json.dumps(files, indent=1).encode()))
        text = json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
        patiently(lambda: self.objects.write(f"{name}/{RECORD}", f"{text}\n".encode()))
        self._known[record.type, record.key] = record
        if not record.linked_to:
            pointer = self._pointer(record.type, record.version, record.fields, record.input_digests)
            place = pointer.relative_to(self.root).as_posix()
            patiently(lambda: self.objects.write(place, record.key.encode()))
        self._delete(f"{name}.partial/work")

    def _fetch(self, type_: str, key: str, digest: str, emit: Emit | None) -> None:
        """Bring an artifact into the mirror, whole and checked, by one rename."""
        final = self.directory(type_, key)
        with self._coming(f"{type_}.{key}.{digest[:16]}") as coming:
            if self._is_here(final, digest):  # somebody else brought it meanwhile
                return
            artifact = coming / "artifact"
            record = self.record(type_, key)
            files = self._files(type_, key, digest)
            if record is None:
                raise self._gone(f"{type_}/{key}")
            self._check_room(files, artifact)
            names = {name: f"{type_}/{key}/{name}" for name in files}
            told = Arriving(emit, files, f"fetching {type_} from the store") if emit else None
            receive(self.objects, names, files, artifact, coming / "parts", told)
            write_json(artifact / RECORD, record.model_dump(mode="json"))
            fsync_tree(artifact)
            final.parent.mkdir(exist_ok=True)
            if final.exists():  # an older result that was made again elsewhere
                doomed = final.with_name(f"{final.name}.{uuid.uuid4().hex}.old")
                os.rename(final, doomed)
                shutil.rmtree(doomed)
            os.rename(artifact, final)
        shutil.rmtree(coming, ignore_errors=True)

    @contextmanager
    def _coming(self, name: str) -> Iterator[Path]:
        """The folder in which something arrives, for one process of this machine at a time."""
        coming = self.root / ".fetch" / name
        try:
            (coming / "artifact").mkdir(parents=True, exist_ok=True)
            with (coming / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Whoever had the lock may have moved it, and then removed all of the folder.
                (coming / "artifact").mkdir(parents=True, exist_ok=True)
                yield coming
        except OSError as error:
            raise disk_error(error, coming) from error

    def _files(self, type_: str, key: str, digest: str) -> Files:
        """What the contents of an artifact are, as its record says."""
        name = f"{type_}/{key}/{FILES}"
        found = patiently(lambda: self.objects.get(name))
        if found is None:
            directory = self.directory(type_, key)
            if self._is_here(directory, digest):
                return list_files(directory)
            raise self._gone(f"{type_}/{key}")
        files = read_files(found[0], f"{self.objects.address}/{name}")
        if digest_files(files) != digest:
            message = "the list of files is not the one that the record speaks of"
            raise ServiceError(message, where=f"{self.objects.address}/{name}", hint=WRONG)
        return files

    def _gone(self, name: str) -> ServiceError:
        hint = "run the same command again: it is made anew"
        return ServiceError("this result was removed meanwhile", where=f"{self.objects.address}/{name}", hint=hint)

    def _check_room(self, files: Files, place: Path) -> None:
        needed = sum(size for size, _ in files.values())
        free = shutil.disk_usage(place).free
        if needed > free:
            message = f"fetching a result needs {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free"
            raise SetupError(message, where=str(self.root), hint="free some space; this folder may be deleted")

    def _is_here(self, directory: Path, digest: str) -> bool:
        here = super().record(directory.parent.name, directory.name)
        return here is not None and here.digest == digest and not here.linked_to

    def _read_record(self, data: bytes, type_: str, key: str) -> RecordFile:
        where = f"{self.objects.address}/{type_}/{key}/{RECORD}"
        try:
            record = RecordFile.model_validate_json(data)
        except ValidationError as error:
            hint = "it was written by a newer ilab, or changed; remove the object and run again"
            raise SetupError("this record cannot be read", where=where, hint=hint) from error
        if (record.type, record.key) != (type_, key) or (record.linked_to and not _KEY.fullmatch(record.linked_to)):
            raise SetupError("this is the record of something else", where=where, hint="remove the object")
        return record

    def _append(self, name: str, path: Path, size: int) -> None:
        """Bring what was added to a growing object."""

        def more() -> None:
            with path.open("ab") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)  # another process of this machine may bring the same
                here = handle.seek(0, os.SEEK_END)
                if here < size:
                    with self.objects.stream(name, here) as blocks:
                        handle.writelines(blocks)

        if not path.exists() or path.stat().st_size < size:
            patiently(more)

    def _listed(self, prefix: str) -> list[tuple[str, int]]:
        return patiently(lambda: list(self.objects.list(prefix)))

    def _delete(self, prefix: str) -> None:
        names = [name for name, _ in self._listed(prefix)]
        if names:
            patiently(lambda: self.objects.delete(names))
