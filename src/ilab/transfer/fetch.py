"""Downloading, whatever the source: room on the disk first, resume, checksums, and one rename at the end.

    <models>/.ilab/partial/<name>/<key>.part    arriving; <key> names the contents, so a new revision cannot mix with it
                                  <key>         whole, and its checksum is right
                                  new/ old/     the folder that is put in place, and the one it replaces

Whoever kills a download loses nothing: the next one hashes what is there and asks for the rest (`Range`). A connection
that dies is opened again, as long as something arrives in between. A model is in its place only when it is whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ilab.core.events import Emit
from ilab.core.files import fsync_tree, take_over
from ilab.core.store import disk_error
from ilab.errors import InputError, ServiceError, SetupError
from ilab.transfer.choose import Choice, takes
from ilab.transfer.shelf import FileRecord, Model, Record, Shelf, digest, is_model
from ilab.transfer.source import BLOCK, Checksum, Hasher, RemoteFile, Source
from ilab.transfer.unpack import unpack
from ilab.transfer.web import Busy

AT_ONCE = 4  # files that arrive at the same time
TRIES = 6  # in a row without a single byte
LONGEST_WAIT = 60.0  # seconds that are waited for a server that is busy; longer is for the user to decide
PACE = 0.5  # seconds between two events of progress


@dataclass(frozen=True)
class Fetched:
    """``received`` bytes came over the net, the others of ``size`` were here already."""

    model: Model
    size: int
    received: int


@dataclass(frozen=True)
class Plan:
    """What a download would do: of ``size`` bytes (equal files counted once) ``missing`` are not here yet."""

    place: Path
    size: int
    missing: int
    present: bool


def plan(choice: Choice, shelf: Shelf) -> Plan:
    """What is still to be received. Reads sizes only. Raises ``InputError`` where the place is taken by other files."""
    listing = choice.listing
    place, partial = shelf.place(listing.name), shelf.partial(listing.name)
    here = _here(choice, shelf)
    present = here is not None
    missing = 0 if present else sum(_missing(file, partial) for file in _unique(listing.files))
    if not present:
        _check_free_of_others(choice, place, shelf)
    return Plan(place, sum(file.size for file in _unique(listing.files)), missing, present)


def fetch(source: Source, choice: Choice, shelf: Shelf, emit: Emit) -> Fetched:
    """Bring what was chosen into the models folder.

    Raises ``SetupError`` for too little room or a download of the same model under way, ``ServiceError`` for a server
    that fails for good or bytes that are not those that were announced, ``InputError`` for names that leave the folder.
    """
    listing = choice.listing
    planned = plan(choice, shelf)
    if planned.present:
        return Fetched(shelf.need(listing.name), listing.size, 0)
    partial = shelf.partial(listing.name)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _alone(partial):
            _take_what_is_here(choice, shelf)
            _check_room(choice, planned.place, partial)
            received = _Receiving(source, partial, emit).run(_unique(listing.files))
            record = _put_in_place(choice, planned.place, partial, _recorded(shelf, listing.name))
            shelf.write_record(listing.name, record)
        shutil.rmtree(partial)
    except OSError as error:
        raise disk_error(error, partial) from error
    return Fetched(shelf.need(listing.name), listing.size, received)


def fetch_some(
    source: Source, choice: Choice, shelf: Shelf, files: Sequence[RemoteFile], emit: Emit
) -> dict[str, tuple[Path, str]]:
    """Bring some files of what was chosen, to look at; :func:`fetch` finds them here. Name -> path and SHA-256.

    Raises as :func:`fetch` does.
    """
    partial = shelf.partial(choice.listing.name)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _alone(partial):
            _Receiving(source, partial, emit).run(_unique(files))
            return {
                file.name: (partial / file.key, digest(partial / file.key, Checksum("sha256")).sha256) for file in files
            }
    except OSError as error:
        raise disk_error(error, partial) from error


def _here(choice: Choice, shelf: Shelf) -> Model | None:
    """The model, if it is in its place as it is asked for: by its record, and the sizes of its files."""
    listing = choice.listing
    model = shelf.find(listing.name)
    if model is None or model.record is None or model.record.source != listing.source:
        return None
    same = model.record.revision == listing.revision and bool(listing.revision)
    folder = model.path if model.path.is_dir() else model.path.parent
    sizes = {name: file.size for name, file in model.record.files.items()}
    whole = all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())
    return model if same and whole and choice.single == model.path.is_file() else None


def _check_free_of_others(choice: Choice, place: Path, shelf: Shelf) -> None:
    """Nothing is replaced but what was downloaded from the same place, or is the same model."""
    if not place.exists():
        return
    model = shelf.find(choice.listing.name)
    hint = f"give another folder: --model-dir DIR, or remove it: ilab model remove {choice.listing.name}"
    if place.is_symlink() or place.is_dir() == choice.single:
        raise InputError("there is something else in its place", where=str(place), hint=hint)
    if model is not None and model.record is not None:
        if model.record.source != choice.listing.source:
            message = f"a model from another place is there ({model.record.source})"
            raise InputError(message, where=str(place), hint=hint)
        return
    if choice.single:
        if place.stat().st_size != choice.listing.files[0].size:
            raise InputError("a file of that name is there, and it is another one", where=str(place), hint=hint)
        return
    wanted = {file.name for file in choice.listing.files}
    own = [file for file in sorted(place.rglob("*")) if file.is_file() and takes(file.relative_to(place).as_posix())]
    foreign = [file for file in own if file.relative_to(place).as_posix() not in wanted]
    if foreign:
        message = f"the folder holds a file that is not part of the model ({foreign[0].name})"
        raise InputError(message, where=str(place), hint=hint)


def _missing(file: RemoteFile, partial: Path) -> int:
    """Bytes of a file that have not arrived."""
    if (partial / file.key).is_file():
        return 0
    return max(0, file.size - _size(partial / f"{file.key}.part"))


def _unique(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Each contents once, largest first, so that no large file begins when all others are there."""
    return sorted({file.key: file for file in files}.values(), key=lambda file: (-file.size, file.name))


def _take_what_is_here(choice: Choice, shelf: Shelf) -> None:
    """Files of an earlier revision, or that another program left, count where their checksum is right."""
    place = shelf.place(choice.listing.name)
    partial = shelf.partial(choice.listing.name)
    for file in choice.listing.files:
        old = place if choice.single else place / file.name
        whole = partial / file.key
        if file.packed or whole.exists() or not file.checksum.kind or not old.is_file():
            continue
        if old.stat().st_size == file.size and digest(old, file.checksum).matches(file.checksum):
            take_over(str(old), str(whole))


def _check_room(choice: Choice, place: Path, partial: Path) -> None:
    """Raises ``SetupError`` where the disk has no room. Archives need theirs twice, until they are unpacked."""
    files = _unique(choice.listing.files)
    needed = sum(_missing(file, partial) + (file.size if file.packed else 0) for file in files)
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise SetupError(
            f"{choice.listing.name} needs {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free",
            where=str(place.parent),
            hint="free some space (ilab model list, ilab model remove NAME), or give another folder: --model-dir DIR",
        )


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """One download of a model at a time; the lock goes with the process, however that ends."""
    with (partial / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = "the same model is being downloaded by another command"
            raise SetupError(message, where=str(partial), hint="wait for it, or stop it") from error
        yield


class _Receiving:
    """The files of one download, several at a time."""

    def __init__(self, source: Source, partial: Path, emit: Emit) -> None:
        self._source, self._partial, self._emit = source, partial, emit
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._at: dict[str, int] = {}  # bytes of each file that are here
        self._total = self._received = 0
        self._told = self._began = time.monotonic()

    def run(self, files: Sequence[RemoteFile]) -> int:
        """Receive all of them; the bytes that came over the net. The first failure stops the others."""
        self._total = sum(file.size for file in files)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(self._receive, file) for file in files]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:  # also Ctrl-C: nobody waits for the rest of a large file
                self._stop.set()
                for job in jobs:
                    job.cancel()
                raise
        return self._received

    def _receive(self, file: RemoteFile) -> None:
        whole, part = self._partial / file.key, self._partial / f"{file.key}.part"
        tries = 0
        while not whole.is_file():
            before = _size(part)
            try:
                self._arrive(file, part)
                if self._stop.is_set():
                    return
                os.replace(part, whole)
            except ServiceError as error:
                tries = 1 if _size(part) > before else tries + 1
                pause = _pause(error, tries)
                if not error.retryable or tries >= TRIES or pause > LONGEST_WAIT or self._stop.wait(pause):
                    raise
        self._tell(file, file.size, 0)

    def _arrive(self, file: RemoteFile, part: Path) -> None:
        """Append to ``part`` until it is whole and right. Raises ``ServiceError`` for all that keeps it from that."""
        hasher = Hasher(file.checksum.kind, file.size)
        with part.open("a+b") as handle:
            handle.seek(0)
            while block := handle.read(BLOCK):
                hasher.update(block)
            start = begun = handle.tell()
            if start < file.size:
                with self._source.open(file, start) as body:
                    if body.start != start:  # it knows no ranges: from the beginning
                        handle.truncate(0)
                        hasher = Hasher(file.checksum.kind, file.size)
                        start = begun = 0
                    for block in body.blocks:
                        handle.write(block)
                        hasher.update(block)
                        start += len(block)
                        self._tell(file, start, len(block))
                        if start > file.size or self._stop.is_set():
                            break
            handle.flush()
            os.fsync(handle.fileno())
        if not self._stop.is_set():
            _check(file, part, (begun, start), hasher)

    def _tell(self, file: RemoteFile, here: int, received: int) -> None:
        with self._lock:
            self._at[file.key] = here
            self._received += received
            now, done = time.monotonic(), sum(self._at.values())
            if now - self._told < PACE and done < self._total:
                return
            self._told = now
            unit, scale = ("MB", 1e6) if self._total >= 10_000_000 else ("kB", 1e3)
            rate = self._received / max(now - self._began, 1e-3)
            self._emit.progress(
                round(done / scale),
                max(1, round(self._total / scale)),
                unit,
                rate=rate / scale,
                eta=(self._total - done) / rate if rate else 0,
            )


def _check(file: RemoteFile, part: Path, came: tuple[int, int], hasher: Hasher) -> None:
    """Whether what arrived (from byte to byte) is what was announced; what is not is thrown away.

    Where its beginning is from an earlier try, that may be what is wrong, so the whole file is asked for once more.
    """
    begun, size = came
    if size < file.size:
        raise ServiceError("the connection ended before the file did", where=file.name, retryable=True)
    if size == file.size and hasher.matches(file.checksum):
        return
    part.unlink()
    raise ServiceError(
        "what arrived is not what was announced (its checksum is wrong); it was thrown away",
        where=file.name,
        hint="run the same command again; if it stays wrong, the server or a proxy changes the file",
        retryable=begun > 0,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _pause(error: ServiceError, tries: int) -> float:
    """Seconds until the next try: as the server asks, else more each time."""
    if isinstance(error, Busy) and error.wait is not None:
        return error.wait
    return float(min(0.25 * 2**tries, 30.0))


def _recorded(shelf: Shelf, name: str) -> Collection[str]:
    """The files of the model of that name, as far as they were downloaded."""
    model = shelf.find(name)
    return model.record.files if model is not None and model.record is not None else ()


def _put_in_place(choice: Choice, place: Path, partial: Path, before: Collection[str]) -> Record:
    """Build the folder beside, then rename it into its place. Returns the record of what is there then.

    ``before`` are the files of the revision that is replaced.
    """
    new, old = partial / "new", partial / "old"
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    new.mkdir()
    for file in choice.listing.files:
        if file.packed:
            unpack(partial / file.key, file, new)
            continue
        target = new / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        take_over(str(partial / file.key), str(target))
    if not is_model(new / choice.listing.name if choice.single else new):
        message = "it is no GGUF file" if choice.single else "it holds no config.json with weights as safetensors"
        raise InputError(message, where=choice.listing.source, hint="choose another model")
    fsync_tree(new)
    record = _record(choice, new)
    place.parent.mkdir(parents=True, exist_ok=True)
    if choice.single:
        for name in record.files:
            os.replace(new / name, place.parent / name)
        return record
    if place.exists():
        _keep_foreign(place, new, before)
        os.replace(place, old)
    os.replace(new, place)
    return record


def _keep_foreign(place: Path, new: Path, before: Collection[str]) -> None:
    """What somebody put beside the files of a model (``before``) stays beside those of the new revision."""
    for file in sorted(place.rglob("*")):
        name = file.relative_to(place)
        if file.is_file() and not file.is_symlink() and name.as_posix() not in before and not (new / name).exists():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            take_over(str(file), str(new / name))


def _record(choice: Choice, folder: Path) -> Record:
    known = {file.name: file.checksum.value for file in choice.listing.files if file.checksum.kind == "sha256"}
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sha256 = known.get(path.relative_to(folder).as_posix()) or digest(path, Checksum()).sha256
            files[path.relative_to(folder).as_posix()] = FileRecord(size=path.stat().st_size, sha256=sha256)
    return Record(
        source=choice.listing.source,
        revision=choice.listing.revision,
        licence=choice.listing.licence,
        downloaded=datetime.now(UTC).isoformat(timespec="seconds"),
        files=files,
    )
