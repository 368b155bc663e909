"""The memo: item-level results that cost money or minutes, by content key.

    <root>/<name>/<writer>.jsonl     append-only segments, one per writer, a {"k", "v"} object a line
    <root>/<name>/index.sqlite       where each key stands: local, rebuilt from the segments when it is missing

A segment line counts once it ends in a newline: a torn last line (kill -9, full disk) is as if it had never been
written, and a resuming writer starts a new segment, never appending behind a torn line. Writes are flushed to the
disk in groups: ``put`` returns after the write, ``flush`` (called within a second, and at the end) makes it durable
and puts the group into the index. Until then only this process, and whoever opens the memo anew, finds it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
import time
import uuid
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

GROUP = 1.0  # seconds after which a write is made durable
SEGMENT = 8 << 20  # bytes after which a new segment is begun: a bucket takes whole objects only
BLOCK = 1 << 16  # bytes; with less a disk counts as full
INDEX = "index.sqlite"
LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
TABLES = (
    "entry (key TEXT PRIMARY KEY, segment TEXT, offset INT, length INT)",
    "segment (name TEXT PRIMARY KEY, read INT)",
)


class Memo:
    """A crash-safe map from content keys to JSON values. ``hits`` and ``writes`` count this process's use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hits = 0
        self.writes = 0
        self._lock = threading.RLock()
        self._segment: FileIO | None = None
        self._name, self._offset = "", 0  # of the segment that is written, and where its end is
        self._fresh: dict[str, tuple[str, int, int]] = {}  # written, not yet in the index
        self._synced = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self._index = self._open()
        self._scan()

    def __contains__(self, key: str) -> bool:
        """Whether something is stored under ``key``; it is not read."""
        with self._lock:
            return key in self._fresh or bool(self._sql("SELECT 1 FROM entry WHERE key = ?", key))

    def get(self, key: str) -> Any | None:
        """The value stored under ``key``, or None."""
        with self._lock:
            fresh = self._fresh.get(key)
            found = [fresh] if fresh else self._sql("SELECT segment, offset, length FROM entry WHERE key = ?", key)
            if not found:
                return None
            segment, offset, length = found[0]
            try:
                with (self.folder / segment).open("rb") as handle:
                    handle.seek(offset)
                    entry = json.loads(handle.read(length))
            except (OSError, ValueError):  # the segment was removed or changed by hand
                entry = None
            if not isinstance(entry, dict) or entry.get("k") != key:
                self._fresh.pop(key, None)
                self._sql("DELETE FROM entry WHERE key = ?", key)
                return None
            self.hits += 1
            return entry["v"]

    def put(self, key: str, value: Any) -> None:
        """Append ``value``. Raises OSError when the disk is full; nothing half-written is ever read back."""
        line = LINE.encode({"k": key, "v": value}).encode("utf-8") + b"\n"
        with self._lock:
            if self._segment is None:
                self._name, self._offset = f"{uuid.uuid4().hex}.jsonl", 0
                self._segment = FileIO(self.folder / self._name, "a")
            try:
                written = self._segment.write(line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
            except OSError:
                self._leave_segment()  # what follows must not stand behind a torn line
                raise
            self._fresh[key] = (self._name, self._offset, len(line))
            self._offset += len(line)
            self.writes += 1
            if time.monotonic() - self._synced > GROUP:
                self.flush()
            if self._offset > SEGMENT:
                self.flush()
                self._leave_segment()

    def flush(self) -> None:
        """Make everything written so far durable, and known to other processes."""
        with self._lock:
            if self._segment is not None and self._fresh:
                os.fsync(self._segment.fileno())
                self._index_fresh()
            self._synced = time.monotonic()

    def close(self) -> None:
        with self._lock:
            self.flush()
            if self._segment is not None:
                self._leave_segment()
            self._index.close()

    def _leave_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        self._index_fresh()

    def _index_fresh(self) -> None:
        """Put what was written since the last time into the index, in one transaction."""
        if not self._fresh:
            return
        entries = [(key, *place) for key, place in self._fresh.items()]
        self._sql("BEGIN IMMEDIATE")
        try:
            self._index.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", entries)
            self._index.execute("INSERT OR REPLACE INTO segment VALUES (?, ?)", (self._name, self._offset))
            self._index.execute("COMMIT")
        except sqlite3.Error as error:
            if not _damaged(error):
                with suppress(sqlite3.Error):
                    self._index.execute("ROLLBACK")
                raise self._explain(error) from error
            self._renew()  # from the segments, where all of them stand
        self._fresh.clear()

    def _open(self) -> sqlite3.Connection:
        """The index, made new where it is missing or damaged. Raises OSError where the disk takes no more."""
        for last in (False, True):
            connection = sqlite3.connect(self.folder / INDEX, timeout=30, check_same_thread=False, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=OFF")  # the index can be rebuilt; the segments are the truth
                for table in TABLES:
                    connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
                return connection
            except sqlite3.Error as error:
                connection.close()
                if last or not _damaged(error):
                    raise self._explain(error) from error
                self._remove_index()
        raise AssertionError("unreachable")

    def _sql(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement on the index; a damaged one is built again first."""
        for last in (False, True):
            try:
                return self._index.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                if last or not _damaged(error):
                    raise self._explain(error) from error
                self._renew()
        raise AssertionError("unreachable")

    def _renew(self) -> None:
        self._index.close()
        self._remove_index()
        self._index = self._open()
        self._scan()

    def _remove_index(self) -> None:
        for leftover in self.folder.glob(f"{INDEX}*"):
            leftover.unlink(missing_ok=True)

    def _explain(self, error: sqlite3.Error) -> OSError:
        """SQLite's error as the one the system would have given."""
        # Without room for its shared memory SQLite speaks of an I/O error, not of a full disk.
        full = _code(error) == sqlite3.SQLITE_FULL or shutil.disk_usage(self.folder).free < BLOCK
        number = errno.ENOSPC if full else errno.EBUSY if _code(error) == sqlite3.SQLITE_BUSY else errno.EIO
        return OSError(number, f"{os.strerror(number)} ({error})", str(self.folder / INDEX))

    def _scan(self) -> None:
        """Index what other writers, or an earlier run that was killed, appended since the index was last written."""
        known = dict(self._sql("SELECT name, read FROM segment"))
        for path in sorted(self.folder.glob("*.jsonl")):
            start = known.get(path.name, 0)
            if path.stat().st_size <= start:
                continue
            with path.open("rb") as handle:
                handle.seek(start)
                offset = start
                for line in handle:
                    if not line.endswith(b"\n"):
                        break
                    self._index_line(path.name, offset, line)
                    offset += len(line)
            self._sql("INSERT OR REPLACE INTO segment VALUES (?, ?)", path.name, offset)

    def _index_line(self, segment: str, offset: int, line: bytes) -> None:
        try:
            key = json.loads(line)["k"]
        except (ValueError, KeyError, TypeError):
            return
        self._point(key, segment, offset, len(line))

    def _point(self, key: str, segment: str, offset: int, length: int) -> None:
        self._sql("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", key, segment, offset, length)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _damaged(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
