"""Passages: verbatim, of a good length, and spread over all documents."""

from __future__ import annotations

import pytest

from ilab.data import Document, digest_text
from ilab.documents.passages import LEAST, MOST, Passage, passages, spread


def document(text: str, name: str = "a.md") -> Document:
    return Document(id=digest_text(text), leaf="knowledge/a", source=name, title=name, text=text)


def section(number: int, words: int) -> str:
    sentences = " ".join(f"Word{number} has the number {at}." for at in range(words // 5))
    return f"## Section {number}\n\n{sentences}\n\n"


def length(passage: Passage) -> int:
    return len(passage.text.split())


@pytest.mark.parametrize("words", [10, 30, 60, 120, 400, 1500])
@pytest.mark.parametrize("sections", [1, 3, 12])
def test_passages_are_verbatim_and_of_a_good_length(words: int, sections: int) -> None:
    whole = document("# Title\n\n" + "".join(section(number, words) for number in range(sections)))
    found = passages([whole], 5)
    at = 0
    for passage in found:
        at = whole.text.index(passage.text, at) + len(passage.text)
        assert LEAST <= length(passage) <= MOST
        assert passage.source == "a.md"
    total = len(whole.text.split())
    assert len(found) >= min(5, total // 60)
    assert sum(map(length, found)) >= 0.8 * total - LEAST


def test_short_sections_are_joined_under_the_first_heading() -> None:
    found = passages([document("# Title\n\n" + "".join(section(number, 40) for number in range(30)))], 5)
    assert all(length(passage) >= 100 for passage in found)
    assert found[0].heading == ("Title", "Section 0")
    assert "## Section 1\n" in found[0].text


def test_too_little_text_gives_nothing() -> None:
    assert passages([document("# Title\n\nA few words.\n")], 5) == []
    assert passages([], 5) == []
    assert spread([], 5) == []


def test_the_choice_is_spread_and_takes_running_text_first() -> None:
    table = "| a | b |\n| --- | --- |\n" + "| cell and cell | cell |\n" * 12
    prose = "The ferry crosses the Varn in 14 minutes. " * 8
    found = [Passage(f"{name}.md", (), None, text) for name in "ab" for text in (table, prose, table)]
    ordered = spread(found, 2)
    assert [passage.source for passage in ordered[:2]] == ["a.md", "b.md"]
    assert [passage.text for passage in ordered[:2]] == [prose, prose]
    assert sorted(map(id, ordered)) == sorted(map(id, found))
    assert len(spread(found, 50)) == 6
