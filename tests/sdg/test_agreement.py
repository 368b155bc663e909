"""A second teacher answers the same question: rows on which the two differ are refused with both answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ilab.config import Endpoint, Where
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.errors import InputError, ServiceError
from ilab.models.cached import Cached
from ilab.models.openai import OpenAIModel
from ilab.sdg.block import Context, Reject, Row
from ilab.sdg.blocks.agreement import Agreement, alike
from ilab.sdg.flow import FlowSet, load_flow
from ilab.sdg.generate import Job, generate
from ilab.sdg.teachers import open_verifier
from ilab.testing.scripted import ScriptedModel
from ilab.testing.teacher import Teacher, serve

ASK = "Answer from the passage.\n\n{{ document }}\n\n{{ question }}\n[ANSWER]the answer[/ANSWER]"
SAME = "Do these say the same, YES or NO?\n1. {{ answer }}\n2. {{ verifier_answer }}"
COLUMNS = {"document": "The lamp burns oil.", "question": "What does it burn?", "answer": "oil"}
FLOW = """
name: second
version: 1
branches:
  pairs:
    input: chunk
    blocks:
      - type: repeat
      - {type: llm, name: write, prompt: write.txt, temperature: 0.7, tags: {question: QUESTION, answer: ANSWER}}
      - {type: agreement, prompt: answer.txt, compare: same.txt, tags: {said: ANSWER}}
"""
WRITE = "[PASSAGE]{{ document }}[/PASSAGE]"


def test_answers_are_alike_by_words_numbers_and_negations() -> None:
    assert alike("The 14 locks.", "the 14 LOCKS") == 1.0
    assert alike("It has 14 locks", "It has 15 locks") == 0.0
    assert alike("1,400 metres", "1400 metres") == pytest.approx(0.5)  # no other number, but written otherwise
    assert alike("It is allowed", "It is not allowed") == 0.0
    assert alike("a b c d", "a b c") == pytest.approx(2 * 3 / 7)
    assert alike("oil", "water") == 0.0


@pytest.fixture
def ask(memos: Callable[[str], Memo]) -> Callable[..., tuple[Any, list[str]]]:
    def run(answers: list[str], **fields: Any) -> tuple[Any, list[str]]:
        """The row or the refusal, and the prompts that the second teacher got."""
        given = iter(answers)
        second = ScriptedModel(lambda request: next(given))
        first = ScriptedModel(lambda request: pytest.fail("the first teacher is not asked"))
        context = Context(
            memos("rows"),
            42,
            2,
            Cached(first, memos("teacher")),
            "one",
            verifier=Cached(second, memos("teacher")),
            verifier_model="two",
        )
        block = Agreement(name="agree", prompt=ASK, tags={"said": "ANSWER"}, **fields)
        try:
            [made] = asyncio.run(block(Row("k#1", "k", COLUMNS), context))
        except Reject as refusal:
            made = refusal
        assert {request.model for request in second.requests} == {"two"}
        return made, [request.messages[-1].content for request in second.requests]

    return run


def test_the_same_answer_lets_the_row_pass_unchanged(ask: Callable[..., tuple[Any, list[str]]]) -> None:
    row, asked = ask(["[ANSWER]Oil.[/ANSWER]"], compare=SAME)
    assert (row.id, row.columns) == ("k#1", COLUMNS)
    [verdict] = row.trace.verdicts
    assert (verdict.block, verdict.accepted, verdict.score) == ("agree", True, 1.0)
    assert verdict.reason == "'oil' | two: 'Oil.' (1.00 alike)"
    assert len(asked) == 1 and "The lamp burns oil." in asked[0]
    assert row.trace.teacher is None  # who wrote the answer is not whoever looked at it


def test_another_answer_refuses_the_row_and_shows_both(ask: Callable[..., tuple[Any, list[str]]]) -> None:
    refusal, _ = ask(["[ANSWER]paraffin[/ANSWER]"])
    assert refusal.reason == "a second teacher answers otherwise: 'oil' | two: 'paraffin' (0.00 alike)"
    assert refusal.shown == {"verifier_answer": "paraffin", "score": 0.0}


@pytest.mark.parametrize(("said", "passes"), [("Yes, they do.", True), ("**NO**", False)])
def test_words_that_do_not_decide_are_judged(
    ask: Callable[..., tuple[Any, list[str]]], said: str, passes: bool
) -> None:
    made, asked = ask(["[ANSWER]lamp oil, as the passage says[/ANSWER]", said], compare=SAME)
    assert asked[1] == "Do these say the same, YES or NO?\n1. oil\n2. lamp oil, as the passage says"
    assert isinstance(made, Row) is passes
    if passes:
        assert "said to mean the same" in made.trace.verdicts[0].reason
    else:
        assert made.reason.endswith("(said to mean something else)")


def test_what_is_configured_wrongly_is_told_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match="one column is read"):
        Agreement(name="a", prompt=ASK, tags={"x": "X", "y": "Y"})
    with pytest.raises(ValidationError, match="sdg_verifier_model"):
        Agreement(name="a", prompt=ASK, model="third")
    assert Agreement(name="a", prompt=ASK, compare=SAME).needs() == {"document", "question", "answer"}


@pytest.fixture
def second(tmp_path: Path) -> FlowSet:
    folder = tmp_path / "second"
    folder.mkdir()
    for name, text in {"knowledge.yaml": FLOW, "write.txt": WRITE, "answer.txt": ASK, "same.txt": SAME}.items():
        (folder / name).write_text(text)
    return load_flow(folder)


def contradict(body: dict[str, Any]) -> str:
    """Agrees with sentences about lamp 1 and 2, as the first teacher wrote them."""
    prompt = body["messages"][-1]["content"]
    if prompt.startswith("Do these"):
        return "NO"
    lamp = next((n for n in (1, 2) if "What is known of The tower number 1 has" in prompt and f"lamp {n}" in prompt), 0)
    sentence = f"The tower number 1 has the lamp {lamp} of colour {31 + lamp}."
    return f"[ANSWER]{sentence}[/ANSWER]"


def test_two_endpoints_make_samples_together(second: FlowSet, make_job: Callable[..., Job], tmp_path: Path) -> None:
    def run() -> tuple[Any, Teacher, Teacher]:
        with serve() as one, serve(contradict, models=("judge",)) as two:
            where = Where(verifier=Endpoint(url=two.url), cache=str(tmp_path))
            emit = Bus().for_step("generate")
            made = generate(
                make_job(
                    flow=second,
                    chunks=make_job().chunks[:1],
                    scale_factor=8,
                    teacher=OpenAIModel(Endpoint(url=one.url)),
                    verifier=open_verifier(where, second.flows.values(), "judge", 8, emit),
                    verifier_name="judge",
                )
            )
        return made, one, two

    made, one, two = run()
    assert made.samples and made.rejected
    assert {entry.block for entry in made.rejected} <= {"agreement", "dedup"}
    assert made.counts["calls"] == len(one.calls) + len(two.calls)
    assert {call["model"] for call in two.calls} == {"judge"}
    assert {sample.origin.teacher for sample in made.samples} == {"teacher"}
    again, one, two = run()
    assert again.samples == made.samples and one.calls == two.calls == []


def test_without_a_second_teacher_the_flow_says_which_block_asks_one(second: FlowSet) -> None:
    emit = Bus().for_step("generate")
    with pytest.raises(InputError) as caught:
        open_verifier(Where(), second.flows.values(), "", 1, emit)
    assert "block 'agreement' asks a second teacher" in caught.value.message
    assert caught.value.where.endswith("knowledge.yaml:10")
    assert open_verifier(Where(), load_flow("full").flows.values(), "", 1, emit) is None


def test_a_second_teacher_that_is_not_served_is_refused_by_name(
    second: FlowSet, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    with serve() as one, serve(models=("other",)) as two:
        where = Where(verifier=Endpoint(url=two.url), cache=str(tmp_path))
        verifier = open_verifier(where, second.flows.values(), "judge", 3, Bus().for_step("generate"))
        job = replace(
            make_job(flow=second, verifier=verifier, verifier_name="judge"), teacher=OpenAIModel(Endpoint(url=one.url))
        )
        with pytest.raises(ServiceError, match="'judge'; asked for by 'agreement'"):
            generate(job)
    assert two.calls == []
