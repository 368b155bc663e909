from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ilab.packaging.card import CardFacts, LeafFact, PhaseFact, ScoreFact, escape, model_card

FACTS = CardFacts(
    name="tiny",
    version="0.1.0",
    license="apache-2.0",
    base="ilab-tiny (untrained)",
    taxonomy_revision="a1b2c3d",
    leaves=(
        LeafFact(path="skills/record", kind="freeform", created_by="ann", samples=1),
        LeafFact(path="knowledge/canal", kind="knowledge", created_by="bob", attribution="By *us*\nCC0", samples=1200),
    ),
    flow="extractive",
    accepted=1201,
    rejected=99,
    phases=(
        PhaseFact(name="knowledge", rows=1200, settings={"epochs": 7, "learning rate": 2e-5}, chosen="epoch 3"),
        PhaseFact(name="skills", rows=1, settings={}, chosen="the last"),
    ),
    scores=(
        ScoreFact(
            leaf="knowledge/canal",
            items=40,
            base=0.25,
            phase1=0.5,
            tuned=0.625,
            change=0.375,
            interval=(0.2, 0.55),
        ),
        ScoreFact(leaf="skills/record", items=0, base=None, tuned=None),
    ),
    baselines={"open book, word overlap": 0.7},
    gate="pass: +37.5 points against a threshold of 0.5",
    demonstration=True,
)


def table(card: str, heading: str) -> list[list[str]]:
    part = card.split(f"## {heading}")[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_what_the_card_says() -> None:
    card = model_card(FACTS)
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0"
    assert "base_model" not in head, "a model that no hub knows has no name there"
    assert table(card, "Evaluation") == [
        ["knowledge/canal", "40", "25.0%", "50.0%", "62.5%", "+37.5 [+20.0, +55.0]"],
        ["skills/record", "0", "–", "–", "–", "–"],
    ]
    assert table(card, "What it was taught") == [
        ["knowledge/canal", "knowledge", "bob", "1,200"],
        ["skills/record", "freeform", "ann", "1"],
    ]
    for words in (
        "small-scale demonstration",
        "arXiv 2403.01081",
        "no teacher: rules over the text",
        "Samples accepted: 1,201 (92% of 1,300)",
        r"knowledge/canal — By \*us\* CC0",
        "open book, word overlap: 70.0%",
        r"Gate: pass\: +37.5 points",
        "epochs 7, learning rate 2e-05",
        "1 row; default settings",
        "Not measured: skills/record",
        "2 leaves",
    ):
        assert words in card, words


def test_what_is_not_so_is_not_said() -> None:
    plain = {"demonstration": False, "teacher": "granite", "scores": (), "base": "org/m", "base_is_hub_name": True}
    card = model_card(FACTS.model_copy(update=plain))
    assert "demonstration" not in card
    assert "rules" not in card
    assert "teacher granite" in card
    assert "Nothing was measured." in card
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "org/m"


NASTY = "x | y\n\n# Best model\n[click](http://evil.example) <script>x</script> ![a](b) www.evil.example `c`\n---\n"


@pytest.mark.parametrize("field", ["path", "created_by", "attribution"])
def test_a_leaf_cannot_add_markup(field: str) -> None:
    leaf = LeafFact(path="p", kind="knowledge", created_by="c", samples=1).model_copy(update={field: NASTY})
    card = model_card(FACTS.model_copy(update={"leaves": (leaf,), "license": NASTY, "taxonomy_revision": NASTY}))
    body = card.split("---\n", 2)[2] if field else ""
    assert len(table(card, "What it was taught")[0]) == 4
    assert not re.search(r"(?<!\\)<script|(?<!\\)!\[|(?<!\\)\]\(http://evil|(?<!\\)`c|http://evil|www\.evil", body)
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# tiny 0.1.0"]
    assert yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))["license"] == NASTY


@given(st.text())
def test_escaped_text_is_one_line_without_live_markup(text: str) -> None:
    shown = escape(text)
    assert not re.search(r"[\n\r\x00\u202e\u2066]", shown)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>|!&@]", shown)
