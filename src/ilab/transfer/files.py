"""Models from this machine: a folder, or a GGUF file. Their bytes are checked as they are copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ilab.core.step import fingerprint
from ilab.core.store import digest_file, disk_error
from ilab.errors import InputError
from ilab.homes import expanded
from ilab.transfer.address import Address
from ilab.transfer.shelf import gguf_parts
from ilab.transfer.source import BLOCK, Body, Checksum, Listing, RemoteFile


class Folder:
    """A folder or file of this machine; relative paths are read from ``base``."""

    def __init__(self, address: Address, base: Path) -> None:
        self._path = (base / expanded(address.path)).resolve()

    def listing(self) -> Listing:
        """Every file below the folder. Links that lead out of it are not followed."""
        path = self._path
        if path.is_file():
            found = {file.name: file for file in gguf_parts(path)}
        elif path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file() and _within(file, path)]
            found = {file.relative_to(path).as_posix(): file for file in inside}
        else:
            raise InputError("there is no such file or folder", where=str(path), hint="check the path")
        files = tuple(_remote(name, file) for name, file in found.items())
        revision = fingerprint([[file.name, file.checksum.value] for file in files])
        return Listing(path.name, f"file://{path}", revision, "", files)

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        try:
            with Path(file.locator).open("rb") as handle:
                handle.seek(start)
                yield Body(start, iter(lambda: handle.read(BLOCK), b""))
        except OSError as error:
            raise disk_error(error, file.locator) from error


def _within(file: Path, folder: Path) -> bool:
    """Whether a file, or what a link means, lies below ``folder``; the hub's cache links to its blobs."""
    home = folder.parent.parent if folder.parent.name == "snapshots" else folder
    return file.resolve().is_relative_to(home)


def _remote(name: str, path: Path) -> RemoteFile:
    return RemoteFile(name, path.stat().st_size, Checksum("sha256", digest_file(path)), str(path))
