"""Which passage belongs to a question, and how much of it is read."""

from __future__ import annotations

import pytest

from ilab.data import Chunk, Item
from ilab.evaluation.passages import part_about, passages


def chunk(name: str, text: str, leaf: str = "a") -> Chunk:
    return Chunk(id=name, leaf=leaf, document="d", source="d.md", heading=(), span=(0, len(text)), text=text, tokens=9)


def item(question: str, cluster: str = "x", leaf: str = "a", context: str | None = None) -> Item:
    return Item(
        id=f"{leaf}/{question}", leaf=leaf, split="test", kind="exact", question=question, context=context, gold="14",
        cluster=cluster,
    )  # fmt: skip


CHUNKS = [
    chunk("c1", "The ferry sails at noon. The crew is five."),
    chunk("c2", "The lighthouse has a lamp. The keeper lights the lamp at dusk."),
    chunk("c3", "The keeper of the ferry. A lamp. At dusk they light it."),
    chunk("c1", "Another leaf's text about the lamp.", "b"),
]


def test_an_items_own_chunk_else_the_best_of_its_leaf() -> None:
    asked = [
        item("When does the keeper light the lamp at dusk?"),  # one sentence of c2 has more of it than any of c3
        item("When does the lamp burn?", "a#c1"),
        item("What of the lamp?", "b#c1", "b"),
        item("Nothing of all this?"),
        item("The lamp?", context="its own"),
        item("The lamp?", leaf="c"),
    ]
    found = passages(asked, CHUNKS)
    wanted = [CHUNKS[1], CHUNKS[0], CHUNKS[3], CHUNKS[0]]
    assert found == {one.id: chunk.text for one, chunk in zip(asked, wanted, strict=False)}
    assert passages(asked, []) == {}
    assert found == passages(asked[::-1], CHUNKS)


@pytest.mark.parametrize("size", [30, 60, 90, 1000])
def test_what_is_read_is_whole_sentences_about_the_question(size: int) -> None:
    text = "First is a boat. Then a crane. The keeper lights the lamp.\nAfter it a mill. Last a quay."
    read = part_about(text, "Who lights the lamp?", size)
    assert "lights the lamp" in read and len(read) <= size and read in text
    assert read == text or size < len(text)
    if size == 60:
        assert read == "Then a crane. The keeper lights the lamp.\nAfter it a mill."


def test_a_sentence_longer_than_the_room_is_cut() -> None:
    assert part_about("lamp " * 50, "lamp?", 12) == "lamp lamp la"
