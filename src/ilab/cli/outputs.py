"""The file that a command is told to write: one that is there is written over where it is an earlier result, else kept.

A command that is typed again has to work; but a file of somebody's own is not lost to a name that was mistyped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

from ilab.cli.app import Options
from ilab.errors import InputError

ANOTHER = "give another name"


def output_file(options: Options, given: str, ours: Callable[[str], bool], *inputs: Path) -> Path:
    """``given`` as a path from the folder where the command works.

    Raises ``InputError`` for a folder, for one of the ``inputs``, and for a file whose text is not ``ours``. What is
    neither file nor folder (``/dev/stdout``) is written to.
    """
    path = options.directory / Path(given).expanduser()
    if path.is_dir():
        raise InputError("this is a folder; a file is written", where=given, hint="name a file in it")
    if not path.is_file():
        return path
    if any(one.exists() and path.samefile(one) for one in inputs):
        raise InputError("this is the file that is read", where=given, hint=ANOTHER)
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.strip() and not ours(text):
        message = "this file is there already, and is no earlier result of this command"
        raise InputError(message, where=given, hint=f"{ANOTHER}, or remove it")
    return path


def has_fields(*names: str) -> Callable[[str], bool]:
    """Whether a text is a JSON object with these fields."""

    def check(text: str) -> bool:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and found.keys() >= {*names}

    return check


def are_variables(names: Collection[str]) -> Callable[[str], bool]:
    """Whether a text sets these variables and no others, such as keys."""

    def check(text: str) -> bool:
        lines = [line.strip() for line in text.splitlines()]
        return all(line.partition("=")[0] in names for line in lines if line and not line.startswith("#"))

    return check


def are_rows(text: str) -> bool:
    """Whether each line is a JSON object with an ``id``."""
    return all(has_fields("id")(line) for line in text.splitlines() if line.strip())
