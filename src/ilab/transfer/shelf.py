"""The models folder: ``~/.cache/instructlab/models``, laid out as InstructLab does.

    OWNER/NAME/          a Hugging Face directory
    NAME.gguf            a GGUF file
    .ilab/records/…json  where a model came from, and the digest of each of its files
    .ilab/used/…         an empty file whose time says when the model was last used
    .ilab/partial/…      downloads under way (see fetch.py)

Names come from people and from servers. A model is found by asking which models lie here, so a name that leads out of
the folder, or to a folder of several models, is simply not there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ilab.core.files import write_json
from ilab.core.store import disk_error, size_of
from ilab.errors import InputError
from ilab.homes import cache_home, data_home, expanded
from ilab.plugins import nearest
from ilab.transfer.source import BLOCK, Checksum, Hasher

OWN = ".ilab"
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
DEEPEST = 3  # folders below the models folder in which models are looked for


class FileRecord(BaseModel):
    """``size`` in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Record(BaseModel):
    """Where a model came from. ``revision`` is a commit or digest, ``downloaded`` a time (UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    source: str
    revision: str = ""
    licence: str = ""
    downloaded: str = ""
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Model:
    """A model of a folder: ``path`` is a Hugging Face directory or a GGUF file."""

    name: str
    path: Path
    record: Record | None
    used: datetime | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files, in the order of their names; of a GGUF file that comes in parts, all of them."""
        if self.path.is_dir():
            return tuple(sorted(file for file in self.path.rglob("*") if file.is_file()))
        return tuple(gguf_parts(self.path))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)


def models_home() -> Path:
    """Where models are kept if nobody says otherwise."""
    return cache_home() / "models"


def checkpoints_home() -> Path:
    """Where `ilab model train` puts what it trained outside of projects."""
    return data_home() / "checkpoints"


class Shelf:
    """The models in ``root``, which need not be there yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[Model]:
        """All models, by name."""
        return sorted((self._model(path) for path in self._paths()), key=lambda model: model.name)

    def find(self, name: str) -> Model | None:
        """The model of that name (``OWNER/NAME``, ``NAME.gguf``), or None."""
        if not NAME.fullmatch(name) or any(part.startswith(".") for part in name.split("/")):
            return None
        path = self.root / name
        return self._model(path) if is_model(path) else None

    def need(self, name: str) -> Model:
        """As :meth:`find`. Raises ``InputError``, which names what is there, for a name that is not."""
        found = self.find(name)
        if found is None:
            known = [model.name for model in self.models()]
            close = nearest(name, known) if known else "there are no models yet: ilab model download"
            raise InputError(f"there is no model {name!r}", where=str(self.root), hint=close)
        return found

    def place(self, name: str) -> Path:
        """Where a model of that name belongs. Raises ``InputError`` for what cannot be one's name."""
        if not NAME.fullmatch(name) or name.count("/") >= DEEPEST:
            raise InputError(f"{name!r} is no name for a model", hint="like OWNER/NAME")
        return self.root / name

    def partial(self, name: str) -> Path:
        """The folder of a download under way."""
        return self.root / OWN / "partial" / name.replace("/", "%")

    def unfinished(self) -> dict[str, int]:
        """Downloads that were begun: the model's name, and the bytes that are here."""
        folders = sorted((self.root / OWN / "partial").glob("*"))
        return {folder.name.replace("%", "/"): size_of(folder) for folder in folders if folder.is_dir()}

    def write_record(self, name: str, record: Record) -> None:
        write_json(self.root / OWN / "records" / f"{name}.json", record.model_dump())

    def drop_record(self, name: str) -> None:
        (self.root / OWN / "records" / f"{name}.json").unlink(missing_ok=True)
        (self.root / OWN / "used" / name).unlink(missing_ok=True)

    def touch(self, model: Model) -> None:
        """Remember that the model is used now; a folder that cannot be written remembers nothing."""
        mark = self.root / OWN / "used" / model.name
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError:
            return

    def drop_unfinished(self, name: str) -> int:
        """Delete what has arrived of a model; returns the bytes. Raises ``InputError`` where it was never begun."""
        begun = self.unfinished()
        if name not in begun:
            raise InputError(f"no download of {name!r} was begun", where=str(self.root))
        try:
            shutil.rmtree(self.partial(name))
        except OSError as error:
            raise disk_error(error, self.partial(name)) from error
        return begun[name]

    def remove(self, model: Model) -> int:
        """Delete a model's files and what is remembered of them; returns the bytes. A link is removed, not followed.

        Raises ``SetupError`` where the folder cannot be written.
        """
        size = model.size
        try:
            if model.path.is_symlink():
                model.path.unlink()
            elif model.path.is_dir():
                shutil.rmtree(model.path)
            else:
                for file in model.files:
                    file.unlink()
            self.drop_record(model.name)
            shutil.rmtree(self.partial(model.name), ignore_errors=True)
            parent = model.path.parent
            while parent != self.root and parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
                parent = parent.parent
        except OSError as error:
            raise disk_error(error, model.path) from error
        return size

    def _model(self, path: Path) -> Model:
        name = path.relative_to(self.root).as_posix()
        mark = self.root / OWN / "used" / name
        used = datetime.fromtimestamp(mark.stat().st_mtime, UTC) if mark.is_file() else None
        return Model(name, path, self._record(name), used)

    def _record(self, name: str) -> Record | None:
        """What is remembered of a model; nothing where the record was damaged."""
        try:
            text = (self.root / OWN / "records" / f"{name}.json").read_text(encoding="utf-8")
            return Record.model_validate_json(text)
        except (OSError, ValidationError, UnicodeDecodeError):
            return None

    def _paths(self) -> Iterator[Path]:
        def below(folder: Path, depth: int) -> Iterator[Path]:
            try:
                children = sorted(folder.iterdir())
            except OSError:
                return
            for child in children:
                if child.name.startswith("."):
                    continue
                if is_model(child):
                    yield child
                elif child.is_dir() and not child.is_symlink() and depth < DEEPEST:
                    yield from below(child, depth + 1)

        yield from below(self.root, 1)


def is_model(path: Path) -> bool:
    """Whether ``path`` is a Hugging Face directory with safetensors, or a GGUF file (of several parts, the first)."""
    if path.is_dir():
        return (path / "config.json").is_file() and any(path.glob("*.safetensors"))
    if path.suffix.lower() != ".gguf" or not path.is_file() or gguf_parts(path)[0] != path:
        return False
    try:
        with path.open("rb") as handle:
            return handle.read(4) == b"GGUF"
    except OSError:
        return False


def gguf_parts(path: Path) -> list[Path]:
    """The parts of a GGUF file, by their numbers; most have one."""
    match = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", path.name)
    if not match:
        return [path]
    stem, count = re.escape(match[1]), match[2]
    pattern = re.compile(rf"{stem}-\d{{5}}-of-{count}\.gguf")
    return sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name))


def damaged(model: Model) -> list[str]:
    """The files of a downloaded model that are not what was downloaded: name and what is wrong. Reads every byte.

    Raises ``InputError`` for a model without a record.
    """
    if model.record is None:
        hint = "only what `ilab model download` fetched can be checked"
        raise InputError(f"{model.name} was not downloaded by ilab", where=str(model.path), hint=hint)
    folder = model.path if model.path.is_dir() else model.path.parent
    wrong = []
    for name, file in sorted(model.record.files.items()):
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name}: is missing")
        elif path.stat().st_size != file.size:
            wrong.append(f"{name}: has {path.stat().st_size:,} bytes instead of {file.size:,}")
        elif digest(path, Checksum("sha256", file.sha256)).sha256 != file.sha256:
            wrong.append(f"{name}: its bytes were changed")
    return wrong


def digest(path: Path, checksum: Checksum) -> Hasher:
    """Hash a file for ``checksum``, which is compared by the result."""
    hasher = Hasher(checksum.kind, path.stat().st_size)
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            hasher.update(block)
    return hasher


def model_at(given: str, folder: Path) -> Path | None:
    """The model that a person means by ``given``: a path, relative to ``folder``, else a name in the models folder,
    else one of the checkpoints.

    None where it is neither. The use of a model in the models folder is remembered.
    """
    path, shelf = folder / expanded(given), Shelf(models_home())
    name = given
    if path.exists():
        whole = path.absolute()
        name = whole.relative_to(shelf.root).as_posix() if whole.is_relative_to(shelf.root) else ""
    found = shelf.find(name)
    if found is not None:
        shelf.touch(found)
    if path.exists():
        return path
    found = found or Shelf(checkpoints_home()).find(name)
    return found.path if found else None


def not_here(given: str) -> InputError:
    """The error for a name or path that means no model."""
    is_file = given.lower().endswith(".gguf")  # no repository is called so
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", given, re.ASCII) and not is_file:
        hint = f"get it with: ilab model download --repository {given}   or see: ilab model list"
    else:
        hint = "give a model's folder, or a name; see: ilab model list"
    return InputError(f"there is no model {given!r}, neither as a folder nor by that name", hint=hint)
