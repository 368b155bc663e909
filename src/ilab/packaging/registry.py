"""The model registry: which version of which model is which package, in one SQLite database.

``entries`` keeps everything that was ever registered; ``current`` points from a name and version to the entry that
holds now. Building 0.1.0 again while it is developed moves the pointer; what it meant before stays in the history.

An entry has a *stage*: candidate, staging, production (one version of a model at a time) or archived. *Aliases*
(``stable``, ``nightly`` …) point to versions; ``latest`` always means the highest that was not recalled. A version that
was *recalled* can be neither promoted nor aliased, and whoever fetches it is warned. ``changes`` says who changed what
and when; it is for people and for rolling back, and no part of any identity.

The database is a file (registry_file.py) or an object (registry_object.py). A change is a function of the tables as
they are, all of it or nothing; it may be called again where somebody else changed them in the meantime.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from ilab.errors import InputError, SetupError
from ilab.packaging.registry_file import RegistryFile

if TYPE_CHECKING:
    from ilab.config import Where

R = TypeVar("R")
S3 = "s3://"

_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")  # as OCI repositories
_VERSION = re.compile(  # semver.org, 2.0.0
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")  # C0 and C1, with which terminals are steered
_COLUMNS = "name, version, digest, uri, created, metrics, lineage, stage, remote, recalled"


class Entry(BaseModel):
    """One version of one model. ``digest`` and ``uri`` are the package's, ``remote`` is where others find it; the
    registry sets ``created`` (UTC). ``recalled`` says why it was, and is empty for one that was not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    digest: str
    uri: str
    created: str = ""
    metrics: dict[str, Any] = {}
    lineage: dict[str, Any] = {}
    stage: str = "candidate"
    remote: str = ""
    recalled: str = ""


class Database(Protocol):
    """Where the tables lie. Both raise ``SetupError`` for a place that is no registry or cannot be used."""

    @property
    def where(self) -> str:
        """For people."""
        ...

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """The tables as they are."""
        ...

    def change(self, call: Callable[[sqlite3.Connection], R]) -> R:
        """One transaction: all of what ``call`` does, or nothing."""
        ...


class Registry:
    """The registry in a database; a path is that of a file, which is made where there is none."""

    def __init__(self, database: Path | Database) -> None:
        self.database: Database = RegistryFile(database) if isinstance(database, Path) else database

    @property
    def where(self) -> str:
        return self.database.where

    def register(self, entry: Entry) -> Entry:
        """Make ``entry`` what its name and version mean now; returns it as it is kept.

        The same digest again changes nothing but ``uri`` and ``remote`` (a package may move). Another digest under the
        same version keeps the earlier entry in the history. Raises ``InputError`` for a bad name or version.
        """
        if not _NAME.fullmatch(entry.name):
            raise InputError(
                f"{entry.name!r} is no name for a model", hint="use small letters, digits, '-', '.', '_' and '/'"
            )
        semantic(entry.version)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        identity = (entry.name, entry.version, entry.digest)
        values = (entry.uri, created, _json(entry.metrics), _json(entry.lineage), entry.stage, entry.remote, "")

        def enter(connection: sqlite3.Connection) -> Entry:
            known = _select(connection, "WHERE (name, version, digest) = (?, ?, ?)", identity)
            connection.execute(
                f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - a constant
                " ON CONFLICT (name, version, digest) DO UPDATE SET uri = excluded.uri, remote = excluded.remote",
                (*identity, *values),
            )
            connection.execute(
                "INSERT INTO current SELECT name, version, id FROM entries"
                " WHERE (name, version, digest) = (?, ?, ?)"
                " ON CONFLICT (name, version) DO UPDATE SET entry = excluded.entry",
                identity,
            )
            if not known:
                note_change(connection, entry, "registered", "")
            return _select(connection, "WHERE (name, version, digest) = (?, ?, ?)", identity)[0]

        return self.database.change(enter)

    def get(self, name: str, version: str | None = None) -> Entry | None:
        """The entry of a version, or of the highest version (semantic order); None where there is none."""
        entries = [entry for entry in self.list() if entry.name == name and version in (None, entry.version)]
        return max(entries, key=lambda entry: semantic(entry.version), default=None)

    def list(self) -> tuple[Entry, ...]:
        """What every version of every model means now, by name, then by semantic version."""
        with self.database.reading() as connection:
            return entries_in(connection)

    def history(self, name: str, version: str) -> tuple[Entry, ...]:
        """Every package that was ever registered under this name and version, oldest first."""
        with self.database.reading() as connection:
            return _select(connection, "WHERE (name, version) = (?, ?) ORDER BY id", (name, version))

    def recalled(self, digest: str) -> Entry | None:
        """The entry of a package that was recalled, by its digest; None for any other."""
        with self.database.reading() as connection:
            found = _select(connection, "WHERE digest = ? AND recalled != ''", (digest,))
        return found[0] if found else None


def open_registry(address: str, where: Where) -> Registry:
    """The registry at a path or at ``s3://BUCKET/PREFIX/NAME``; ``where`` says how object stores are reached.

    A file is made where there is none; an object by the first change. Raises ``InputError`` for another address,
    ``SetupError`` for what is no registry.
    """
    if "://" not in address:
        return Registry(Path(address))
    from ilab.packaging.registry_object import RegistryObject
    from ilab.transfer.address import parse
    from ilab.transfer.s3_objects import S3Objects

    folder, _, name = address.removeprefix(S3).rpartition("/")
    if not address.startswith(S3) or not (folder and name):
        hint = f"give a file, or {S3}BUCKET/PREFIX/registry.sqlite"
        raise InputError(f"{address} is no place for a registry", where="where.registry", hint=hint)
    return Registry(RegistryObject(S3Objects(parse(f"{S3}{folder}"), where.s3_endpoint or "", where.web), name))


def is_there(address: str) -> bool:
    """Whether reading makes nothing: a file that is not there would be made. One in a bucket reads as empty."""
    return "://" in address or Path(address).is_file()


def entries_in(connection: sqlite3.Connection) -> tuple[Entry, ...]:
    """See :meth:`Registry.list`."""
    entries = _select(connection, "WHERE id IN (SELECT entry FROM current)", ())
    return tuple(sorted(entries, key=lambda entry: (entry.name, semantic(entry.version), entry.version)))


def _select(connection: sqlite3.Connection, where: str, values: tuple[str, ...]) -> tuple[Entry, ...]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM entries {where}", values)  # noqa: S608 - constants
    return tuple(_entry(row) for row in rows)


def semantic(version: str) -> tuple[Any, ...]:
    """Sort key of a semantic version (semver.org 2.0.0, section 11). Raises ``InputError`` for anything else."""
    match = _VERSION.fullmatch(version)
    if not match:
        raise InputError(f"{version!r} is no semantic version", hint="use three numbers, like 0.1.0")
    major, minor, patch, before = match.groups()
    # A pre-release sorts below its release; numbers below words.
    parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in before.split(".")) if before else ()
    return int(major), int(minor), int(patch), before is None, parts


def note_change(connection: sqlite3.Connection, entry: Entry, what: str, detail: str) -> None:
    """Write into the history who did ``what`` to ``entry``, and when."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute(
        "INSERT INTO changes (name, version, digest, what, detail, person, time) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (entry.name, entry.version, entry.digest, what, detail, _person(), now),
    )


def _person() -> str:
    """Who changes something, as the system calls them; a container may have no name for its user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _entry(row: tuple[Any, ...]) -> Entry:
    texts = (str(text).translate(_CONTROLS) for text in row)  # others wrote them, and terminals show them
    plain = dict(zip(_COLUMNS.split(", "), texts, strict=True))
    try:
        return Entry(**{**plain, "metrics": json.loads(plain["metrics"]), "lineage": json.loads(plain["lineage"])})
    except (ValueError, TypeError, RecursionError) as error:  # pydantic's too: it may come from a server
        raise SetupError(
            "an entry of the model registry cannot be read",
            where=f"{plain['name']} {plain['version']}",
            hint="it was changed by hand; use a copy of the registry from before: --set where.registry=FILE",
        ) from error


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
