"""A chosen checkpoint as a folder of the user's: copied, never linked, since what is there may be changed.

The folder has a note of what it is (``ilab.origin``, JSON; by its name no file of a model, so the copy is the same
model). One with such a note is replaced by a newer result; any other folder of that name is left alone and refused,
before anything is trained.
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


def deliver(model: Path, folder: Path, about: Mapping[str, Any]) -> Path:
    """Copy ``model`` to ``folder``, whole or not at all, in place of an earlier result. Returns ``folder``.

    A copy that is there already is left as it is.
    """
    check_target(folder)
    if _is_copy(model, folder, about):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new.chmod(0o755)
        shutil.copytree(model, new, dirs_exist_ok=True)
        write_json(new / NOTE, dict(about))
        fsync_tree(new)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def _is_copy(model: Path, folder: Path, about: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds just the files of ``model`` with this note; all bytes are compared."""
    if not (folder / NOTE).is_file() or read_json(folder / NOTE) != dict(about):
        return False
    names = {path.relative_to(model) for path in model.rglob("*") if path.is_file()}
    there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} - {Path(NOTE)}
    return names == there and all(filecmp.cmp(model / name, folder / name, shallow=False) for name in names)


def samples_seen(metrics: Sequence[Mapping[str, Any]], step: int) -> int:
    """How many samples a run had seen after ``step`` steps, from its metrics: what upstream's folders are named by."""
    return sum(row["samples"] for row in metrics if row["step"] <= step)
