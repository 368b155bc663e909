"""The document store: what is written, replaced, removed; a kill in the middle; files that are none of ours."""

from __future__ import annotations

import math
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from stocked import CANAL, MILL, Counting, cut, put

from ilab.core.events import Bus
from ilab.data import digest_text
from ilab.errors import InputError
from ilab.rag.ingest import ingest
from ilab.rag.search import Retriever
from ilab.rag.store import Collection, DocumentStore


def need(store: DocumentStore) -> Collection:
    """The collection, its full text checked against its passages."""
    collection = store.need("ilab")
    own = sqlite3.connect(store.path)
    own.execute(f"INSERT INTO {collection.table} ({collection.table}) VALUES ('integrity-check')")
    own.close()
    return collection


@pytest.fixture
def store(tmp_path: Path) -> DocumentStore:
    return DocumentStore.open(tmp_path / "deep" / "store.db", make=True)


def test_only_what_changed_is_embedded(store: DocumentStore) -> None:
    embedder = Counting()
    first = put(store, embedder, cut("canal.md", CANAL), cut("mill.md", MILL))
    assert (first.added, first.embedded, first.passages) == (["canal.md", "mill.md"], 3, 3)
    assert embedder.texts[1] == "Canal > Tolls\nA barge pays nine crowns."
    again = put(store, embedder, cut("canal.md", CANAL), cut("mill.md", MILL))
    assert (again.unchanged, again.embedded, again.passages) == (["canal.md", "mill.md"], 0, 0)
    edited = put(store, embedder, cut("canal.md", CANAL.replace("nine", "ten")), cut("mill.md", MILL))
    assert (edited.replaced, edited.embedded, edited.passages) == (["canal.md"], 1, 2)
    assert embedder.texts[3:] == ["Canal > Tolls\nA barge pays ten crowns."]
    collection = need(store)
    assert len(store.matching(collection, '"ten"', 9)) == 1
    assert store.matching(collection, '"nine"', 9) == []
    removed = put(store, embedder, cut("mill.md", MILL))
    assert removed.removed == ["canal.md"]
    assert [entry.source for entry in store.documents(need(store))] == ["mill.md"]
    assert store.matching(collection, '"ten"', 9) == []


def test_another_way_of_cutting_writes_a_document_again(store: DocumentStore) -> None:
    embedder = Counting()
    put(store, embedder, cut("mill.md", MILL))
    told = put(store, embedder, cut("mill.md", MILL, how="2"))
    assert (told.replaced, told.embedded) == (["mill.md"], 0)


def test_origins_do_not_remove_each_others_documents(store: DocumentStore) -> None:
    embedder = Counting()
    put(store, embedder, cut("x.md", CANAL), origin="a")
    put(store, embedder, cut("x.md", MILL), origin="b")
    assert [(one.origin, one.title) for one in store.documents(need(store))] == [("a", "Canal"), ("b", "Mill")]
    put(store, embedder, origin="b", complete=False)
    assert len(store.documents(need(store))) == 2
    put(store, embedder, origin="b")
    assert [one.origin for one in store.documents(need(store))] == ["a"]


def test_a_passage_says_where_it_stands(store: DocumentStore) -> None:
    text = "# Canal\n\nFirst page.\n\n## Locks\n\nThe locks open at six.\n"
    put(store, Counting(), cut("book.pdf", text, pages=(0, text.index("## Locks"))))
    (found,) = store.passages(store.matching(need(store), '"six"', 1))
    assert (found.source, found.heading, found.page) == ("book.pdf", ("Canal", "Locks"), 2)
    assert text[slice(*found.span)] == found.text == "The locks open at six."
    assert found.document == digest_text(text)


def test_ranks_are_those_of_bm25(store: DocumentStore) -> None:
    """Against the formula itself (k1 = 1.2, b = 0.75), title and headings counting twice."""
    texts = {
        "a": "# One\n\nbarley barley mill.\n",
        "b": "# Two\n\nbarley and many other words that make it long.\n",
        "c": "# Barley\n\nrye.\n",
        "d": "# Four\n\nrye and wheat.\n",
        "e": "# Five\n\noats.\n",
    }
    put(store, Counting(), *(cut(name, text) for name, text in texts.items()))
    fields = {name: [re.findall(r"\w+", part.lower()) for part in text.split("\n\n")] for name, text in texts.items()}
    average = sum(len(title) + len(body) for title, body in fields.values()) / len(fields)
    having = sum("barley" in title + body for title, body in fields.values())
    idf = max(math.log((len(fields) - having + 0.5) / (having + 0.5)), 1e-6)

    def score(name: str) -> float:
        title, body = fields[name]
        often = 2 * title.count("barley") + body.count("barley")
        return idf * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * (len(title) + len(body)) / average))

    expected = sorted((name for name in texts if score(name) > 0), key=lambda name: (-score(name), name))
    found = store.passages(store.matching(need(store), '"barley"', 9))
    assert [one.source for one in found] == expected == ["c", "a", "b"]


def test_each_collection_weighs_words_by_its_own_passages(store: DocumentStore) -> None:
    embedder = Counting()
    one, other = (store.make(name, embedder.identity, "hashed") for name in ("one", "other"))
    emit = Bus().for_step("ingest")
    ingest((store, one, embedder), "a", [cut("canal.md", CANAL)], emit)
    ingest((store, other, embedder), "a", [cut("mill.md", MILL)], emit)
    assert [one.source for one in store.passages(store.matching(one, '"mill" OR "canal"', 9))] == ["canal.md"] * 2
    store.drop(one)
    assert [left.name for left in store.collections()] == ["other"]
    assert len(store.matching(other, '"mill"', 9)) == 1
    with pytest.raises(InputError, match="no collection 'one'"):
        store.need("one")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from stocked import Counting, cut, put
from ilab.rag.store import DocumentStore

class Deadly(DocumentStore):
    def _remove(self, collection, origin, source):
        super()._remove(collection, origin, source)
        if source == "d5.md":  # in the middle of its transaction: what was there is removed, nothing written yet
            os.kill(os.getpid(), signal.SIGKILL)

store = Deadly.open(Path({path!r}))
put(store, Counting(), *(cut(f"d{{n}}.md", "# New\\n\\n" + f"new text {{n}} with words. " * 400) for n in range(9)))
"""


def test_a_kill_leaves_whole_documents_and_the_same_command_goes_on(store: DocumentStore) -> None:
    embedder = Counting()
    put(store, embedder, *(cut(f"d{n}.md", f"# Old\n\nold text {n}.\n") for n in range(9)))
    script = KILLED.format(tests=str(Path(__file__).parent), path=str(store.path))
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    titles = {one.source: (one.title, one.passages > 1) for one in store.documents(need(store))}
    assert titles == {f"d{n}.md": ("New", True) if n < 5 else ("Old", False) for n in range(9)}
    wanted = [cut(f"d{n}.md", "# New\n\n" + f"new text {n} with words. " * 400) for n in range(9)]
    told = put(store, embedder, *wanted)
    assert (len(told.unchanged), len(told.replaced)) == (5, 4)
    assert Retriever(store, need(store), embedder).search("new text 7", 1)[0].passage.title == "New"


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no document store here") as none:
        DocumentStore.open(tmp_path / "none.db")
    assert none.value.hint == "make one with: ilab rag ingest"
    assert not (tmp_path / "none.db").exists()
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE cats (name)")
    other.close()
    with pytest.raises(InputError, match="a database of something else"):
        DocumentStore.open(tmp_path / "other.db", make=True)
    (tmp_path / "text.db").write_text("just text, and enough of it to be no header of a database\n" * 9)
    with pytest.raises(InputError, match="no document store: "):
        DocumentStore.open(tmp_path / "text.db")
    with pytest.raises(InputError, match="this is a folder"):
        DocumentStore.open(tmp_path, make=True)


def test_a_store_of_another_format_is_refused(store: DocumentStore) -> None:
    store.close()
    other = sqlite3.connect(store.path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(InputError, match="format 99; this is format 1"):
        DocumentStore.open(store.path)
