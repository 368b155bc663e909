"""The model registry: which version of which model is which package, in one SQLite file.

``entries`` keeps everything that was ever registered; ``current`` points from a name and version to the entry that
holds now. Building 0.1.0 again while it is developed moves the pointer; what it meant before stays in the history.

An entry has a *stage*: candidate, staging, production (one version of a model at a time) or archived. *Aliases*
(``stable``, ``nightly`` …) point to versions; ``latest`` always means the highest that was not recalled. A version that
was *recalled* can be neither promoted nor aliased, and whoever fetches it is warned. ``changes`` says who changed what
and when; it is for people and for rolling back, and no part of any identity.

Safe under several processes: the file is made complete beside its place and linked there, so nobody sees half a
schema; writing is one immediate transaction; readers and a writer do not wait for each other (WAL). The schema's
version stands in ``user_version``, and ``application_id`` tells the file from other SQLite files.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ilab.errors import InputError, SetupError

SCHEMA_VERSION = 2
APPLICATION_ID = 0x696C6162  # "ilab"
WAIT = 30.0  # seconds to wait for another process's transaction
_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")  # as OCI repositories
_VERSION = re.compile(  # semver.org, 2.0.0
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)
_SECOND = """
CREATE TABLE aliases (
    name TEXT NOT NULL,
    alias TEXT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (name, alias)
) STRICT;
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL,
    person TEXT NOT NULL,
    time TEXT NOT NULL
) STRICT;
"""
_UPGRADE = f"""
ALTER TABLE entries ADD COLUMN remote TEXT NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN recalled TEXT NOT NULL DEFAULT '';
UPDATE entries SET stage = 'candidate';
{_SECOND}
"""  # noqa: S608 - a constant
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    uri TEXT NOT NULL,
    created TEXT NOT NULL,
    metrics TEXT NOT NULL,
    lineage TEXT NOT NULL,
    stage TEXT NOT NULL,
    remote TEXT NOT NULL DEFAULT '',
    recalled TEXT NOT NULL DEFAULT '',
    UNIQUE (name, version, digest)
) STRICT;
CREATE TABLE current (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    entry INTEGER NOT NULL REFERENCES entries (id),
    PRIMARY KEY (name, version)
) STRICT;
{_SECOND}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
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


class Registry:
    """Opens (and makes) the registry in ``path``. Raises ``SetupError`` where that cannot be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._create()
        with self._open() as connection:
            self._check(connection)

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
        with self.writing() as connection:
            known = self._select(connection, "WHERE (name, version, digest) = (?, ?, ?)", identity)
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
            return self._select(connection, "WHERE (name, version, digest) = (?, ?, ?)", identity)[0]

    def get(self, name: str, version: str | None = None) -> Entry | None:
        """The entry of a version, or of the highest version (semantic order); None where there is none."""
        entries = [entry for entry in self.list() if entry.name == name and version in (None, entry.version)]
        return max(entries, key=lambda entry: semantic(entry.version), default=None)

    def list(self) -> tuple[Entry, ...]:
        """What every version of every model means now, by name, then by semantic version."""
        with self._open() as connection:
            entries = self._select(connection, "WHERE id IN (SELECT entry FROM current)", ())
        return tuple(sorted(entries, key=lambda entry: (entry.name, semantic(entry.version), entry.version)))

    def history(self, name: str, version: str) -> tuple[Entry, ...]:
        """Every package that was ever registered under this name and version, oldest first."""
        with self._open() as connection:
            return self._select(connection, "WHERE (name, version) = (?, ?) ORDER BY id", (name, version))

    def recalled(self, digest: str) -> Entry | None:
        """The entry of a package that was recalled, by its digest; None for any other."""
        with self._open() as connection:
            found = self._select(connection, "WHERE digest = ? AND recalled != ''", (digest,))
        return found[0] if found else None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")  # after an error the connection closes, which rolls back

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._open() as connection:
            yield connection

    def _select(self, connection: sqlite3.Connection, where: str, values: tuple[str, ...]) -> tuple[Entry, ...]:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM entries {where}", values)  # noqa: S608 - constants
        return tuple(_entry(row) for row in rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # "rw": a registry that was removed meanwhile must not come back empty and without its schema.
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None)) as connection:
                connection.execute("PRAGMA foreign_keys = ON")
                yield connection
        except sqlite3.Error as error:
            raise self._error(str(error)) from error

    def _create(self) -> None:
        """Make the file where there is none yet."""
        temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.tmp")
        try:
            if self.path.exists():
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(temporary)) as connection:
                connection.executescript(_SCHEMA)
            with suppress(FileExistsError):  # another process was first; its file is as good
                os.link(temporary, self.path)
            temporary.unlink()
        except (OSError, sqlite3.Error) as error:
            raise self._error(getattr(error, "strerror", None) or str(error)) from error

    def _check(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise self._error("this SQLite file is no model registry")
        if version == 1:
            connection.executescript(f"BEGIN IMMEDIATE; {_UPGRADE} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise SetupError(
                f"the registry has schema version {version}; this ilab reads version {SCHEMA_VERSION}",
                where=str(self.path),
                hint="use the ilab that wrote it, or another file: --set where.registry=FILE",
            )

    def _error(self, reason: str) -> SetupError:
        return SetupError(
            f"the model registry cannot be used: {reason}",
            where=str(self.path),
            hint="mend its permissions, or give another file: --set where.registry=FILE",
        )


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
    plain = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Entry(**{**plain, "metrics": json.loads(plain["metrics"]), "lineage": json.loads(plain["lineage"])})


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
