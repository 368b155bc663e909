"""What ``fix`` and ``upgrade`` share: which files they look at, what a text says to YAML, and how a file is replaced.

Both work on the text of a file, never on a tree that is written out again, so comments, order, quoting and line
breaks stay as the author typed them. ``signs`` gives the sequence of YAML events with their character spans; two
texts that give the same sequence say the same, whatever they look like.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ilab.core.files import write_text
from ilab.errors import InputError
from ilab.taxonomy.layout import EVAL, QNA, ROOTS
from ilab.taxonomy.yamlnodes import compose, read_bytes

NAMES = {QNA: QNA, "qna.yml": QNA, EVAL: EVAL, "eval.yml": EVAL}  # what people write, in lower case -> what is read
_COMMENT = re.compile(r"(?:^|(?<=[\s,\[\]{}]))(#[^\n]*)")
BLANK_LINE = re.compile(r"(?m)^[ \t]++$")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Change:
    """What was changed, and the 1-based line of the old file at which it (first) stands."""

    line: int
    what: str


@dataclass(frozen=True)
class Source:
    """A file that may be rewritten. ``name`` is its path below ``root``; ``wanted`` the name it should carry."""

    root: Path
    path: Path
    wanted: str

    @property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    def read(self) -> bytes:
        """The file's bytes. Raises ``InputError`` where it is too large, no file, or a link out of the taxonomy."""
        if not self.path.resolve().is_relative_to(self.root.resolve()):
            hint = "put the file itself there"
            raise InputError("is a link that leaves the taxonomy", where=self.name, hint=hint)
        return read_bytes(self.path, self.name)


class Sign(NamedTuple):
    """One YAML event: its class, a scalar's value and style ("" for plain), and its span in the text."""

    event: str
    value: str
    style: str
    start: int
    end: int


def find_sources(path: Path) -> list[Source]:
    """The ``qna.yaml`` and ``eval.yaml`` at or below ``path``, also under other spellings, sorted.

    Links to folders are not followed, nor is a link to a file that leaves the taxonomy. Raises ``InputError`` where
    there is no such file.
    """
    path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    folder = path if path.is_dir() else path.parent
    root = next((parent.parent for parent in (folder, *folder.parents) if parent.name in ROOTS), folder)
    if not path.is_dir():
        return [_single(path, root)]
    found = sorted(_below(path, root), key=lambda source: source.path)
    if not found:
        hint = f"create a leaf, for example {path}/knowledge/science/my_topic/{QNA}, or give another folder"
        raise InputError(f"there is no {QNA} below this folder", where=str(path), hint=hint)
    return found


def _single(path: Path, root: Path) -> Source:
    wanted = NAMES.get(path.name.lower())
    if not path.exists():
        hint = "give the taxonomy's folder, or one qna.yaml"
        raise InputError("there is no such file or folder", where=str(path), hint=hint)
    if wanted is None:
        raise InputError(f"a taxonomy file is named {QNA} or {EVAL}", where=str(path), hint=f"mv {path.name} {QNA}")
    return Source(root, path, wanted)


def _below(path: Path, root: Path) -> Iterator[Source]:
    starts = [path / name for name in ROOTS if (path / name).is_dir() and not (path / name).is_symlink()] or [path]
    for start in starts:
        for here, below, names in os.walk(start, onerror=_unreadable):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in names:
                if name.lower() in NAMES:
                    yield Source(root, Path(here) / name, NAMES[name.lower()])


def _unreadable(error: OSError) -> None:
    hint = "check the folder's permissions"
    raise InputError(f"cannot be read: {error.strerror}", where=str(error.filename), hint=hint)


def fault(text: str, file: str) -> InputError | None:
    """Why the loader cannot read ``text``, or ``None`` where it can."""
    try:
        compose(text, file, [])
    except InputError as error:
        return error
    return None


def signs(text: str) -> list[Sign]:
    """The events of a text that :func:`fault` has passed; spans are offsets into ``text``.

    Lines of nothing but blanks count as empty, as they do for the loader: ``text`` must not hold any for its spans
    to be right.
    """
    found = []
    event: Any
    for event in yaml.parse(BLANK_LINE.sub("", text), Loader=_LOADER):
        name = type(event).__name__.removesuffix("Event")
        marks = [getattr(event, mark, None) for mark in ("anchor", "tag")]
        scalar = isinstance(event, yaml.ScalarEvent)
        value, style = (event.value, event.style or "") if scalar else ("", "")
        found.append(
            Sign(" ".join(filter(None, [name, *marks])), value, style, event.start_mark.index, event.end_mark.index)
        )
    return found


@dataclass(frozen=True)
class Part:
    """A node with its place in the text: ``keys`` and ``parts`` of a mapping, ``parts`` of a list, none of a scalar.

    ``end`` is where its last scalar, alias or bracket ends (of a block text: the line after it).
    """

    start: int
    end: int
    keys: tuple[Part, ...] = ()
    parts: tuple[Part, ...] = ()
    value: str = ""

    def entry(self, key: str) -> tuple[Part, Part] | None:
        """Key and value of the mapping's first entry ``key``."""
        return next((both for both in zip(self.keys, self.parts, strict=True) if both[0].value == key), None)


def outline(text: str) -> Part | None:
    """The root node of a text that :func:`fault` has passed, ``None`` where there is none. Nesting is limited there."""
    events = iter(signs(text))
    for sign in events:
        kind = sign.event.partition(" ")[0]
        if kind not in ("StreamStart", "DocumentStart"):
            return _part(sign, events) if kind not in ("DocumentEnd", "StreamEnd") else None
    return None


def _part(sign: Sign, events: Iterator[Sign]) -> Part:
    kind = sign.event.partition(" ")[0]
    if kind not in ("MappingStart", "SequenceStart"):
        return Part(sign.start, sign.end, value=sign.value)
    inner: list[Part] = []
    for following in events:
        if following.event in ("MappingEnd", "SequenceEnd"):
            last = max([sign.end, *(part.end for part in inner)])
            flow = following.end > following.start  # the end of a block takes no room
            end = following.end if flow else last
            if kind == "SequenceStart":
                return Part(sign.start, end, parts=tuple(inner))
            return Part(sign.start, end, tuple(inner[::2]), tuple(inner[1::2]))
        inner.append(_part(following, events))
    return Part(sign.start, sign.end)


def dashes(text: str) -> list[int]:
    """The offsets of the dashes of all lists in block style of a text that :func:`fault` has passed."""
    tokens = yaml.scan(text, Loader=_LOADER)
    return [token.start_mark.index for token in tokens if isinstance(token, yaml.BlockEntryToken)]


def comments(text: str) -> list[str]:
    """The comments of a text that :func:`fault` has passed, sorted; those behind a `|` or `>` are not listed."""
    found: list[str] = []
    done = 0
    for sign in [*signs(text), Sign("End", "", "", len(text), len(text))]:
        found += (match[1].rstrip() for match in _COMMENT.finditer(text, done, max(done, sign.start)))
        done = max(done, sign.end) if sign.event.startswith("Scalar") else done
    return sorted(found)


def place_of(error: InputError) -> tuple[int, int]:
    """Line and column at which ``error`` says the fault stands; (0, 0) where it names none."""
    match = re.search(r":(\d+)(?::(\d+))?$", error.where)
    return (int(match[1]), int(match[2] or 1)) if match else (0, 0)


def replace(source: Source, text: str) -> None:
    """Write ``text`` in place of the file, all or nothing, with its mode; links inside the taxonomy stay links.

    Raises ``InputError`` for a file that may not be written; a full disk stays an ``OSError``.
    """
    target = source.path.resolve()
    try:
        mode = stat.S_IMODE(target.stat().st_mode)
        if not os.access(target, os.W_OK):  # a new file in its place would get past the missing permission
            raise InputError("may not be written", where=source.name, hint=f"chmod u+w {source.name}")
        write_text(target, text)
        target.chmod(mode)
    except PermissionError as error:
        hint = "check the permissions of its folder"
        raise InputError(f"cannot be written: {error.strerror}", where=source.name, hint=hint) from error


def unified(before: str, after: str, name: str, renamed: str = "") -> str:
    """The unified diff of two texts of the file ``name``, "" where they are equal."""
    lines = difflib.unified_diff(
        before.split("\n"), after.split("\n"), f"a/{name}", f"b/{renamed or name}", lineterm=""
    )
    return "\n".join(lines)
