"""What a release was taught: found by its lineage, handed on without what a mix had from another mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from ilab.artifacts import Dataset, Documents, Taxonomy
from ilab.core.store import RecordFile, Store
from ilab.data import Document, Leaf, Message, Place, TrainingRow
from ilab.errors import InputError
from ilab.sdg.earlier import find_earlier, leaf_prints, take_earlier


def row(name: str, source: str = "knowledge") -> TrainingRow:
    said = (Message(role="user", content=name), Message(role="assistant", content="yes"))
    return TrainingRow(id=name, leaf=name.split("#", maxsplit=1)[0], source=source, sample=name, messages=said)


def publish(store: Store, type_: str, key: str, rows: list[TrainingRow]) -> None:
    record = RecordFile(
        step=type_, type=type_, version=1, key=key, fields={}, inputs={}, input_digests={}, digest="", counts={}
    )
    with store.writing(type_, key) as partial:
        Dataset(partial.artifact).write(rows, {})
        store.publish(partial, record)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    publish(store, "mix", "k" * 32, [row("a#1"), row("b#1"), row("replay/c#1", "replay")])
    publish(store, "mix", "s" * 32, [row("s#1", "skill"), row("replay/a#1", "replay")])
    publish(store, "earlier", "e" * 32, [row("c#1"), row("a#1")])
    return store


LINEAGE = {"generate": "g" * 32, "mix-knowledge": "k" * 32, "mix-skills": "s" * 32, "earlier": "e" * 32}


def test_each_row_once_and_only_of_the_leaves_that_are_the_same(store: Store, tmp_path: Path) -> None:
    out = Dataset(tmp_path)
    counts = take_earlier(find_earlier("m 1", LINEAGE, store), ["a", "c", "s"], out)
    assert [one.id for one in out.rows()] == ["c#1", "a#1", "s#1"]
    assert counts == {"rows": 3, "leaves": 3} and out.mix() == {"earlier": {"a": 1, "c": 1, "s": 1}}


def test_its_identity_is_what_it_says_not_where_it_lies(store: Store, tmp_path: Path) -> None:
    found = find_earlier("m 1", LINEAGE, store)
    other = Store(tmp_path / "other")
    publish(other, "mix", "x" * 32, [row("a#1"), row("b#1"), row("replay/c#1", "replay")])
    publish(other, "mix", "y" * 32, [row("s#1", "skill"), row("replay/a#1", "replay")])
    publish(other, "earlier", "z" * 32, [row("c#1"), row("a#1")])
    names = {"mix-knowledge": "x" * 32, "mix-skills": "y" * 32, "earlier": "z" * 32}
    assert find_earlier("m 1", names, other).digest == found.digest
    without = {name: key for name, key in LINEAGE.items() if name != "earlier"}
    assert find_earlier("m 1", without, store).digest != found.digest


def test_what_is_gone_is_said(store: Store) -> None:
    with pytest.raises(InputError, match="no longer in the store") as caught:
        find_earlier("m 1", {"mix-knowledge": "n" * 32, "earlier": "e" * 32}, store)
    assert "--from-base" in caught.value.hint


def test_a_leaf_changes_with_its_documents(tmp_path: Path) -> None:
    place = Place(file="qna.yaml", line=1)

    def prints(text: str, digest: str = "d") -> dict[str, str]:
        leaf = Leaf(path="k", kind="knowledge", version=3, created_by="p", seeds=(), digest=digest, place=place)
        taxonomy, documents = Taxonomy(tmp_path), Documents(tmp_path)
        taxonomy.write([leaf])
        documents.write([Document(id=text, leaf="k", source="s", title="t", text=text)], [])
        return leaf_prints(taxonomy, documents)

    assert prints("one") == prints("one")
    assert prints("one") != prints("two") != prints("two", "other")
