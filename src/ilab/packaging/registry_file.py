"""The registry's database as a file on this machine, or on a file system that machines share.

Safe under several processes: the file is made complete beside its place and linked there, so nobody sees half a
schema; writing is one immediate transaction; readers and a writer do not wait for each other (WAL).
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ilab.packaging.registry_schema import SCHEMA, check, in_our_words, settle, unusable

R = TypeVar("R")
WAIT = 30.0  # seconds to wait for another process's transaction


class RegistryFile:
    """Opens, and makes where there is none, the database in ``path``. Raises ``SetupError`` where that cannot be."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path
        self._create()
        with self.reading() as connection:
            check(connection, self.where)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        # "rw": a registry that was removed meanwhile must not come back empty and without its schema.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        with (
            in_our_words(self.where),
            closing(sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None)) as connection,
        ):
            yield settle(connection)

    def change(self, call: Callable[[sqlite3.Connection], R]) -> R:
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            result = call(connection)
            connection.execute("COMMIT")  # after an error the connection closes, which rolls back
            return result

    def _create(self) -> None:
        """Make the file where there is none yet."""
        temporary = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}.tmp")
        try:
            if self._path.exists():
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with in_our_words(self.where), closing(sqlite3.connect(temporary)) as connection:
                connection.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA}")
            with suppress(FileExistsError):  # another process was first; its file is as good
                os.link(temporary, self._path)
            temporary.unlink()
        except OSError as error:
            raise unusable(error.strerror or str(error), self.where) from error
