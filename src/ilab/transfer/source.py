"""What every source of models has in common: a listing, and the bytes of a file from any offset on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from ilab.errors import InputError

Kind = Literal["sha256", "git", "md5", ""]
BLOCK = 1 << 20  # bytes
LONGEST = 200  # characters of a file's name


@dataclass(frozen=True)
class Checksum:
    """How a file is known: ``sha256``, ``git`` (the SHA-1 of a git blob), ``md5``; ``""`` where a source has none."""

    kind: Kind = ""
    value: str = ""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a model. ``name`` is its path in the model's folder, ``size`` in bytes; ``locator`` is the source's.

    A ``packed`` one (``tar`` or ``tar+gzip``) is an archive of such files below ``root``; its name is for people.
    """

    name: str
    size: int
    checksum: Checksum
    locator: str
    packed: Literal["", "tar", "tar+gzip"] = ""
    root: str = ""

    @property
    def key(self) -> str:
        """A name for the contents: what was received under it stays right whatever the file is called."""
        identity = f"{self.checksum.kind}:{self.checksum.value or self.locator}:{self.size}"
        return hashlib.sha256(identity.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Listing:
    """What a source holds. ``name`` is the model's in the models folder, ``revision`` a commit or digest."""

    name: str
    source: str
    revision: str
    licence: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Body:
    """Bytes of a file from ``start`` on, which is 0 where the source cannot begin further on."""

    start: int
    blocks: Iterator[bytes]


class Source(Protocol):
    """Where a model comes from. ``open`` is called from several threads at once."""

    def listing(self) -> Listing:
        """What there is. Raises ``InputError`` for an address that holds no model, ``ServiceError`` for a server."""
        ...

    def open(self, file: RemoteFile, start: int) -> AbstractContextManager[Body]:
        """The bytes of ``file`` from ``start`` on. Raises ``ServiceError``, ``retryable`` where that may help."""
        ...


class Hasher:
    """Hashes bytes as they pass, for the checksum that a source names and for the record (SHA-256)."""

    def __init__(self, kind: Kind, size: int) -> None:
        self._kind = kind
        self._sha256 = hashlib.sha256()
        self._other = None
        if kind == "git":  # a blob's name is the hash of a header and the contents (git, hash-object)
            self._other = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        elif kind == "md5":
            self._other = hashlib.md5(usedforsecurity=False)

    def update(self, block: bytes) -> None:
        self._sha256.update(block)
        if self._other is not None:
            self._other.update(block)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def matches(self, checksum: Checksum) -> bool:
        """Whether all that passed is what ``checksum`` names; a source without checksums cannot be wrong."""
        if not checksum.kind:
            return True
        found = self._sha256 if self._other is None else self._other
        return found.hexdigest() == checksum.value.lower()


def safe_name(name: str) -> str:
    """``name`` if it is a plain path below a folder. Raises ``InputError`` for anything else."""
    path = PurePosixPath(name)
    if (
        not name
        or not name.isprintable()
        or "\\" in name
        or ".." in path.parts
        or path.is_absolute()
        or str(path) != name
        or len(name) > LONGEST
    ):
        shown = ascii(name)[:60]
        raise InputError(f"a file of it is called {shown}, which is no plain name", hint="do not use this model")
    return name
