"""What a bucket lets us do: read, write, list, remove, above all write on a condition; and what a store takes there.

Whatever several machines change together stands on conditions. There are servers that pass over them in silence, so
they are tried, with an object that is removed again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from ilab.core.objects import Objects, patiently
from ilab.core.step import KEY_LENGTH
from ilab.errors import SetupError

PROBE = ".probe-"
RECORD = "record.json"
OTHER, UNFINISHED = "other", "unfinished"
NEVER = f'"{"0" * 32}"'  # an ETag that no object has


@dataclass(frozen=True)
class Conditions:
    """Whether writing only where there is none (``absent``), and only over a known object (``match``), is kept to."""

    absent: bool
    match: bool


@dataclass(frozen=True)
class Taken:
    """How many results of a type there are, and the bytes of all that belongs to them."""

    results: int
    bytes: int


def taken(objects: Objects, seconds: float | None = None) -> dict[str, Taken]:
    """What lies in a store's bucket, by type of result, the largest first; ``unfinished`` and ``other`` (what teachers
    said, runs, the registry) where there is any of it. Raises ``ServiceError`` for a server that stays away."""
    return _summed(patiently(lambda: list(objects.list("")), seconds))


def _summed(listed: Iterable[tuple[str, int]]) -> dict[str, Taken]:
    found: dict[str, Taken] = {}
    for name, size in listed:
        folder, *rest = name.split("/")
        kind = folder if len(rest) > 1 and len(rest[0]) == KEY_LENGTH else OTHER
        if len(rest) > 1 and rest[0].endswith(".partial"):
            kind = UNFINISHED
        before = found.get(kind, Taken(0, 0))
        found[kind] = Taken(before.results + int(kind == folder and rest[1:] == [RECORD]), before.bytes + size)
    return dict(sorted(found.items(), key=lambda one: (-one[1].bytes, one[0])))


def try_conditions(objects: Objects, seconds: float | None = None) -> Conditions:
    """Write, read and remove an object of a name of its own; servers that are away are waited for ``seconds``.

    Raises ``InputError`` for what the keys may not do, ``ServiceError`` for a server that stays away.
    """
    name = f"{PROBE}{uuid.uuid4().hex}"
    patiently(lambda: objects.write(name, b"1"), seconds)
    try:
        absent = not patiently(lambda: objects.write(name, b"2", absent=True), seconds)
        match = not patiently(lambda: objects.write(name, b"3", match=NEVER), seconds)
        patiently(lambda: objects.get(name), seconds)
    finally:
        patiently(lambda: objects.delete([name]), seconds)
    return Conditions(absent, match)


def require_conditions(objects: Objects) -> None:
    """Raises ``SetupError`` where the server passes over conditions, or does not know them."""
    found = try_conditions(objects)
    ignored = [name for name, kept in (("If-None-Match", found.absent), ("If-Match", found.match)) if not kept]
    if ignored:
        raise unsafe(f"ignores {ignored[0]}", objects.address)


def unsafe(what: str, address: str) -> SetupError:
    return SetupError(
        f"this object store {what}, so it cannot be shared safely",
        where=address,
        hint="use a newer version of it, or folders: --store DIR, --set where.registry=FILE",
    )
