"""The document store: one SQLite file with collections of documents, their passages, full text and vectors.

    collection (name, embedder) ──▶ document (origin, source, digest) ──▶ passage (heading, page, span, text, vector)
                                                                              └──▶ words_N  (FTS5: BM25)

A document is written in one transaction: a process that is killed leaves each document as it was or as it is to be,
and the same command goes on with the others. Where a passage stands says its document's source, its heading path, page
and span; ``digest`` is that of the document's whole text. A collection belongs to one embedder, for vectors of
two cannot be compared. Each has a full-text table of its own, since BM25 weighs a word by how many passages *of the
collection* have it. Vectors are little-endian float32, of length 1.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ilab.data import Chunk, Document
from ilab.errors import InputError, SetupError
from ilab.rag.vectors import Floats

FORMAT = 1  # of the file
APPLICATION = 0x696C7267  # "ilrg", in the file's header: what else is SQLite is not ours
WAIT = 60.0  # seconds for another process's document to be written
SCHEMA = """
CREATE TABLE collection (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, embedder TEXT NOT NULL, made_with TEXT NOT NULL);
CREATE TABLE document (
    id INTEGER PRIMARY KEY, collection INTEGER NOT NULL REFERENCES collection (id), origin TEXT NOT NULL,
    source TEXT NOT NULL, title TEXT NOT NULL, digest TEXT NOT NULL, cut TEXT NOT NULL,
    UNIQUE (collection, origin, source));
CREATE TABLE passage (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES document (id), chunk TEXT NOT NULL,
    heading TEXT NOT NULL, page INTEGER, first INTEGER NOT NULL, last INTEGER NOT NULL, text TEXT NOT NULL,
    headed TEXT NOT NULL, embedded TEXT NOT NULL, vector BLOB NOT NULL);
CREATE INDEX passages ON passage (document);
CREATE INDEX embedded ON passage (embedded);
"""


@dataclass(frozen=True)
class Collection:
    """``embedder`` is the identity of what made the vectors, ``made_with`` the setting that chooses it again."""

    number: int
    name: str
    embedder: str
    made_with: str

    @property
    def table(self) -> str:
        """Its full-text table. The name is made of a number, so it can stand in a statement as it is."""
        return f"words_{int(self.number)}"


@dataclass(frozen=True)
class Entry:
    """A document of a collection. ``origin`` is where it was ingested from, ``passages`` how many it has."""

    origin: str
    source: str
    title: str
    digest: str
    passages: int


@dataclass(frozen=True)
class Passage:
    """A passage as it was ingested. ``document`` is the digest of its document's text, ``span`` characters in it."""

    id: int
    chunk: str
    origin: str
    source: str
    title: str
    document: str
    heading: tuple[str, ...]
    page: int | None
    span: tuple[int, int]
    text: str


@dataclass(frozen=True)
class Cut:
    """A document cut into ``chunks``; ``how`` tells one way of cutting from another. ``texts`` are what is embedded:
    a passage under its title and headings; ``vectors`` [chunks, dimensions], of length 1."""

    document: Document
    chunks: Sequence[Chunk]
    how: str

    @property
    def texts(self) -> list[str]:
        return [f"{headed(self.document, chunk)}\n{chunk.text}" for chunk in self.chunks]


def headed(document: Document, chunk: Chunk) -> str:
    """Title and headings that a passage stands under; a title that the first heading repeats once."""
    titles = [document.title, *chunk.heading]
    return " > ".join(titles[1:] if titles[:1] == titles[1:2] else titles)


class DocumentStore:
    """One file. For one thread at a time; several processes may read and write it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._sql = connection

    @classmethod
    def open(cls, path: Path, *, make: bool = False) -> DocumentStore:
        """The store at ``path``, with ``make`` a new one where there is none.

        Raises InputError where there is no store or something else, SetupError where this Python's SQLite has no
        full-text search.
        """
        if not path.is_file() and not make:
            raise InputError("there is no document store here", where=str(path), hint="make one with: ilab rag ingest")
        if path.is_dir():
            raise InputError("a document store is a file, and this is a folder", where=str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            store = cls(path, connection)
            store._prepare()
        except sqlite3.DatabaseError as error:
            raise _unusable(path, error) from error
        return store

    def close(self) -> None:
        self._sql.close()

    def __enter__(self) -> DocumentStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def collections(self) -> list[Collection]:
        rows = self._all("SELECT id, name, embedder, made_with FROM collection ORDER BY name")
        return [Collection(*row) for row in rows]

    def find(self, name: str) -> Collection | None:
        return next((one for one in self.collections() if one.name == name), None)

    def need(self, name: str) -> Collection:
        """Raises InputError where there is no such collection."""
        found = self.find(name)
        if found is None:
            known = ", ".join(one.name for one in self.collections()) or "none yet"
            hint = f"collections here: {known}; to make it: ilab rag ingest --document-store-collection-name {name}"
            raise InputError(f"there is no collection {name!r}", where=str(self.path), hint=hint)
        return found

    def make(self, name: str, embedder: str, made_with: str) -> Collection:
        """A new, empty collection."""
        with self._writing():
            sql = "INSERT INTO collection (name, embedder, made_with) VALUES (?, ?, ?)"
            number = int(self._sql.execute(sql, (name, embedder, made_with)).lastrowid or 0)
            made = Collection(number, name, embedder, made_with)
            columns = "headed, text, content='passage', content_rowid='id', tokenize='porter unicode61'"
            self._sql.execute(f"CREATE VIRTUAL TABLE {made.table} USING fts5({columns})")
        return made

    def drop(self, collection: Collection) -> None:
        """Remove a collection with everything in it."""
        own = "DELETE FROM passage WHERE document IN (SELECT id FROM document WHERE collection = ?)"
        with self._writing():
            self._sql.execute(f"DROP TABLE {collection.table}")
            self._sql.execute(own, (collection.number,))
            self._sql.execute("DELETE FROM document WHERE collection = ?", (collection.number,))
            self._sql.execute("DELETE FROM collection WHERE id = ?", (collection.number,))

    def documents(self, collection: Collection) -> list[Entry]:
        """By origin and source."""
        sql = (
            "SELECT origin, source, title, digest, (SELECT count(*) FROM passage WHERE document = document.id) "
            "FROM document WHERE collection = ? ORDER BY origin, source"
        )
        return [Entry(*row) for row in self._all(sql, collection.number)]

    def holds(self, collection: Collection, origin: str, cut: Cut) -> bool:
        """Whether this document is there already, cut the same way."""
        sql = "SELECT 1 FROM document WHERE (collection, origin, source, title, digest, cut) = (?, ?, ?, ?, ?, ?)"
        one = cut.document
        return bool(self._all(sql, collection.number, origin, one.source, one.title, one.id, cut.how))

    def known(self, collection: Collection, digests: Sequence[str]) -> dict[str, bytes]:
        """The vectors that the collection has of texts, by the texts' digests."""
        sql = (
            "SELECT vector FROM passage JOIN document ON document.id = passage.document "
            "WHERE embedded = ? AND collection = ? LIMIT 1"
        )
        found = {digest: self._all(sql, digest, collection.number) for digest in dict.fromkeys(digests)}
        return {digest: rows[0][0] for digest, rows in found.items() if rows}

    def put(self, collection: Collection, origin: str, cut: Cut, vectors: Sequence[tuple[str, bytes]]) -> None:
        """Write a document in the place of what was under its name. ``vectors``: (digest of the text, vector)."""
        one = cut.document
        with self._writing():
            self._remove(collection, origin, one.source)
            sql = "INSERT INTO document (collection, origin, source, title, digest, cut) VALUES (?, ?, ?, ?, ?, ?)"
            number = self._sql.execute(
                sql, (collection.number, origin, one.source, one.title, one.id, cut.how)
            ).lastrowid
            for chunk, (digest, vector) in zip(cut.chunks, vectors, strict=True):
                title = headed(one, chunk)
                row = (number, chunk.id, json.dumps(chunk.heading), chunk.page, *chunk.span, chunk.text, title, digest)
                sql = (
                    "INSERT INTO passage (document, chunk, heading, page, first, last, text, headed, embedded, vector) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                )
                passage = self._sql.execute(sql, (*row, vector)).lastrowid
                words = f"INSERT INTO {collection.table} (rowid, headed, text) VALUES (?, ?, ?)"  # noqa: S608 - see table
                self._sql.execute(words, (passage, title, chunk.text))

    def remove(self, collection: Collection, origin: str, source: str) -> None:
        """Forget a document."""
        with self._writing():
            self._remove(collection, origin, source)

    def matching(self, collection: Collection, query: str, count: int) -> list[int]:
        """Ids of the ``count`` passages that match an FTS5 query best, by BM25 (title and headings count twice)."""
        table = collection.table
        sql = (
            f"SELECT passage.id FROM {table} JOIN passage ON passage.id = {table}.rowid "  # noqa: S608 - see table
            "JOIN document ON document.id = passage.document "
            f"WHERE {table} MATCH ? ORDER BY bm25({table}, 2.0, 1.0), origin, source, first LIMIT ?"
        )
        return [row[0] for row in self._all(sql, query, count)]

    def vectors(self, collection: Collection) -> tuple[list[int], Floats]:
        """Ids of all passages by origin, source and place, and their vectors [passages, dimensions]."""
        sql = (
            "SELECT passage.id, vector FROM passage JOIN document ON document.id = passage.document "
            "WHERE collection = ? ORDER BY origin, source, first"
        )
        rows = self._all(sql, collection.number)
        if not rows:
            return [], np.zeros((0, 0), dtype=np.float32)
        joined = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
        return [row[0] for row in rows], joined.reshape(len(rows), -1).astype(np.float32, copy=False)

    def passages(self, ids: Sequence[int]) -> list[Passage]:
        """In the order of ``ids``; one that another process has just removed is left out."""
        sql = (
            "SELECT passage.id, chunk, origin, source, title, digest, heading, page, first, last, text FROM passage "
            "JOIN document ON document.id = passage.document WHERE passage.id = ?"
        )
        rows = [row for number in ids for row in self._all(sql, number)]
        return [
            Passage(
                id=row[0], chunk=row[1], origin=row[2], source=row[3], title=row[4], document=row[5],
                heading=tuple(json.loads(row[6])), page=row[7], span=(row[8], row[9]), text=row[10],
            )
            for row in rows
        ]  # fmt: skip

    def _prepare(self) -> None:
        (application,), (version,) = self._all("PRAGMA application_id")[0], self._all("PRAGMA user_version")[0]
        tables = self._all("SELECT count(*) FROM sqlite_master")[0][0]
        if tables and application != APPLICATION:
            hint = "give another file: --document-store-uri FILE"
            raise InputError("this is a database of something else", where=str(self.path), hint=hint)
        if tables and version != FORMAT:
            hint = "remove the file and make it again: ilab rag ingest"
            raise InputError(
                f"a document store of format {version}; this is format {FORMAT}", where=str(self.path), hint=hint
            )
        if not tables:
            with self._writing():
                if self._all("SELECT count(*) FROM sqlite_master")[0][0]:  # another process was first
                    return
                for statement in filter(str.strip, SCHEMA.split(";")):
                    self._sql.execute(statement)
                self._sql.execute(f"PRAGMA application_id = {APPLICATION}")
                self._sql.execute(f"PRAGMA user_version = {FORMAT}")

    def _remove(self, collection: Collection, origin: str, source: str) -> None:
        sql = "SELECT id FROM document WHERE (collection, origin, source) = (?, ?, ?)"
        for (number,) in self._all(sql, collection.number, origin, source):
            for row in self._all("SELECT id, headed, text FROM passage WHERE document = ?", number):
                table = collection.table  # of a table without contents of its own a row goes by what was put in
                words = f"INSERT INTO {table} ({table}, rowid, headed, text) VALUES ('delete', ?, ?, ?)"  # noqa: S608
                self._sql.execute(words, row)
            self._sql.execute("DELETE FROM passage WHERE document = ?", (number,))
            self._sql.execute("DELETE FROM document WHERE id = ?", (number,))

    def _all(self, sql: str, *values: Any) -> list[Any]:
        try:
            return self._sql.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _unusable(self.path, error) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it or nothing."""
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._sql.execute("ROLLBACK")
                raise
            self._sql.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise _unusable(self.path, error) from error


def _unusable(path: Path, error: sqlite3.DatabaseError) -> InputError | SetupError:
    text = str(error)
    if "fts5" in text:
        return SetupError("this Python's SQLite has no full-text search (FTS5)", where=str(path))
    if "not a database" in text or "malformed" in text:
        return InputError(
            f"no document store: {text}", where=str(path), hint="give another file: --document-store-uri FILE"
        )
    return SetupError(
        f"the document store cannot be used: {text}", where=str(path), hint="is the disk full or read-only?"
    )
