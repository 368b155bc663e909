"""Tokenised once: encoded sets kept on disk by content and mapped into memory.

    <cache>/<key>/tokens.i32  trained.u8  ends.i64   flat arrays, little-endian: rows one behind the other
    <cache>/<key>/rows.json                          the id of each row
    <cache>/<key>/index.json                         sizes and SHA-256 of the others, and the audit
    <cache>/<key>.lock                               held while somebody writes it

The key is the hash of the rows, of all that decides their tokens (tokenizer, template, stop tokens) and of the options,
so a changed row or template is another set and nothing is ever out of date. A set is written to a folder of its own and
renamed when it is whole; one that does not hold what its index says is made again. Who writes holds a lock that ends
with its process, so two runs share the work and a killed one leaves nothing in the way. Memory is bounded by ids and
lengths, not by tokens.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ilab.core.files import fsync_tree, write_json
from ilab.data import Record
from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.training.audit import Audit
from ilab.training.encode import MASK, TOKEN, EncodedSet, Progress, encode_into, encoded_set
from ilab.training.pieces import EncodeOptions
from ilab.training.records import RawSample

FORMAT = 1  # of the files, and of how samples become tokens: another number is another set
ENDS = np.dtype("<i8")
KEPT = TOKENS_FILE, MASKS_FILE, ENDS_FILE, ROWS_FILE = "tokens.i32", "trained.u8", "ends.i64", "rows.json"
INDEX_FILE = "index.json"


class Index(Record):
    """``index.json``. ``files`` are size in bytes and SHA-256 of each; ``content`` is the hash of the rows."""

    format: int
    content: str
    files: dict[str, tuple[int, str]]
    audit: Audit


class Torn(Exception):
    """A kept set that is not whole."""


def encode_set(
    samples: Iterable[RawSample],
    renderer: Renderer,
    options: EncodeOptions,
    cache: Path,
    progress: Progress | None = None,
    workers: int = 1,
) -> EncodedSet:
    """Encode and audit ``samples`` with ``workers`` processes, or map what an earlier run kept in ``cache``.

    ``samples`` is gone through twice, so it must be a sequence or ``RecordFiles``, not an iterator. Raises InputError
    for data that must not be trained on (nothing is kept then), and where it changed while it was read.
    """
    content = hash_samples(samples)
    key = _key(content, renderer, options)
    folder = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{key}.lock"):
        try:
            return open_set(folder)
        except Torn:
            _remove(folder)
        partial = cache / f"{key}.partial"
        _remove(partial)  # of a process that was killed: we hold the lock
        partial.mkdir()
        try:
            _write(partial, samples, (renderer, options), content, (progress, workers))
        except BaseException:
            _remove(partial)
            raise
        os.rename(partial, folder)
        return open_set(folder)


def open_set(folder: Path) -> EncodedSet:
    """Map a kept set. Raises ``Torn`` where it is not there or not whole."""
    try:
        index = Index.model_validate_json((folder / INDEX_FILE).read_bytes())
        for name in KEPT:
            size, digest = index.files[name]
            if (folder / name).stat().st_size != size or _digest(folder / name) != digest:
                raise Torn(f"{name} is not what was written")
        names = json.loads((folder / ROWS_FILE).read_bytes())
    except (OSError, ValidationError, ValueError, KeyError) as error:
        raise Torn(str(error)) from error
    tokens, masks, ends = (
        np.memmap(folder / name, kind, "r").view(np.ndarray)
        for name, kind in ((TOKENS_FILE, TOKEN), (MASKS_FILE, MASK), (ENDS_FILE, ENDS))
    )
    return encoded_set(names, (tokens, masks), np.asarray(ends, np.int64), index.audit)


def hash_samples(samples: Iterable[RawSample]) -> str:
    """SHA-256 of what the samples hold, in their order; files and lines they came from are no part of it."""
    total = hashlib.sha256()
    for sample in samples:
        _feed(total, sample)
    return total.hexdigest()


def _feed(total: hashlib._Hash, sample: RawSample) -> None:
    text = json.dumps(sample.content(), sort_keys=True, separators=(",", ":"))
    total.update(f"{len(text)}\n{text}\n".encode())


def _key(content: str, renderer: Renderer, options: EncodeOptions) -> str:
    parts = [FORMAT, content, renderer.fingerprint, options.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _write(
    folder: Path,
    samples: Iterable[RawSample],
    means: tuple[Renderer, EncodeOptions],
    content: str,
    work: tuple[Progress | None, int],
) -> None:
    """All files of a set, flushed to the disk, the index last."""
    seen = hashlib.sha256()

    def hashed() -> Iterator[RawSample]:
        for sample in samples:
            _feed(seen, sample)
            yield sample

    with (folder / TOKENS_FILE).open("wb") as tokens, (folder / MASKS_FILE).open("wb") as masks:
        names, ends, audit = encode_into((tokens, masks), hashed(), *means, *work)
    if seen.hexdigest() != content:
        raise InputError("the training data changed while it was read", hint="run again when nobody writes it")
    audit.check()
    (folder / ENDS_FILE).write_bytes(ends.astype(ENDS).tobytes())
    (folder / ROWS_FILE).write_text(json.dumps(names), encoding="utf-8")
    files = {file.name: (file.stat().st_size, _digest(file)) for file in map(folder.joinpath, KEPT)}
    index = Index(format=FORMAT, content=content, files=files, audit=audit)
    write_json(folder / INDEX_FILE, index.model_dump(mode="json"))
    fsync_tree(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One at a time, over processes; the system lets go of the lock when its holder dies."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
