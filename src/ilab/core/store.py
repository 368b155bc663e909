"""The store: one directory per result, named by the key of the step that makes it.

    <root>/<type>/<key>/record.json       an artifact exists if and only if its record exists
    <root>/<type>/<key>.partial/          unfinished work: lease.json, artifact/, work/ (kept for resume)
    <root>/<type>/contents/<hash>         which key already holds the result for these input *contents*
    <root>/latest/<step name>             link for people
    <root>/memo/<name>/                   the item-level cache (memo.py)
    <root>/runs/<time>/                   what one run said: plan, events, report

A store may be the mirror of one in a bucket (remote_store.py); the methods that it changes say so nowhere else.

Publishing is one rename after everything was flushed, and the record is written last. One writer per key holds a
lease with a heartbeat; a lease whose process is gone, or whose heartbeat is old, is taken over. An artifact whose
inputs have new keys but the same contents is *linked*: a record that points at the older one, no second copy.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ilab.core.events import Emit
from ilab.core.files import fsync, fsync_tree, read_json, write_json
from ilab.core.lease import LEASE, Held, Lease, is_held
from ilab.core.step import KEY_LENGTH, Artifact, Step, fingerprint
from ilab.errors import SetupError

RECORD_FORMAT = 1
RECORD = "record.json"
BLOCK = 1 << 20
Files = dict[str, tuple[int, str]]  # relative name -> size in bytes, SHA-256


class RecordFile(BaseModel):
    """``record.json``. ``digest`` covers the contents and nothing of this file; times and host facts are here only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = RECORD_FORMAT
    step: str
    type: str
    version: int
    key: str
    fields: dict[str, Any]
    inputs: dict[str, Any]  # input name -> key, or name -> {name -> key}
    input_digests: dict[str, Any]
    digest: str
    counts: dict[str, int]
    found: dict[str, dict[str, str]] = {}  # digest -> locator and revision
    tools: dict[str, str] = {}
    started: float = 0.0
    seconds: float = 0.0
    linked_to: str | None = None  # key whose directory holds the contents


class Partial:
    """Unfinished work on one key: ``artifact`` will be published, ``work`` is scratch that survives a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifact = path / "artifact"
        self.work = path / "work"


class Store:
    """A directory of artifacts. All methods are safe under several processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.label = ""  # ends the names of runs, where those of several machines come together
        try:
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".write.{os.getpid()}.{threading.get_ident()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise SetupError(
                f"the store cannot be written: {error.strerror}",
                where=str(root),
                hint="give another folder with --store DIR, or mend its permissions",
            ) from error

    def directory(self, type_: str, key: str) -> Path:
        return self.root / type_ / key

    def address(self, path: Path) -> str:
        """What everybody who has this store opens a folder in it by."""
        return str(path)

    def named(self, address: str) -> tuple[str, str] | None:
        """(type, key) of the artifact that a path or an :meth:`address` means, None for one that lies elsewhere."""
        path = Path(address).resolve()
        return (path.parent.name, path.name) if path.parent.parent == self.root.resolve() else None

    def record(self, type_: str, key: str) -> RecordFile | None:
        """The record of an artifact, or None while it does not exist."""
        path = self.directory(type_, key) / RECORD
        if not path.exists():
            return None
        try:
            return RecordFile.model_validate(read_json(path))
        except ValueError as error:
            raise SetupError(
                "this record cannot be read",
                where=str(path),
                hint="it was changed by hand, or written by a newer ilab; remove the folder and run again",
            ) from error

    def contents(self, record: RecordFile, emit: Emit | None = None) -> Path:
        """The directory that holds the contents of ``record`` (an older one's where it is linked). What has to be
        brought here first tells ``emit`` how far it is."""
        return self.directory(record.type, record.linked_to or record.key)

    def folder_at(self, address: str, emit: Emit | None = None) -> Path:
        """The same by a path or an :meth:`address`; a path that is none of this store's is given back."""
        named = self.named(address)
        record = self.record(*named) if named else None
        return self.contents(record, emit) if record else Path(address)

    def papers(self, record: RecordFile) -> Path:
        """As :meth:`contents`, where it is enough that the small files are there: what an artifact tells of itself."""
        return self.contents(record)

    def open(self, step: type[Step], key: str) -> Artifact:
        record = self.record(step.type, key)
        if record is None:
            raise SetupError(f"the store has no {step.type} {key}", where=str(self.root), hint="run: ilab run")
        return step.makes()(self.contents(record))

    @contextmanager
    def writing(self, type_: str, key: str) -> Iterator[Partial]:
        """Take the key's lease. The partial directory stays when the block fails, so that the next run resumes."""
        partial = self.partial(type_, key)
        partial.work.mkdir(parents=True, exist_ok=True)
        lease = Lease(partial.path / LEASE)
        try:
            # A crash may have left half an artifact; what can be resumed is in ``work``.
            if partial.artifact.exists():
                shutil.rmtree(partial.artifact)
            partial.artifact.mkdir()
            yield partial
        finally:
            lease.release()

    def partial(self, type_: str, key: str) -> Partial:
        """Where unfinished work on a key lies, if there is any."""
        return Partial(self.directory(type_, f"{key}.partial"))

    def publish(self, partial: Partial, record: RecordFile) -> RecordFile:
        """Flush, write the record, rename into place. Returns the record with the digest of the contents."""
        record = record.model_copy(update={"digest": digest_tree(partial.artifact)})
        write_json(partial.artifact / RECORD, record.model_dump(mode="json"))
        fsync_tree(partial.artifact)
        final = self.directory(record.type, record.key)
        if final.exists():  # forced to run again: the old result makes room
            doomed = final.with_name(f"{final.name}.{uuid.uuid4().hex}.old")
            os.rename(final, doomed)
            os.rename(partial.artifact, final)
            shutil.rmtree(doomed)
        else:
            os.rename(partial.artifact, final)
        fsync(final.parent)
        self._index_contents(record)
        shutil.rmtree(partial.work, ignore_errors=True)
        return record

    def same_contents(self, step: Step, input_digests: dict[str, Any]) -> RecordFile | None:
        """An existing result of the same step over inputs of the same contents, if there is one."""
        pointer = self._pointer(step.type, step.version, step.fields(), input_digests)
        return self.record(step.type, pointer.read_text().strip()) if pointer.exists() else None

    def link(self, record: RecordFile, older: RecordFile) -> RecordFile:
        """Record that ``record`` has the contents of ``older``."""
        record = record.model_copy(
            update={"digest": older.digest, "counts": older.counts, "linked_to": older.linked_to or older.key}
        )
        with self.writing(record.type, record.key) as partial:
            for name in self._names(older):  # so that people find the contents under either key
                (partial.artifact / name).symlink_to(Path("..") / (record.linked_to or "") / name)
            write_json(partial.artifact / RECORD, record.model_dump(mode="json"))
            fsync_tree(partial.artifact)
            final = self.directory(record.type, record.key)
            if not final.exists():
                os.rename(partial.artifact, final)
        shutil.rmtree(partial.path, ignore_errors=True)
        return record

    def _names(self, record: RecordFile) -> list[str]:
        """What stands in the folder of the contents of ``record``."""
        return [entry.name for entry in self.contents(record).iterdir() if entry.name != RECORD]

    def lease(self, name: str) -> Held:
        """The exclusive right to something among all who have this store, such as ``nightly/lamp``; held until it is
        released. Raises ``SetupError`` where somebody has it."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return Lease(folder / LEASE)

    def share(self, record: RecordFile) -> None:
        """Called for every result that a run stands on: it is where others look for it. A folder is that already."""

    def memo(self, name: str) -> Path:
        """The folder of the item-level cache ``name``, with what others put there."""
        return self.root / "memo" / name

    def runs(self, name: str, newest: int | None = None) -> list[Path]:
        """The files ``name`` of all runs (of the ``newest`` so many), by their time."""
        found = sorted((self.root / "runs").glob(f"*/{name}"))
        return found if newest is None else found[-newest:]

    def close(self) -> None:
        """At the end of a command; the store may be used again."""

    def clean_partial(self, type_: str, key: str) -> None:
        """Remove what is left of the partial directory of a finished result, unless somebody makes it again."""
        partial = self.directory(type_, f"{key}.partial")
        if partial.exists() and not is_held(partial / LEASE):
            shutil.rmtree(partial, ignore_errors=True)

    def point_latest(self, name: str, record: RecordFile) -> None:
        """``latest/<name>`` for people; also what ``plan`` compares with to say why a step runs."""
        link = self.root / "latest" / name
        link.parent.mkdir(exist_ok=True)
        temporary = link.with_name(f".{name}.{uuid.uuid4().hex}")
        temporary.symlink_to(Path("..") / record.type / record.key)
        os.replace(temporary, link)

    def latest(self, name: str) -> RecordFile | None:
        target = (self.root / "latest" / name).resolve()
        if not (target / RECORD).exists():
            return None
        return self.record(target.parent.name, target.name)

    def records(self) -> Iterator[RecordFile]:
        """All records, in no order that matters."""
        for path in sorted(self.root.glob(f"*/{'?' * KEY_LENGTH}/{RECORD}")):
            record = self.record(path.parent.parent.name, path.parent.name)
            if record is not None:
                yield record

    def partials(self) -> list[Path]:
        """Unfinished work, and old results that a killed process had moved out of the way (``--force``)."""
        key = "[0-9a-f]" * KEY_LENGTH  # the folder may hold other things, too
        return sorted([*self.root.glob(f"*/{key}.partial"), *self.root.glob(f"*/{key}.*.old")])

    def outdated_plans(self) -> list[Path]:
        """Plans that runs on a cluster left beside the results, but for those of the newest runs."""
        return []

    def held(self, partial: Path) -> bool:
        """Whether a living process makes what this partial folder is for."""
        return is_held(partial / LEASE)

    def size(self, path: Path) -> int:
        """Bytes of an artifact's or a partial folder."""
        return size_of(path)

    def remove_partial(self, partial: Path) -> None:
        shutil.rmtree(partial, ignore_errors=True)

    def remove(self, record: RecordFile) -> int:
        """Remove an artifact; returns the bytes freed. The record goes first, so no half artifact ever exists."""
        directory = self.directory(record.type, record.key)
        size = size_of(directory)
        (directory / RECORD).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        return size

    def _pointer(self, type_: str, version: int, fields: dict[str, Any], digests: dict[str, Any]) -> Path:
        return self.root / type_ / "contents" / fingerprint(type_, version, fields, digests)

    def _index_contents(self, record: RecordFile) -> None:
        pointer = self._pointer(record.type, record.version, record.fields, record.input_digests)
        pointer.parent.mkdir(exist_ok=True)
        temporary = pointer.with_name(f".{pointer.name}.{uuid.uuid4().hex}")
        temporary.write_text(record.key)
        os.replace(temporary, pointer)


def list_files(root: Path) -> Files:
    """All files below ``root`` but the record, by their names."""
    found: Files = {}
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name != RECORD:
            found[name] = (path.stat().st_size, digest_file(path))
    return found


def digest_files(files: Files) -> str:
    """SHA-256 over the sorted relative names, sizes and hashes."""
    lines = (f"{name}\0{size}\0{sha256}\n" for name, (size, sha256) in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def digest_tree(root: Path) -> str:
    """The digest of all files below ``root`` but the record."""
    return digest_files(list_files(root))


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def size_of(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def disk_error(error: OSError, where: Path | str = "") -> SetupError:
    """What a full disk or a forbidden folder means to a person."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SetupError(
            "the disk is full",
            where=str(where or error.filename or ""),
            hint="free some space (ilab pipeline gc removes what no pipeline needs) and run the same command again: "
            "finished steps and teacher answers are kept",
        )
    return SetupError(
        f"{error.strerror or error}",
        where=str(error.filename or where),
        hint="mend the permissions or give another folder with --store DIR",
    )
