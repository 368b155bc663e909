"""The tables of the model registry, and how a database tells that it is one.

The schema's version stands in ``user_version``, and ``application_id`` tells the file from other SQLite files. A
database may come from a server, so one with views or triggers of its own, or tables that hold anything, is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from ilab.errors import SetupError

SCHEMA_VERSION = 2
TABLES = ("entries", "current", "aliases", "changes")
APPLICATION_ID = 0x696C6162  # "ilab"
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
SCHEMA = f"""
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


def check(connection: sqlite3.Connection, where: str) -> None:
    """Bring the tables up to date. Raises ``SetupError`` for a database that is no registry, or a newer one."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    strict = {row[1] for row in connection.execute("PRAGMA table_list") if row[2] == "table" and row[5]}
    own = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type IN ('view', 'trigger')").fetchone()[0]
    if application != APPLICATION_ID:
        raise unusable("this SQLite file is no model registry", where)
    if own or not strict.issuperset(TABLES if version == SCHEMA_VERSION else TABLES[:2]):
        raise unusable("its tables are not those that ilab makes", where)
    if version == 1:
        connection.executescript(f"BEGIN IMMEDIATE; {_UPGRADE} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version != SCHEMA_VERSION:
        raise SetupError(
            f"the registry has schema version {version}; this ilab reads version {SCHEMA_VERSION}",
            where=where,
            hint="use the ilab that wrote it, or another file: --set where.registry=FILE",
        )


def settle(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, with the settings that every one has."""
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


@contextmanager
def in_our_words(where: str) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise unusable(str(error), where) from error


def unusable(reason: str, where: str) -> SetupError:
    return SetupError(
        f"the model registry cannot be used: {reason}",
        where=where,
        hint="mend its permissions, or give another file: --set where.registry=FILE",
    )
