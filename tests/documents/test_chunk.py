"""Cutting documents: verbatim spans, budgets, headings, and texts made to hurt."""

import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ilab.data import Document
from ilab.documents.chunk import chunk, chunk_documents, estimate_tokens
from ilab.documents.convert import document as document_of
from ilab.documents.convert import read
from ilab.documents.converted import Converted
from ilab.documents.markdown import blocks
from ilab.errors import InputError

PAGE = """Intro before any heading.

# Kiln

The kiln is hot. It is *very* hot.

## Care ##

- sweep it
- turn the shelves
  twice

```sh
# not a heading
make clean
```

Lamp
----

| colour | meaning |
| --- | --- |
| green | ready |

### Empty

## Last

***

End.
"""


def document(text: str, leaf: str = "knowledge/a", source: str = "kiln.md") -> Document:
    try:
        converted = read(text.encode(), source)
    except InputError:  # so many control characters that it is no text
        assume(False)
    return document_of(converted, leaf, source)


def words(text: str) -> int:
    return len(text.split())


def test_headings_give_the_path_and_code_gives_none() -> None:
    parts = chunk(document(PAGE), 500)
    assert [part.heading for part in parts] == [
        (),
        ("Kiln",),
        ("Kiln", "Care"),
        ("Kiln", "Lamp"),
        ("Kiln", "Last"),
    ]
    assert parts[0].text == "Intro before any heading."
    assert "# not a heading" in parts[2].text
    assert parts[3].text.startswith("| colour")
    assert parts[4].text == "End."
    assert document(PAGE).title == "Kiln"


def test_an_over_long_section_is_cut_at_blocks_then_items_then_sentences_then_words() -> None:
    text = "# T\n\nOne two. Three four.\n\n- a b c d\n- e f g h\n\nend\n"
    assert [part.text for part in chunk(document(text), 11, words)] == [
        "One two. Three four.",
        "- a b c d\n- e f g h\n\nend",
    ]
    assert [part.text for part in chunk(document(text), 6, words)] == [
        "One two. Three four.",
        "- a b c d",
        "- e f g h",
        "end",
    ]
    assert [part.text for part in chunk(document(text), 2, words)][:3] == ["One two.", "Three four.", "- a"]


def test_a_word_over_the_budget_is_cut_and_nothing_is_lost() -> None:
    text = "abcdefghij" * 10
    parts = chunk(document(text), 3, len)
    assert "".join(part.text for part in parts) == text
    assert {len(part.text) for part in parts} == {3, 1}


def test_tables_are_cut_between_rows() -> None:
    rows = [f"| row {n} | value {n} |" for n in range(20)]
    parts = chunk(document("\n".join(rows)), 12, words)
    assert all(line in rows for part in parts for line in part.text.split("\n"))
    assert [line for part in parts for line in part.text.split("\n")] == rows


def test_ids_are_of_text_not_of_position() -> None:
    first = chunk(document("# A\n\nStays.\n"), 50)
    second = chunk(document("New start.\n\n# A\n\nStays.\n"), 50)
    assert first[0].id == second[1].id
    assert first[0].span != second[1].span


def test_equal_texts_in_one_leaf_are_numbered_and_other_leaves_are_not_touched() -> None:
    text = "# A\n\nSame.\n\n# B\n\nSame.\n"
    one, two = document(text), document(text + "\n# C\n\nSame.\n", source="other.md")
    parts = chunk_documents([one, two, document(text, leaf="knowledge/b")], 50)
    base = parts[0].id
    wanted = [base, f"{base}-2", f"{base}-3", f"{base}-4", f"{base}-5"]
    assert [part.id for part in parts if part.leaf == "knowledge/a"] == wanted
    assert [part.id for part in parts if part.leaf == "knowledge/b"] == [base, f"{base}-2"]


def test_an_edit_leaves_the_chunks_of_other_sections_alone() -> None:
    sections = [f"## S{n}\n\n" + " ".join(f"Sentence {n} {m}." for m in range(60)) for n in range(5)]
    before = {part.id for part in chunk(document("\n\n".join(sections)), 40)}
    sections[2] = sections[2].replace("Sentence 2 59.", "Sentence 2 fifty-nine.")
    after = {part.id for part in chunk(document("\n\n".join(sections)), 40)}
    assert len(before - after) == len(after - before) == 1


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(InputError):
        chunk(document("x"), 0)
    with pytest.raises(InputError):
        chunk(document("x"), 5, max_words=0)


def test_both_limits_hold() -> None:
    text = " ".join(f"Word{n}." for n in range(100))
    by_words = chunk(document(text), 1000, max_words=7)
    assert [words(part.text) for part in by_words] == [7] * 14 + [2]
    by_tokens = chunk(document(text), 10, max_words=7)
    assert max(part.tokens for part in by_tokens) <= 10
    assert max(words(part.text) for part in by_tokens) < 7


def test_every_leaf_can_have_a_budget_of_its_own() -> None:
    text = "One two. Three four. Five six."
    pages = [document(text, "knowledge/a"), document(text, "knowledge/b")]
    parts = chunk_documents(pages, {"knowledge/a": 2, "knowledge/b": 100}, words)
    assert [(part.leaf, part.text) for part in parts] == [
        ("knowledge/a", "One two."),
        ("knowledge/a", "Three four."),
        ("knowledge/a", "Five six."),
        ("knowledge/b", text),
    ]


def test_a_chunk_knows_the_page_on_which_it_begins() -> None:
    text = "# A\n\nOne.\n\n# B\n\nTwo two\nthree.\n\n# C\n\nFour.\n"
    pages = (0, text.index("# B"), text.index("three"), text.index("three"))  # the third page holds nothing
    page = document_of(Converted(text, pages=pages), "l", "x.pdf")
    assert [(part.text, part.page) for part in chunk(page, 50)] == [("One.", 1), ("Two two\nthree.", 2), ("Four.", 4)]
    assert chunk(document(text), 50)[0].page is None


def test_a_table_that_fits_stays_whole() -> None:
    table = "\n".join(f"| row {n} | value {n} |" for n in range(5))
    text = f"{'Word ' * 30}\n\n{table}\n\n{'Word ' * 30}\n"
    parts = chunk(document(text), 40, words)
    assert table in [part.text for part in parts]


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("abc", 1), ("abcd", 1), ("abcde", 2), ("ééé", 2)])
def test_the_estimate_is_a_quarter_of_the_bytes(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


MARKUP = st.sampled_from(
    [
        "# ",
        "## A",
        "```",
        "~~~",
        "- x",
        "1. y",
        "| a | b |",
        "---",
        "===",
        "<!--",
        "-->",
        "\n",
        "\n\n",
        " ",
        "\t",
        "。",
    ]
)
HOSTILE = st.lists(st.one_of(MARKUP, st.text(max_size=30)), max_size=60).map("".join)
COUNTS = st.sampled_from([estimate_tokens, words, len])


@settings(max_examples=300, deadline=None)
@given(HOSTILE, st.integers(1, 40), COUNTS)
def test_every_chunk_is_a_span_within_the_budget(text, budget, count) -> None:  # type: ignore[no-untyped-def]
    page = document(text)
    parts = chunk(page, budget, count)
    for part in parts:
        assert page.text[slice(*part.span)] == part.text == part.text.strip() != ""
        assert part.tokens == count(part.text) and (part.tokens <= budget or len(part.text) == 1)
    ends = [0, *(end for part in parts for end in part.span)]
    assert ends == sorted(ends)
    assert len({part.id for part in parts}) == len(parts)


@settings(max_examples=300, deadline=None)
@given(HOSTILE, st.integers(1, 40))
def test_nothing_but_blanks_is_lost_between_the_chunks_of_a_text(text, budget) -> None:  # type: ignore[no-untyped-def]
    page = document(text)
    bodies = [block for block in blocks(page.text) if block.kind != "heading"]
    covered = [part.span for part in chunk(page, budget)]
    for block in bodies:
        for index in range(block.start, block.end):
            if not page.text[index].isspace():
                assert any(start <= index < end for start, end in covered)


@settings(max_examples=200, deadline=None)
@given(HOSTILE)
def test_converting_twice_changes_nothing_more(text) -> None:  # type: ignore[no-untyped-def]
    once = document(text)
    assert document(once.text.replace("\n", "\r\n"), source="kiln.txt").text == once.text


@pytest.mark.parametrize(
    "piece",
    [
        "<!--",
        "<!-- ",
        "!",
        "!)",
        "`",
        "```\n",
        "---\n",
        "===\n",
        "# ",
        "#",
        "- ",
        "| ",
        "a",
        "a ",
        ". ",
        "\n",
        "[",
        "*\n",
    ],
)
def test_a_quarter_mebibyte_of_one_thing_is_cut_in_linear_time(piece: str) -> None:
    """Twice the text must not cost much more than twice the processor time: a bound on the order of growth."""

    def cost(size: int) -> float:
        text = piece * (size // len(piece))
        begun = time.process_time()
        chunk(document(text), 200)
        return time.process_time() - begun

    small = min(cost(2**16) for _ in range(2))
    assert any(cost(2**18) < 12 * max(small, 0.02) for _ in range(3))
