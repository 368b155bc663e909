"""Candidates for drafts: facts by rule, and whatever form a teacher's answer has."""

from __future__ import annotations

import asyncio
import json

import pytest

from ilab.models.chat import Request
from ilab.sdg.draft_pairs import by_rule, by_teacher, read_pairs
from ilab.testing.scripted import ScriptedModel

PASSAGE = (
    "Dunmarrow Station is a coastal signal station on the island of Vellsay. The architect of Dunmarrow Station was "
    "Agnes Torvald. The master mason of the station was Piers Oldroyd. The tower is 34 metres tall. The station sent "
    "the first signal in 1880."
)
PAIRS = [("How tall is it?", "34 metres"), ("Who drew it?", "Agnes")]
TAGGED = "".join(f"[QUESTION]\n{question}\n[/QUESTION]\n[ANSWER]\n{answer}\n[/ANSWER]\n" for question, answer in PAIRS)
OBJECTS = [{"question": question, "answer": answer} for question, answer in PAIRS]


def test_rules_ask_whole_questions_about_different_facts() -> None:
    found = by_rule(PASSAGE, ("Dunmarrow Station",))
    assert ("What was the architect of Dunmarrow Station?", "Agnes Torvald") in found
    assert all(question.endswith("?") and "____" not in question for question, _ in found)
    assert all(answer in PASSAGE for _, answer in found)
    assert len({answer for _, answer in found}) == len(found)
    # The rules may lose the mason on the way, and would ask what the station was.
    assert all("mason" in question for question, answer in found if answer == "Piers Oldroyd")


def test_rules_take_one_fact_of_each_sentence_first() -> None:
    found = by_rule(PASSAGE, ())
    first = [next(at for at, part in enumerate(PASSAGE.split(". ")) if answer in part) for _, answer in found]
    turns = len(set(first))
    assert sorted(first[:turns]) == sorted(set(first))


@pytest.mark.parametrize(
    "answer",
    [
        TAGGED,
        f"Sure!\n\n{TAGGED}\nI hope this helps.",
        f"<think>[QUESTION]no[/QUESTION]</think>{TAGGED}",
        "**Question 1:** How tall is it?\n**Answer:** 34 metres\n\n**Question 2:** Who drew it?\n**Answer:** Agnes",
        json.dumps(OBJECTS),
        f"Here you are:\n```json\n{json.dumps(OBJECTS, indent=2)}\n```\nDone [1].",
        json.dumps({"questions": OBJECTS}),
        "\n".join(json.dumps(one) for one in OBJECTS),
        f"<think>[1]</think>{json.dumps([{'Question': one['question'], 'ANSWER': one['answer']} for one in OBJECTS])}",
    ],
)
def test_answers_are_read_in_every_form(answer: str) -> None:
    assert read_pairs(answer) == PAIRS


def test_a_torn_answer_gives_what_is_whole() -> None:
    assert read_pairs(TAGGED[: -len("s\n[/ANSWER]\n")], truncated=True) == PAIRS[:1]
    assert read_pairs(json.dumps(OBJECTS)[:-10], truncated=True) == PAIRS[:1]


@pytest.mark.parametrize(
    "answer", ["", "I would rather not.", "[[[[", "[" * 5000, '{"question": 5}', '{"question": "a?", "answer": true}']
)
def test_what_holds_no_pair_gives_none(answer: str) -> None:
    assert read_pairs(answer) == []


def test_deep_json_is_no_trap() -> None:
    assert read_pairs("[" * 900 + json.dumps(OBJECTS) + "]" * 900) == []


def test_numbers_are_answers() -> None:
    assert read_pairs('{"question": "In which year?", "answer": 1880}') == [("In which year?", "1880")]


def test_a_teacher_is_asked_again_once_when_its_answer_cannot_be_read() -> None:
    asked: list[Request] = []

    def answer(request: Request) -> str:
        asked.append(request)
        return "No." if len(asked) == 1 else TAGGED

    found = asyncio.run(by_teacher(ScriptedModel(answer), "t", PASSAGE, ("A", "B"), 4))
    assert found == PAIRS
    first, second = (request.sampling for request in asked)
    assert (first.temperature, first.seed) == (0.0, None)
    assert second.temperature > 0
    assert second.seed is not None
    prompt = asked[0].messages[0].content
    assert PASSAGE in prompt
    assert "Section: A > B" in prompt
    assert "Write 4 questions" in prompt


def test_a_teacher_that_says_nothing_gives_none() -> None:
    model = ScriptedModel(lambda request: "No.")
    assert asyncio.run(by_teacher(model, "t", "{{ passage }} {% raw %}", (), 3)) == []
    assert len(model.requests) == 2
    assert "{{ passage }} {% raw %}" in model.requests[0].messages[0].content
