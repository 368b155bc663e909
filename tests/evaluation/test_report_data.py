"""The data card on the report's page."""

from __future__ import annotations

import re
from typing import Any

from ilab.data import Message, Origin, Sample
from ilab.evaluation.compare import compare
from ilab.evaluation.gate import decide
from ilab.evaluation.report import View, render, twin
from ilab.evaluation.report_data import TYPES, card_view

LEAF = "knowledge/towers"
EVIL = "<script>alert(1)</script>{{ 7 * 7 }}"


def make_card(**changes: Any) -> dict[str, Any]:
    ranks = {"least": 1, "median": 9, "p90": 26, "most": 115}
    length = {"words": ranks, "tokens": ranks, "up_to_words": [[1, 2], [16, 40], [128, 8]]}
    card = {
        "flow": "full",
        "leaves": {
            LEAF: {
                "kind": "knowledge",
                "rows": 80,
                "accepted": 50,
                "rejected": {"not supported": 20, "near-duplicate": 10},
                "filters": [
                    {"filter": "faithful", "in": 80, "out": 60},
                    {"filter": "dedup", "in": 60, "out": 60},
                    {"filter": "near-duplicates", "in": 60, "out": 50},
                ],
                "languages": {"en": 47, "de": 3},
                "seed_language": "en",
                "foreign": {"count": 3, "samples": {f"{LEAF}#1/write-1": "de"}},
                "examples": [f"{LEAF}#2/write-2", f"{LEAF}#9/gone"],
            }
        },
        "blocks": {"knowledge/faithful": {"in": 80, "out": 60, "rejected": 20}},
        "lengths": {"answer": length, "question": length},
        "types": {"kind": {"knowledge": 50}, "written by": {"teacher": 45, "rule": 5}},
        "languages": {"en": 47, "de": 3},
        "across_leaves": {"exact": 4, "near": 1, "pairs": [{"leaf": LEAF, "of": "b/c", "kind": "near", "count": 1}]},
    }
    return {**card, **changes}


def make_view(card: dict[str, Any]) -> View:
    comparison = compare({"base": [], "tuned": []}, [])
    samples = [
        Sample(
            id=f"{LEAF}#{n}/write-{n}",
            leaf=LEAF,
            messages=(Message(role="user", content=f"Question {n}?"), Message(role="assistant", content="Yes.")),
            origin=Origin(leaf=LEAF, leaf_digest="", flow="full", block="write"),
        )
        for n in range(9)
    ]
    gate = decide(comparison, [], [], threshold=0.8, metrics=["f1"])
    return View(title="t", pipeline="p", comparison=comparison, gate=gate, cards={"samples": card}, samples=samples)


def plain(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.replace("<wbr>", "")).split())


def test_everything_on_the_card_is_on_the_page() -> None:
    text = plain(render(make_view(make_card())))
    for said in (
        "47 en, 3 de 3 unlike its seeds (en)",
        "faithful 80 60 75 %",
        "near-duplicates 60 50 83 %",
        "1 word 1 word: 2 of 50 samples 2 up to 16 words",
        "tokens, estimated 1 9 26 115",
        "How long the messages to answer are",
        "teacher teacher: 45 of 50 samples 45",
        "de knowledge/towers#1/write-1",
        "4 exact, 1 near.",
        "1 near: knowledge/towers repeats b/c",
    ):
        assert said in text, said
    assert "dedup 60 60" not in text  # refused nothing


def test_the_drawn_samples_are_those_shown() -> None:
    view = make_view(make_card())
    assert [sample["id"] for sample in twin(view)["samples"]] == [f"{LEAF}#2/write-2"]
    assert "Question 2?" in render(view) and "Question 3?" not in render(view)
    card = make_card()
    del card["leaves"][LEAF]["examples"]
    assert len(twin(make_view(card))["samples"]) == 5


def test_an_older_or_empty_card_is_drawn_as_well() -> None:
    leaves = {LEAF: {"rows": 2, "accepted": 1, "rejected": {"duplicate": 1}}}
    text = plain(render(make_view({"flow": "simple", "leaves": leaves, "blocks": {"write": {"in": 2, "out": 2}}})))
    assert "knowledge/towers 2 1 50 %" in text
    assert "How long" not in text and "Accept rate of each filter" not in text and "Languages" not in text
    nothing = make_card(leaves={}, blocks={}, lengths={"answer": {"words": {}}}, types={"kind": {}}, languages={})
    assert "What kinds there are" not in plain(render(make_view(nothing)))


def test_texts_on_the_card_are_escaped() -> None:
    leaf = make_card()["leaves"][LEAF]
    leaf |= {
        "filters": [{"filter": EVIL, "in": 2, "out": 1}],
        "languages": {EVIL: 1},
        "seed_language": EVIL,
        "foreign": {"count": 1, "samples": {EVIL: EVIL}},
    }
    pair = {"leaf": EVIL, "of": EVIL, "kind": EVIL, "count": 1}
    card = make_card(
        leaves={EVIL: leaf},
        types={EVIL: {EVIL: 1}},
        languages={EVIL: 1},
        across_leaves={"exact": 0, "near": 1, "pairs": [pair]},
    )
    html = render(make_view(card))
    assert "<script" not in html and ">49<" not in html
    assert html.count("&lt;script&gt;") > 12


def test_rare_kinds_are_put_together() -> None:
    view = card_view("samples", make_card(types={"block": {f"b{n:02}": 100 - n for n in range(30)}}))
    shown = view["types"]["block"]
    assert len(shown) == TYPES
    assert shown[-1][:2] == ("others", sum(100 - n for n in range(TYPES - 1, 30)))
