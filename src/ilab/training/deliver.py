"""A chosen checkpoint as a folder of the user's: copied, never linked, since what is there may be changed.

The folder has a note of what it is and of its files (``ilab.origin``, JSON; by its name no file of a model, so the copy
is the same model). One with such a note is replaced by a newer result, unless somebody has put a file of his own there;
that, and any other folder of the name, is left alone and refused, before anything is trained.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilab.core.files import fsync_tree, read_json, write_json
from ilab.errors import InputError

NOTE = "ilab.origin"


def check_target(folder: Path) -> None:
    """Raise ``InputError`` where ``folder`` holds something else than an earlier result."""
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file; a model is a folder", where=str(folder), hint="give another folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / NOTE).is_file():
        raise InputError(
            "this folder holds something else already", where=str(folder), hint="give another with --ckpt-output-dir"
        )
    foreign = sorted(_names(folder) - _delivered(folder)) if (folder / NOTE).is_file() else []
    if foreign:
        raise InputError(
            f"this folder holds an earlier result and {', '.join(map(str, foreign[:3]))}, which would be lost",
            where=str(folder),
            hint="move it elsewhere, or give another folder with --ckpt-output-dir",
        )


def deliver(model: Path, folder: Path, about: Mapping[str, Any]) -> Path:
    """Copy ``model`` to ``folder``, whole or not at all, in place of an earlier result. Returns ``folder``.

    A copy that is there already is left as it is.
    """
    check_target(folder)
    note = {**about, "files": sorted(path.as_posix() for path in _names(model))}
    if _is_copy(model, folder, note):
        return folder
    place = folder.resolve()  # a link stays one
    place.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        new.chmod(0o755)
        shutil.copytree(model, new, dirs_exist_ok=True)
        write_json(new / NOTE, note)
        fsync_tree(new)
        shutil.rmtree(place, ignore_errors=True)
        os.rename(new, place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def _names(folder: Path) -> set[Path]:
    """The files below ``folder``, without the note."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} - {Path(NOTE)}


def _delivered(folder: Path) -> set[Path]:
    """The files of the earlier result. Raises ``InputError`` where the note does not say which."""
    try:
        return {Path(name) for name in read_json(folder / NOTE)["files"]}
    except (ValueError, LookupError, TypeError) as error:
        hint = "give another folder with --ckpt-output-dir"
        raise InputError("this is no note of a result", where=str(folder / NOTE), hint=hint) from error


def _is_copy(model: Path, folder: Path, note: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds just the files of ``model`` with this note; all bytes are compared."""
    if not (folder / NOTE).is_file() or read_json(folder / NOTE) != dict(note):
        return False
    names, there = _names(model), _names(folder)
    return names == there and all(filecmp.cmp(model / name, folder / name, shallow=False) for name in names)


def samples_seen(metrics: Sequence[Mapping[str, Any]], step: int) -> int:
    """How many samples a run had seen after ``step`` steps, from its metrics: what upstream's folders are named by."""
    return sum(row["samples"] for row in metrics if row["step"] <= step)
