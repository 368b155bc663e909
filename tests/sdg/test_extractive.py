"""The extractive rules: what they read, what they refuse, and that they bear any text."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.sdg.extractive import Pair, extract
from ilab.sdg.extractive_grammar import parse
from ilab.sdg.extractive_markdown import plain

MILL = """# Vellmar Windmill

Vellmar Windmill is a tower mill on the island of Osk. The tower of Vellmar Windmill is 22 metres
tall. It was built by Anna Moss in 1841. The mill was restored in 1978 because the sails had rotted.
The cap is painted red. The miller grinds flour every Saturday. There are 64 steps in the tower.
The store holds 300 sacks of rye. In 1902, Greta Lund bought the mill.
The sails are made of **larch**. The key is kept in the bakery.
The museum opens at 10:00 and closes at 16:30.
"""
GLOSSARY = """**fid**
A pointed tool for opening rope. It is made of hard wood.

**bollard**: a short post to which a ship is tied

- **Supply Officer (SO)** - the person who counts the stores
"""
TABLE = """| Lamp | Colour | Range |
| --- | --- | --- |
| North light | red | 12 miles |
| South light | green | 9 miles |
"""


def asked(pairs: list[Pair]) -> dict[str, str]:
    return {pair.question: pair.answer for pair in pairs}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is Vellmar Windmill?", "a tower mill on the island of Osk"),
        ("How tall is the tower of Vellmar Windmill?", "22 metres"),
        ("tower of Vellmar Windmill height", "22 metres"),
        ("Who built the tower of Vellmar Windmill?", "Anna Moss"),
        ("When was the tower of Vellmar Windmill built?", "1841"),
        ("Vellmar Windmill: When was the mill restored?", "1978"),
        ("Vellmar Windmill: Why was the mill restored?", "because the sails had rotted"),
        ("Vellmar Windmill: What colour is the cap painted?", "red"),
        ("How often does the miller grind flour (Vellmar Windmill)?", "every Saturday"),
        ("How many steps are there in the tower?", "64"),
        ("Vellmar Windmill: How many sacks of rye does the store hold?", "300"),
        ("Who bought the mill?", "Greta Lund"),
        ("What did Greta Lund buy?", "the mill"),
        ("Vellmar Windmill: What are the sails made of?", "larch"),
        ("Vellmar Windmill: Where is the key kept?", "the bakery"),
        ("Vellmar Windmill: When does the museum close?", "16:30"),
    ],
)
def test_sentences_are_asked_about(question: str, answer: str) -> None:
    assert asked(extract(MILL, ["Vellmar Windmill"]))[question] == answer


@pytest.mark.parametrize("answer", ["22 metres", "Anna Moss", "1841", "1978", "red", "larch", "10:00", "16:30", "64"])
def test_each_fact_has_several_wordings(answer: str) -> None:
    questions = [pair.question for pair in extract(MILL, ["Vellmar Windmill"]) if pair.answer == answer]
    assert len(questions) >= 3
    assert len({question.split()[0] for question in questions}) >= 2


def test_glossaries_are_read_both_ways() -> None:
    found = asked(extract(GLOSSARY, ["Glossary"]))
    assert found["What is a fid?"] == "A pointed tool for opening rope"
    assert found["Which term means: a pointed tool for opening rope?"] == "fid"
    assert found["What is a bollard?"] == "a short post to which a ship is tied"
    assert found["What is fid made of?"] == "hard wood"
    assert found["What does SO stand for?"] == "Supply Officer"


def test_tables_are_read_both_ways() -> None:
    found = asked(extract(TABLE))
    assert found["What is the colour of North light?"] == "red"
    assert found["Which lamp has the range 9 miles?"] == "South light"


def test_a_list_under_a_plural_heading() -> None:
    found = asked(extract("## Languages\n\n* Java\n* Node.js\n* Go\n", ["Guide", "Languages"]))
    assert found["What are the languages?"] == "Java, Node.js, Go"


def test_bare_definites_take_their_name_from_the_heading() -> None:
    found = asked(extract("The station opened in 1954.", ["Greywater Tidal Station"]))
    assert found["When did Greywater Tidal Station open?"] == "1954"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It was built in 1890.",
        "The station was built in 1890.",
        "This is a good thing.",
        "Click **Import code** and enter the URL in the field.",
        "Use Conftest to validate 3 container images in the console.",
        "Is the tower of Vell 31 metres tall?",
        "The tower of Vell is not white.",
        "```\nThe tower of Vell is 31 metres tall.\n```",
        "See [the guide](https://example.org/a_b).",
        "| a |\n| --- |\n",
    ],
)
def test_nothing_is_made_of_what_cannot_be_resolved(text: str) -> None:
    assert extract(text) == []


def test_yes_no_questions_are_few() -> None:
    pairs = extract("Osk is windy. Vell is damp. Harl is dry.")
    assert [pair.rule for pair in pairs] == ["yes-no"]
    assert pairs[0].answer == "Yes, Osk is windy"


def test_sentences_with_two_predicates_give_two_clauses() -> None:
    first, second = parse("The mill was built in 1841 and restored in 1978.")
    assert (first.said, first.chunks[0].text) == ("was built", "1841")
    assert (second.said, second.chunks[0].text) == ("was restored", "1978")


def test_markdown_is_taken_off() -> None:
    assert plain("The **black** [cap](cap 'x') is `3` *mm* (see\nbelow)") == "The black cap is `3` mm (see below)"


def check(pairs: list[Pair], text: str) -> None:
    seen = set()
    for pair in pairs:
        assert text[pair.start : pair.start + len(pair.evidence)] == pair.evidence
        copied = pair.answer.removeprefix("Yes, ")
        parts = copied.split(", ") if pair.rule == "list" else [copied]
        source = plain(pair.evidence.replace("|", " ").replace("\\", "")).casefold()
        for part in parts:
            assert " ".join(part.casefold().replace("|", " ").split()) in source
        assert pair.question.strip()
        assert pair.answer.strip()
        assert len(pair.question.split()) <= 30
        assert not set("*`|<>") & set(pair.question + pair.answer)
        key = (pair.question.casefold(), pair.answer.casefold())
        assert key not in seen
        seen.add(key)


def test_answers_are_copied_and_places_are_right() -> None:
    for text in (MILL, GLOSSARY, TABLE):
        pairs = extract(text, ["Vellmar Windmill"])
        assert pairs == extract(text, ["Vellmar Windmill"])
        check(pairs, text)


PIECES = [
    "The tower",
    " is ",
    "31 metres",
    " tall. ",
    "**",
    "| a | b |\n",
    "| --- | --- |\n",
    "\n\n",
    "# T\n",
    "It ",
    "- ",
    "was built by Anna Moss in 1890",
    ". ",
    "[x](y)",
    "```\n",
    " and ",
    "(SO)",
    "“q”",
    "\t",
    "\u2028",
    "\x0c",
    "1.5",
    "Supply Officer ",
    ": ",
    "$",
    "\\",
    "ß",
    "İ",
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=300),
    st.lists(st.text(max_size=20), max_size=3),
)
def test_any_text_is_handled(text: str, headings: list[str]) -> None:
    for pair in extract(text, headings):
        assert text[pair.start : pair.start + len(pair.evidence)] == pair.evidence
        assert pair.answer
        assert pair.question


@pytest.mark.parametrize(
    "piece",
    [
        MILL,
        GLOSSARY,
        TABLE,
        "a ",
        "(",
        "[",
        "**x ",
        "The a b c, ",
        "| ",
        "- a\n",
        "A. ",
        "\n",
        "The tower and ",
        "from x ",
        "A b (",
        "1,",
        "1-",
        "the of ",
        "Aa Bb ",
        "_",
        "```\n",
        "<a",
        "every two ",
    ],
)
def test_100_kilobytes_are_read_in_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    extract(text, ["Vellmar Windmill"])
    assert time.process_time() - started < 2.0


def test_real_documents(shared: Path) -> None:
    documents = sorted((shared / "data/konflux-taxonomy/markdown").glob("*.md"))
    if not documents:
        pytest.skip("no Konflux documents")
    for path in documents:
        text = path.read_text(encoding="utf-8")
        check(extract(text, [text.partition("\n")[0]]), text)
    glossary = next(path for path in documents if path.name.endswith("glossary.md"))
    assert len(extract(glossary.read_text(encoding="utf-8"), ["Glossary"])) >= 300


def test_a_colour_that_holds_under_a_condition_keeps_it():
    text = "The status lamp is green when the kiln is ready. The status lamp is orange when the kiln is heating."
    pairs = extract(text, ("Kiln",))
    asked = {pair.question: pair.answer for pair in pairs if pair.rule == "colour"}
    assert set(asked.values()) == {"green", "orange"}
    assert all(("ready" in question) == (answer == "green") for question, answer in asked.items())
    assert any(pair.answer == "when the kiln is heating" and "orange" in pair.question for pair in pairs)


def test_instruments_and_counted_intervals():
    text = "The operator cleans the window with vinegar. The technician checks the coils every 140 firings."
    pairs = extract(text, ("Kiln",))
    tools = [pair.question for pair in pairs if pair.rule == "instrument" and pair.answer == "vinegar"]
    assert len(tools) >= 3 and all("window" in question for question in tools)
    assert "every 140 firings" in {pair.answer for pair in pairs if pair.rule == "how-often"}
