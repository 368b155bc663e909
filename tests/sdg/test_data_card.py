"""The filters after the flow, and what the data card says of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ilab.data import Chunk, Item, Kind, Leaf, digest_text, short
from ilab.errors import ServiceError
from ilab.models.chat import Request
from ilab.sdg.benchmarks import Benchmark
from ilab.sdg.flow import FlowSet, load_flow
from ilab.sdg.generate import Generated, Job, generate
from ilab.sdg.sieve import FILTERS
from ilab.testing.scripted import ScriptedModel

LAMP = "The great lamp of the tower number {} is filled with oil by the keeper and his son every evening."
ANSWERS = [  # what the teacher says of each passage: question and answer
    ("Who fills the great lamp of the tower number {} every evening?", LAMP),
    ("Who fills the great lamp of the tower number {} every single evening?", LAMP),  # nearly the first
    ("Who fills the great lamp of the tower number {} every evening?", LAMP),  # just the first
    ("When was the tower number {} painted?", "I'm sorry, but I cannot answer that question."),
    ("Where is the tower number {} to be found?", "It stands on the hill of number {}."),  # held out
    ("What is the capital of France?", "Paris"),  # of a benchmark
    ("Was für eine Farbe hat der Turm mit der Nummer {}?", "Er ist auf der Seite nach dem Meer rot."),
]
FLOW = """\
name: writing
version: 1
branches:
  pairs:
    input: chunk
    blocks:
      - type: llm
        name: write
        prompt: write.txt
        tags: {question: QUESTION, answer: ANSWER}
      - type: filter
        name: long
        column: question
        operation: ne
        value: Tell me
        reason: no question
  open:
    input: chunk
    blocks:
      - type: llm
        name: ask
        prompt: ask.txt
        tags: {question: QUESTION}
      - type: choose
        name: not-known
        output: answer
        values: [The passage does not say.]
      - type: expression
        name: mark
        columns: {unanswerable: "yes"}
      - type: duplicate
        columns: {document: context}
"""


@pytest.fixture
def flow(tmp_path: Path) -> FlowSet:
    folder = tmp_path / "writing"
    folder.mkdir()
    (folder / "knowledge.yaml").write_text(FLOW)
    (folder / "write.txt").write_text("Write pairs on: {{ document }}")
    (folder / "ask.txt").write_text("Ask what is not in: {{ document }}")
    return load_flow(folder)


def answer(request: Request) -> str:
    prompt = request.messages[-1].content
    number = prompt.partition("number ")[2].partition(" ")[0]
    if prompt.startswith("Ask"):
        return f"[QUESTION]Who sang in the tower number {number}?[/QUESTION]"
    pairs = [*ANSWERS, ("Tell me", "a tower of number {}")]
    return "\n".join(f"[QUESTION]{q.format(number)}[/QUESTION]\n[ANSWER]{a.format(number)}[/ANSWER]" for q, a in pairs)


Run = Callable[..., Generated]


@pytest.fixture
def run(
    flow: FlowSet, make_job: Callable[..., Job], make_leaf: Callable[..., Leaf], make_chunk: Callable[..., Chunk]
) -> Run:
    """Two leaves with a passage each, and one that they have in common."""

    def go(**fields: Any) -> Generated:
        passages = {"knowledge/a": ("1", "3"), "knowledge/b": ("2", "3")}
        leaves = [make_leaf(path) for path in passages]
        chunks = [
            make_chunk(path, f"Of the tower number {number} much is told.")
            for path, numbers in passages.items()
            for number in numbers
        ]
        held_out = Item(
            id="i/1",
            leaf="knowledge/a",
            split="test",
            kind="exact",
            question="Where is the tower number 1 to be found?",
            gold="on the hill",
            cluster="c",
        )
        trivia = Benchmark("trivia", (("What is the capital of France?", "Paris"),))
        given = {"leaves": leaves, "chunks": chunks, "held_out": [held_out], "flow": flow, "near": 0.8}
        given |= {"benchmarks": [trivia], "teacher": ScriptedModel(answer), **fields}
        return generate(make_job(**given))

    return go


def test_each_filter_refuses_its_own_and_the_card_counts_it(run: Run) -> None:
    made = run()
    assert Counter((entry.block, entry.reason.partition(":")[0]) for entry in made.rejected) == {
        ("long", "no question"): 4,
        ("dedup", "duplicate"): 3 + 6,  # within a passage; of the second leaf's third what is good
        ("near-duplicates", "near-duplicate"): 3 + 2,  # the second pair; and a question whose towers differ by a number
        ("decontaminate", "held out"): 1,
        ("benchmarks", "benchmark trivia"): 4,
        ("refusal", "refusal"): 4,
    }
    told = made.card["leaves"]
    for path in ("knowledge/a", "knowledge/b"):
        steps = told[path]["filters"]
        assert [step["filter"] for step in steps] == ["long", *FILTERS]
        assert steps[0] == {"filter": "long", "in": 16, "out": 14}
        later = steps[1:]
        assert [step["in"] for step in later[1:]] == [step["out"] for step in later[:-1]]
        assert later[-1]["out"] == told[path]["accepted"]
        refused = Counter(entry.block for entry in made.rejected if entry.leaf == path)
        assert {step["filter"]: step["in"] - step["out"] for step in steps if step["in"] > step["out"]} == refused
        assert told[path]["rows"] == told[path]["accepted"] + refused.total()
    assert made.card["blocks"]["near-duplicates"]["rejected"] == 5
    assert len(made.samples) == made.card["blocks"][FILTERS[-1]]["out"]


def test_rows_made_to_have_no_answer_stay(run: Run) -> None:
    made = run()
    unknown = [sample for sample in made.samples if sample.answer == "The passage does not say."]
    # The passages of the same number are equal in both leaves, so that row is a duplicate.
    assert {sample.question.partition("\n")[0] for sample in unknown} == {
        f"Who sang in the tower number {number}?" for number in (1, 2, 3)
    }


def test_the_card_tells_types_lengths_languages_and_what_leaves_share(run: Run) -> None:
    made = run()
    card = made.card
    count = len(made.samples)
    assert card["types"]["kind"] == {"knowledge": count}
    assert card["types"]["written by"] == {"teacher": count}
    assert card["types"]["branch"] == {"knowledge/open": 3, "knowledge/pairs": count - 3}
    assert card["types"]["block"] == {"knowledge/ask": 3, "knowledge/write": count - 3}
    assert card["languages"]["de"] == 1
    assert sum(card["languages"].values()) == count
    [german] = [sample for sample in made.samples if sample.question.startswith("Was für")]
    assert {told["seed_language"] for told in card["leaves"].values()} == {"en"}
    assert card["leaves"]["knowledge/a"]["foreign"] == {"count": 1, "samples": {german.id: "de"}}
    assert card["leaves"]["knowledge/b"]["foreign"] == {"count": 0, "samples": {}}
    assert (card["across_leaves"]["exact"], card["across_leaves"]["near"]) == (6, 1)
    assert card["across_leaves"]["pairs"] == [
        {"leaf": "knowledge/b", "of": "knowledge/a", "kind": "exact", "count": 6},
        {"leaf": "knowledge/b", "of": "knowledge/a", "kind": "near", "count": 1},
    ]
    lengths = card["lengths"]["answer"]
    words = sorted(len(sample.answer.split()) for sample in made.samples)
    assert (lengths["words"]["least"], lengths["words"]["most"]) == (words[0], words[-1])
    assert sum(number for _, number in lengths["up_to_words"]) == count
    for (low, _), (high, number) in zip([(0, 0), *lengths["up_to_words"]], lengths["up_to_words"], strict=False):
        assert number == sum(low < length <= high for length in words)
    json.dumps(card, allow_nan=False)


def test_examples_are_drawn_by_id(run: Run) -> None:
    made = run()
    by_leaf = Counter(sample.leaf for sample in made.samples)
    known = {sample.id: sample for sample in made.samples}
    for path, told in made.card["leaves"].items():
        assert len(set(told["examples"])) == min(5, by_leaf[path])
        assert all(known[identity].leaf == path for identity in told["examples"])
        assert len({known[identity].origin.block for identity in told["examples"]}) == 2


def test_a_teacher_that_only_refuses_is_told_as_such(run: Run) -> None:
    def refuse(request: Request) -> str:
        number = short(digest_text(str(request)))
        return f"[QUESTION]What of {number}?[/QUESTION][ANSWER]I cannot answer that question.[/ANSWER]"

    with pytest.raises(ServiceError, match="by block 'refusal'"):
        run(teacher=ScriptedModel(refuse), flow=load_flow("simple"))


@pytest.mark.parametrize("kind", ["knowledge", "grounded", "freeform"])
def test_what_is_made_by_rule_is_left_as_it_is(
    make_job: Callable[..., Job], make_leaf: Callable[..., Leaf], kind: Kind
) -> None:
    fields = {"flow": load_flow("extractive"), "scale_factor": 20}
    if kind != "knowledge":
        fields |= {"leaves": [make_leaf("skills/x", kind)], "chunks": []}
    plain, strict = generate(make_job(**fields)), generate(make_job(**fields, near=0.2))
    assert (plain.samples, plain.rejected, plain.card) == (strict.samples, strict.rejected, strict.card)
    assert plain.card["types"]["written by"] == {"rule": len(plain.samples)}
