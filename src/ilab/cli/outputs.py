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
LOGS = (".log", ".out", ".err", ".txt", "")


def output_file(options: Options, given: str, ours: Callable[[str], bool], *inputs: Path) -> Path:
    """``given`` as a path from the folder where the command works.

    Raises ``InputError`` for a folder, for one of the ``inputs``, and for a file whose text is not ``ours``. What is
    neither file nor folder (``/dev/stdout``) is written to.
    """
    path = options.directory / Path(given).expanduser()
    if path.is_file() and any(one.exists() and path.samefile(one) for one in inputs):
        raise InputError("this is the file that is read", where=given, hint=ANOTHER)
    check_free(path, given, ours)
    return path


def check_free(path: Path, given: str, ours: Callable[[str], bool]) -> None:
    """Raises ``InputError``, about what the user calls ``given``, where ``path`` is a folder or a file not ``ours``."""
    if path.is_dir():
        raise InputError("this is a folder; a file is written", where=given, hint="name a file in it")
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.strip() and not ours(text):
        message = "this file is there already, and is no earlier result of this command"
        raise InputError(message, where=given, hint=f"{ANOTHER}, or remove it")


def log_file(given: str, folder: Path = Path()) -> Path:
    """A file to which lines are appended. Raises ``InputError`` for a folder, and for a file that is no log by its name
    (``.log``, ``.out``, ``.err``, ``.txt`` or none) or holds other than text."""
    path = folder / Path(given).expanduser()
    if path.is_dir():
        raise InputError("this is a folder; lines are appended to a file", where=given, hint="name a file in it")
    if path.is_file():
        with path.open("rb") as handle:
            begin = handle.read(1 << 16)
        if b"\0" in begin or (begin and path.suffix not in LOGS):
            hint = f"{ANOTHER}, one that ends in .log"
            raise InputError("this file is there already, and is no log", where=given, hint=hint)
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


def are_records(*names: str) -> Callable[[str], bool]:
    """Whether each line of a text is a JSON object with these fields."""
    has_them = has_fields(*names)
    return lambda text: all(has_them(line) for line in text.splitlines() if line.strip())


def holds_lines(*wanted: str) -> Callable[[str], bool]:
    """Whether these are among the lines of a text, however indented."""
    return lambda text: {*wanted} <= {line.strip() for line in text.splitlines()}


def check_pair(main: Path, given: str, beside: Path, ours: Callable[[str], bool]) -> None:
    """That ``main``, a file that anybody may have, is written beside another whose text tells whose the two are.

    Raises ``InputError`` where either is there and the latter does not say that they are ``ours``.
    """
    check_free(beside, str(beside), ours)
    check_free(main, given, lambda text: beside.is_file())
