"""Which file of a folder is meant: the newest of those that InstructLab's tools look for by name.

    train_*.jsonl  test_*.jsonl                what the first trainers read, and the questions to ask before and after
    knowledge_train_msgs_*  skills_train_msgs_*     what the two phases train on
    messages_*.jsonl                           all samples at once

Names end in the time they were written at, which decides; where they do not, the file's own time does. Folders below
are looked through as well, since every export makes one.
"""

from __future__ import annotations

import re
from pathlib import Path

from ilab.errors import InputError

STAMP = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}_\d{2}_\d{2})(?:_(\d+))?")
ALL_AT_ONCE = ("messages_*.jsonl", "train_*.jsonl", "skills_train_msgs_*.jsonl", "knowledge_train_msgs_*.jsonl")
PHASES = ("knowledge_train_msgs_*.jsonl", "skills_train_msgs_*.jsonl")
MAKE = "make data with: ilab data generate --output-dir {folder}"


def newest(folder: Path, pattern: str) -> Path | None:
    """The newest file below ``folder`` with such a name. Raises ``InputError`` where there is no folder."""
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder), hint=MAKE.format(folder=folder))
    return max((path for path in folder.rglob(pattern) if path.is_file()), key=_age, default=None)


def pair(folder: Path) -> tuple[Path, Path | None]:
    """The newest ``train_*`` below ``folder`` and the ``test_*`` beside it, of the same time where there is one.

    Raises ``InputError`` where nothing is there to train on.
    """
    train = newest(folder, "train_*.jsonl")
    if train is None:
        raise _nothing(folder, "train_*.jsonl")
    same = train.with_name(f"test_{train.name.removeprefix('train_')}")
    if same.is_file():
        return train, same
    return train, max(train.parent.glob("test_*.jsonl"), key=_age, default=None)


def phase_files(folder: Path) -> tuple[Path, Path]:
    """The newest files of the knowledge and of the skills phase below ``folder``. Raises ``InputError`` without one."""
    knowledge, skills = (newest(folder, pattern) for pattern in PHASES)
    if knowledge is None or skills is None:
        raise _nothing(folder, PHASES[0 if knowledge is None else 1])
    return knowledge, skills


def data_file(path: Path) -> Path:
    """``path`` itself, or where it is a folder the newest file that holds all of its samples.

    Raises ``InputError`` for a path that is not there, and a folder in which nothing says which file is meant.
    """
    if not path.is_dir():
        if not path.is_file():
            raise InputError(
                "there is no such file of training data", where=str(path), hint=MAKE.format(folder=path.parent)
            )
        return path
    for pattern in ALL_AT_ONCE:
        if found := newest(path, pattern):
            return found
    others = sorted(file for file in path.glob("*.jsonl") if not file.name.startswith("test_"))
    if len(others) == 1:
        return others[0]
    raise _nothing(path, "messages_*.jsonl")


def _age(path: Path) -> tuple[str, int, int, str]:
    stamp = STAMP.search(path.name)
    if stamp:
        return stamp[1], int(stamp[2] or 1), 0, path.name
    return "", 0, path.stat().st_mtime_ns, path.name


def _nothing(folder: Path, pattern: str) -> InputError:
    there = sorted(path.name for path in folder.rglob("*.jsonl"))
    seen = f"it holds {', '.join(there[:5])}{' …' * (len(there) > 5)}; give the file itself" if there else ""
    return InputError(
        f"there is no {pattern} in this folder", where=str(folder), hint=seen or MAKE.format(folder=folder)
    )
