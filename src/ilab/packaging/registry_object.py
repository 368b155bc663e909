"""The registry's database as an object, which machines that share nothing else change together.

Who changes something downloads the object, makes the change in one transaction on a copy in memory, and puts the copy
in its place on the condition that it is still the object that was downloaded (its ETag; for the first, that there is
none). Whoever was slower begins again with the other's work. So no change is lost, a process that is killed leaves the
object as it was, and nobody waits for a lock. Who reads asks whether the object is still the one that is at hand.

An answer may get lost after the object was written. Then the condition fails although the change is there, which its
lines in ``changes`` show; it is not made twice.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from ilab.core.objects import Objects, patiently
from ilab.core.remote_check import require_conditions
from ilab.errors import SetupError
from ilab.packaging.registry_schema import SCHEMA, check, in_our_words, settle, unusable

R = TypeVar("R")
Row = tuple[Any, ...]
WAIT = 60.0  # seconds in which others may be faster again and again
LONGEST = 2.0  # seconds between two tries
_VERSIONS = slice(18, 20)  # of the file format that a database is written and read in (sqlite.org/fileformat2, 1.3)
_WAL, _PLAIN = b"\x02\x02", b"\x01\x01"


class RegistryObject:
    """The object ``name`` among ``objects``, made by the first change. Everything may raise ``ServiceError``."""

    def __init__(self, objects: Objects, name: str) -> None:
        self.where = f"{objects.address}/{name}"
        self._objects, self._name = objects, name
        self._etag, self._data = "", b""
        self._checked = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A copy of the database as it is now; an empty one where there is none yet."""
        self._download()
        with self._copy() as connection:
            yield connection

    def change(self, call: Callable[[sqlite3.Connection], R]) -> R:
        """Make one transaction of ``call``, which is called again where somebody else was faster.

        Raises ``SetupError`` where somebody always is, and for a server that does not know conditions.
        """
        if not self._checked:
            require_conditions(self._objects)
            self._checked = True
        pause, end = 0.05, time.monotonic() + WAIT
        while True:
            self._download()
            with self._copy() as connection:
                last = _last(connection)
                connection.execute("BEGIN")
                result = call(connection)
                connection.execute("COMMIT")
                lines = _lines(connection, last)
                changed = connection.serialize()
            if changed == self._data or self._upload(changed) or self._landed(lines):
                return result
            if time.monotonic() + pause > end:
                raise SetupError(
                    f"others changed the model registry all the time, for {WAIT:.0f} seconds; nothing was changed",
                    where=self.where,
                    hint="run the same command again",
                )
            time.sleep(random.uniform(0, pause))  # so that several do not keep step
            pause = min(2 * pause, LONGEST)

    def _download(self) -> None:
        found = patiently(lambda: self._objects.get(self._name, unless=self._etag))
        if found is None:
            self._etag, self._data = "", b""
        elif found[1].etag != self._etag:
            # A copied file may say that it has a log beside it (WAL), which an object never has.
            if not found[0]:
                raise unusable("the object is empty", self.where)
            data = bytearray(found[0])
            if data[_VERSIONS] == _WAL:
                data[_VERSIONS] = _PLAIN
            self._etag, self._data = found[1].etag, bytes(data)

    def _upload(self, data: bytes) -> bool:
        etag = self._etag
        new = patiently(lambda: self._objects.write(self._name, data, absent=not etag, match=etag))
        if new:
            self._etag, self._data = new, data
        return bool(new)

    def _landed(self, lines: list[Row]) -> bool:
        """Whether the object has these lines of the history, which follow one another, in their places."""
        if not lines:
            return False
        self._download()
        with self._copy() as connection:
            return _lines(connection, lines[0][0] - 1)[: len(lines)] == lines

    @contextmanager
    def _copy(self) -> Iterator[sqlite3.Connection]:
        with in_our_words(self.where), closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            if self._etag:
                connection.deserialize(self._data)
            else:
                connection.executescript(SCHEMA)
            check(settle(connection), self.where)
            yield connection


def _last(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM changes").fetchone()[0])


def _lines(connection: sqlite3.Connection, after: int) -> list[Row]:
    return connection.execute("SELECT * FROM changes WHERE id > ? ORDER BY id", (after,)).fetchall()
