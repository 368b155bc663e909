"""Writing files so that a crash leaves either the old state or the new one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ilab.errors import SetupError

R = TypeVar("R", bound=BaseModel)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write; at the end it is flushed to the disk and takes the place of ``path``.

    Where the block raises, ``path`` stays what it was. A link is followed. What is there and no file (``/dev/null``,
    ``/dev/stdout``, a named pipe) is written to instead: renamed over, a device would be gone for the whole machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.exists() and not path.is_file() and not path.is_dir()
    target = path if stream else path.resolve()
    folder = Path(tempfile.gettempdir()) if stream else target.parent
    temporary = folder / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        if stream:
            with temporary.open("rb") as written, target.open("wb") as out:
                shutil.copyfileobj(written, out)
        else:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, target)
    except OSError as error:
        error.filename = str(path)  # a full disk is found while writing, and then nothing says where
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The whole of it or nothing; see :func:`replacing`."""
    with (
        replacing(path) as new,
        new.open("w", encoding="utf-8", newline="\n", errors="surrogatepass") as handle,
    ):
        handle.write(text)


def write_bytes(path: Path, data: bytes) -> None:
    """The whole of it or nothing; see :func:`replacing`."""
    with replacing(path) as new:
        new.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Pretty, sorted, newline at the end: for people, and equal bytes for equal values."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises OSError, and ValueError for what is none or is nested beyond all reason."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_records(path: Path, records: Iterable[BaseModel]) -> int:
    """One JSON object a line, fields in declaration order, ``None`` left out. Returns how many."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for record in records:
            handle.write(record.model_dump_json(exclude_none=True) + "\n")
            count += 1
    return count


def read_records(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a JSONL file. Raises ``SetupError`` with file and line where one cannot be read."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                raise SetupError(
                    f"not a {kind.__name__} record: {error.errors()[0]['msg']}",
                    where=f"{path}:{number}",
                    hint="the store was changed by hand; remove that artifact's folder and run again",
                ) from error


def take_over(source: str, target: str) -> None:
    """A hard link where the file system has them: a model taken over costs no second copy. For ``copytree``."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def fsync_tree(root: Path) -> None:
    """Flush every file and folder below ``root`` to the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            if not (Path(folder) / name).is_symlink():
                fsync(Path(folder) / name)
        fsync(Path(folder))


def fsync(path: Path) -> None:
    """Flush one file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
