"""The files below a folder, and glob patterns over them.

Patterns are matched against the list of files, part by part, in time proportional to both: no pattern can make
the matching slow or leave the folder. ``**`` stands for any number of folders; names that begin with a dot need a
pattern that does so too. A pattern that fits folders alone stands for the documents in them.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ilab.errors import InputError

MAX_FILES = 100_000
NO_DOCUMENT = "attribution.txt"  # stands beside a qna.yaml and says who wrote what


def list_files(folder: Path) -> tuple[str, ...]:
    """The names of all files below ``folder``, relative, with ``/``, sorted. Links to folders are not followed."""
    names: list[str] = []
    for here, below, files in os.walk(folder):
        if ".git" in below:
            below.remove(".git")
        prefix = Path(here).relative_to(folder)
        names += [(prefix / name).as_posix() for name in files]
        if len(names) > MAX_FILES:
            raise InputError(
                f"there are more than {MAX_FILES} files", where=str(folder), hint="point to a smaller folder"
            )
    return tuple(sorted(names))


def meant(pattern: str, names: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """The files a person means by ``pattern``: those it fits, else all documents below the folders it fits.

    Documents are files with one of ``suffixes``, but for an ``attribution.txt`` and names that begin with a dot.
    """
    return matching(pattern, names) or [
        name
        for name in matching(f"{pattern}/**/*", names)
        if PurePosixPath(name).suffix.lower() in suffixes and PurePosixPath(name).name != NO_DOCUMENT
    ]


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that fit the glob ``pattern``."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    wanted = [part for index, part in enumerate(parts) if part != "**" or parts[index - 1 : index] != ["**"]]
    if wanted[-1:] == ["**"]:
        wanted.append("*")
    return [name for name in names if _fits(wanted, name.split("/"))]


def _fits(wanted: list[str], parts: list[str]) -> bool:
    """Whether the name's parts fit the pattern's: the set of pattern positions reached so far, part by part."""
    reached = {0}
    for part in parts:
        reached |= {position + 1 for position in reached if wanted[position : position + 1] == ["**"]}
        here = [position for position in reached if position < len(wanted)]
        stays = {position for position in here if wanted[position] == "**" and not part.startswith(".")}
        reached = stays | {position + 1 for position in here if _part_fits(wanted[position], part)}
    return len(wanted) in reached


def _part_fits(wanted: str, part: str) -> bool:
    if wanted == "**" or (part.startswith(".") and not wanted.startswith(".")):
        return False
    return fnmatch.fnmatchcase(part, wanted)
