"""Archives of a model's files, as layers of container images are: plain files below one folder, nothing else.

An image may hold a whole system beside the model (KServe's modelcars are built on one). What does not lie below the
folder of models is not written, nor is what is never taken (see choose.py): pickles, code, hidden files.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ilab.errors import InputError
from ilab.transfer.choose import takes
from ilab.transfer.source import BLOCK, RemoteFile, safe_name

MOST_TIMES = 20  # a compressed archive may hold so many times its size; weights hardly compress at all
_DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


def unpack(archive: Path, file: RemoteFile, folder: Path) -> None:
    """Write the archive's files below ``folder``. Raises ``InputError`` for one that is damaged or means harm."""
    left = file.size * (MOST_TIMES if file.packed == "tar+gzip" else 1) + BLOCK
    mode = "r|gz" if file.packed == "tar+gzip" else "r|"
    try:
        with tarfile.open(archive, mode) as members:  # type: ignore[call-overload]
            for member in members:
                left -= member.size
                if left < 0:
                    raise InputError("the archive holds far more than its size", where=file.name)
                name = _inside(member, file)
                if name:
                    _write(cast("IO[bytes]", members.extractfile(member)), folder / name)
    except _DAMAGED as error:
        raise InputError(f"an archive in it cannot be read: {error}", where=file.name) from error


def _inside(member: tarfile.TarInfo, file: RemoteFile) -> str:
    """The name in the model's folder, or ``""`` for what is left out."""
    path = PurePosixPath(member.name.removeprefix("./"))
    if ".." in path.parts or path.is_absolute():
        message = f"an archive in it holds {ascii(member.name)[:60]}, which leads out of the folder"
        raise InputError(message, where=file.name, hint="do not use this model")
    if not member.isreg() or not path.is_relative_to(file.root):
        return ""
    name = path.relative_to(file.root).as_posix()
    return safe_name(name) if takes(name) else ""


def _write(contents: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with contents, target.open("wb") as handle:
        while block := contents.read(BLOCK):
            handle.write(block)
