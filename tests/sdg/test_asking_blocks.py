"""Blocks that ask the teacher: prompts chosen per row, whole conversations, judges; and how answers are read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ilab.core.memo import Memo
from ilab.models.cached import Cached
from ilab.models.chat import Choice, Reply, Request
from ilab.sdg.answer import AnswerForm
from ilab.sdg.block import Block, Context, Reject, Row
from ilab.sdg.blocks.conditional_llm import ConditionalLlm
from ilab.sdg.blocks.judge import Judge
from ilab.sdg.blocks.llm import Llm
from ilab.sdg.blocks.messages import Messages
from ilab.sdg.parse import parse_delimited, parse_json, parse_pattern
from ilab.testing.scripted import ScriptedModel

VERDICT = {"explanation": "WHY", "verdict": "VERDICT"}


@pytest.fixture
def asked(memos: Callable[[str], Memo]) -> Callable[..., tuple[Context, ScriptedModel]]:
    def make(*answers: str, **fields: Any) -> tuple[Context, ScriptedModel]:
        given: Iterable[str] = iter(answers)
        model = ScriptedModel(lambda request: next(given))  # type: ignore[call-overload]
        return Context(memos("rows"), 42, 2, Cached(model, memos("teacher")), "m", **fields), model

    return make


def run(block: Block, columns: dict[str, Any], context: Context, identity: str = "k#1") -> list[Row]:
    return asyncio.run(block(Row(identity, "k", columns), context))


# -- prompts ----------------------------------------------------------------------------------------------------


def test_the_prompt_is_chosen_by_the_row(asked: Callable[..., tuple[Context, ScriptedModel]]) -> None:
    context, model = asked("first", "second")
    block = ConditionalLlm(
        name="w", column="kind", prompts={"short": "Say {{ x }}", "2": "Explain {{ y }}"}, output="o"
    )
    assert block.needs() == {"kind", "x", "y"}
    rows = [run(block, {"kind": kind, "x": "a", "y": "b"}, context)[0] for kind in ("short", 2)]
    assert [request.messages[0].content for request in model.requests] == ["Say a", "Explain b"]
    assert [row.columns["o"] for row in rows] == ["first", "second"]
    with pytest.raises(Reject, match=None) as caught:
        run(block, {"kind": "long", "x": "", "y": ""}, context)
    assert caught.value.reason == "no prompt for this row: kind = 'long'"
    assert len(model.requests) == 2


def test_a_block_may_name_its_own_model_and_seed(asked: Callable[..., tuple[Context, ScriptedModel]]) -> None:
    context, model = asked("a", "b", "c")
    for fields in ({}, {"seed": 7}, {"model": "judge"}):
        [row] = run(Llm(name="w", prompt="Say", temperature=0.5, **fields), {}, context)
    assert [request.model for request in model.requests] == ["m", "m", "judge"]
    seeds = [request.sampling.seed for request in model.requests]
    assert seeds[0] == seeds[2] != seeds[1]
    assert row.trace.teacher == "judge"


def test_a_row_that_cannot_fill_the_prompt_costs_nothing(asked: Callable[..., tuple[Context, ScriptedModel]]) -> None:
    context, model = asked()
    with pytest.raises(Reject) as caught:
        run(Llm(name="w", prompt="{{ pairs[3].question }}"), {"pairs": []}, context)
    assert caught.value.reason.startswith("the prompt cannot be filled in")
    assert model.requests == []


def test_conversations_are_sent_whole(asked: Callable[..., tuple[Context, ScriptedModel]]) -> None:
    context, model = asked("Hello.", "[A]one[/A]")
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert run(Messages(name="m", output="reply"), {"messages": chat}, context)[0].columns["reply"] == "Hello."
    assert [message.model_dump() for message in model.requests[0].messages] == chat
    [row] = run(Messages(name="n", messages="c", tags={"answer": "A"}), {"c": chat}, context)
    assert row.columns["answer"] == "one"
    for wrong in ("Hi", [], [{"role": "robot", "content": ""}], [{"role": "user"}], ["Hi"], 3):
        with pytest.raises(Reject, match="not a conversation"):
            run(Messages(name="m"), {"messages": wrong}, context)
    assert len(model.requests) == 2


def test_several_draws_of_a_conversation_are_one_request(memos: Callable[[str], Memo]) -> None:
    requests: list[Request] = []

    class Drawing:
        async def complete(self, request: Request) -> Reply:
            requests.append(request)
            return Reply(tuple(Choice(f"text {n}") for n in range(request.sampling.n)))

        async def close(self) -> None:
            """Nothing is held open."""

    context = Context(memos("rows"), 42, 3, Cached(Drawing(), memos("teacher")), "m")
    block = Messages(name="m", output="replies", draws="scale")
    [row] = run(block, {"messages": [{"role": "user", "content": "Hi"}]}, context)
    assert row.columns["replies"] == ["text 0", "text 1", "text 2"]
    [request] = requests
    assert (request.sampling.n, request.sampling.temperature) == (3, 0.7)
    assert request.sampling.seed is not None
    with pytest.raises(ValidationError, match="draws are kept whole"):
        Messages(name="m", draws=2, tags={"a": "A"})


# -- judges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "said", "score"),
    [
        ((1, 3), "2", 0.5),
        ((1, 3), "Score: 3 of 3", 1.0),
        ((0, 2), "1.5", 0.75),
        ((1, 3), "4", None),
        ((1, 3), "good", None),
        ({"YES": 1, "NO": 0}, "**Yes.**", 1.0),
        ({"YES": 1, "NO": 0}, "No, although the text says yes", 0.0),
        ({"YES": 1, "NO": 0}, "The answer is NO", 0.0),
        ({"YES": 1, "NO": 0}, "It is not known", None),
        ({"YES": 1, "NO": 0}, "between yes and no", None),
        ({"good": 1, "very good": 0.9}, "Very good!", 0.9),
    ],
)
def test_verdicts_are_scored(scale: Any, said: str, score: float | None) -> None:
    assert Judge(name="j", prompt="?", tags=VERDICT, scale=scale).score(said) == score


def test_a_judge_lets_pass_refuses_and_explains(asked: Callable[..., tuple[Context, ScriptedModel]]) -> None:
    answers = [f"[WHY]reason {n}[/WHY][VERDICT]{n}[/VERDICT]" for n in (3, 2, 2)]
    context, model = asked(*answers, quality=0.7)
    block = Judge(name="j", prompt="Judge {{ q }}", tags=VERDICT, scale=(1, 3), explanation="explanation")
    [kept] = run(block, {"q": "a"}, context)
    assert (kept.id, kept.columns) == ("k#1", {"q": "a"})
    [verdict] = kept.trace.verdicts
    assert (verdict.accepted, verdict.score, verdict.reason) == (True, 1.0, "3: reason 3")
    assert kept.trace.usage is not None
    with pytest.raises(Reject) as caught:
        run(block, {"q": "b"}, context)
    assert caught.value.reason == "judged too low: 0.50 is below 0.70: 2: reason 2"
    assert caught.value.shown == {"verdict": "2", "score": 0.5}
    lenient = block.model_copy(update={"threshold": 0.5})
    assert run(lenient, {"q": "c"}, context)
    assert len(model.requests) == 3


def test_a_verdict_off_the_scale_is_asked_for_again(asked: Callable[..., tuple[Context, ScriptedModel]]) -> None:
    off = "[WHY]x[/WHY][VERDICT]perhaps[/VERDICT]"
    context, model = asked(off, "[WHY]x[/WHY][VERDICT]YES[/VERDICT]", off, off, off)
    block = Judge(name="j", prompt="Judge {{ q }}", tags=VERDICT)
    assert run(block, {"q": "a"}, context)
    assert len(model.requests) == 2
    with pytest.raises(Reject) as caught:
        run(block, {"q": "b"}, context)
    assert caught.value.reason.startswith("the answer cannot be read: asked 3 times")
    assert caught.value.shown["raw"] == off


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": (3, 1)},
        {"scale": {"GOOD": 2.0}},
        {"scale": {}},
        {"verdict": "score"},
        {"explanation": "because"},
        {"threshold": 1.5},
    ],
)
def test_judges_that_cannot_score_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Judge(name="j", prompt="?", **{"tags": VERDICT, **fields})


# -- answers ----------------------------------------------------------------------------------------------------

PAIRS = {"question": ("[Q]", "[END Q]"), "answer": ("[A]", "[END A]")}


def reference(text: str, delimiters: dict[str, tuple[str, str]]) -> list[dict[str, str]]:
    """The rule of instructlab-sdg: all matches for each column, put together as far as the shortest list reaches."""
    found = {
        column: [match.strip() for match in re.findall(re.escape(start) + r"(.*?)" + re.escape(end), text, re.DOTALL)]
        for column, (start, end) in delimiters.items()
    }
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=False)]


@given(
    st.lists(st.tuples(*[st.text("ab?\n é", min_size=1).filter(str.strip)] * 2), max_size=4),
    st.text("xy \n", max_size=5),
    st.booleans(),
)
def test_delimited_answers_are_read_as_upstream_reads_them(
    pairs: list[tuple[str, str]], between: str, apart: bool
) -> None:
    questions = [f"[Q]{question}[END Q]" for question, _ in pairs]
    answers = [f"[A]{answer}[END A]" for _, answer in pairs]
    parts = (
        [*questions, *answers] if apart else [part for both in zip(questions, answers, strict=True) for part in both]
    )
    text = between.join(["Sure:", *parts, "Bye"])
    assert parse_delimited(text, PAIRS) == reference(text, PAIRS)
    assert len(reference(text, PAIRS)) == len(pairs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Q]one?[A]1[Q]two?[A]2", [("one?", "1"), ("two?", "2")]),  # no closing delimiter at all
        ("[q]one?[end q][a]1[End A]", [("one?", "1")]),
        ("[Q]one?[END Q][Q]two?[END Q][A]2[END A]", [("two?", "2")]),  # upstream pairs "one?" with "2"
        ("[Q]one?[END Q][A][END A]", []),
        ("<think>[Q]no?[END Q][A]0[END A]</think>[Q]yes?[END Q][A]1[END A]", [("yes?", "1")]),
        ("nothing", []),
    ],
)
def test_delimited_answers_are_read_tolerantly(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(r["question"], r["answer"]) for r in parse_delimited(text, PAIRS)] == expected


def test_a_cut_off_value_is_not_trusted() -> None:
    text = "[Q]one?[END Q][A]1[END A][Q]two?[END Q][A]because the"
    assert len(parse_delimited(text, PAIRS)) == 2
    assert parse_delimited(text, PAIRS, truncated=True) == [{"question": "one?", "answer": "1"}]


def test_empty_delimiters_mean_the_whole_text() -> None:
    assert parse_delimited(" all of it \n", {"output": ("", "")}) == [{"output": "all of it"}]
    assert parse_delimited("all", {"output": ("", "")}, truncated=True) == []


def test_patterns_and_json() -> None:
    pattern = r"Q:\s*(.*?)\s*A:\s*(.*?)\s*(?=Q:|$)"
    text = "Q: one?\nA: first [END]\nQ: two? A: second\nline"
    assert AnswerForm(pattern=pattern, columns=("q", "a"), cleanup=("[END]",)).records(text, truncated=False) == [
        {"q": "one?", "a": "first"},
        {"q": "two?", "a": "second\nline"},
    ]
    assert parse_pattern("a b", r"\w", ("letter",)) == [{"letter": "a"}, {"letter": "b"}]
    keys = {"q": "question", "n": "count"}
    answer = 'Here [you] are:\n```json\n[{"question": " one? ", "count": 0}, {"question": ""}]\n``` {"question": "x", "count": [1]}'
    assert parse_json(answer, keys) == [{"q": "one?", "n": 0}, {"q": "x", "n": [1]}]
    assert parse_json('{"question": "one?", "count": [1, 2,],}', keys) == [{"q": "one?", "n": [1, 2]}]
    assert parse_json('{"question": "cut of', keys) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": {"a": "A"}, "keys": {"a": "a"}},
        {"pattern": "(a"},
        {"pattern": "(a)"},
        {"pattern": "(a)", "columns": ("x", "y")},
        {"columns": ("x",)},
        {"delimiters": {"a": ("[A]", ""), "b": ("[a]", "")}},
    ],
)
def test_forms_that_cannot_work_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AnswerForm(**fields)


def test_an_answer_in_any_form_becomes_columns(asked: Callable[..., tuple[Context, ScriptedModel]]) -> None:
    forms: list[tuple[dict[str, Any], str]] = [
        ({"tags": {"a": "X"}}, "[X]v[/X]"),
        ({"delimiters": {"a": ("<<", ">>")}}, "well: <<v>>"),
        ({"pattern": r"= (\w)", "columns": ("a",)}, "a = v"),
        ({"keys": {"a": "value"}}, '{"value": "v"}'),
        ({"output": "a"}, "v"),
    ]
    for number, (form, answer) in enumerate(forms):
        context, model = asked("", answer)  # the first cannot be read
        block = Llm(name="w", prompt=f"Say {number}", **form)
        [row] = run(block, {}, context)
        assert (row.columns, block.adds(), len(model.requests)) == ({"a": "v"}, {"a"}, 2)


class CutOff(ScriptedModel):
    """Answers with so many records a call; all but those in ``whole`` (calls from 0) are cut off behind them."""

    def __init__(self, counts: list[int], whole: set[int]) -> None:
        super().__init__(lambda request: "")
        self._counts, self._whole = counts, whole

    async def complete(self, request: Request) -> Reply:
        call = len(self.requests)
        reply = await super().complete(request)
        records = "".join(f"[Q]q{call}.{n}[/Q][A]a[/A]" for n in range(self._counts[call]))
        choice = Choice(f"{records}[Q]half", "stop" if call in self._whole else "length")
        return Reply((choice,), reply.usage, reply.reported)


@pytest.mark.parametrize(
    ("counts", "whole", "at_most", "asked", "kept"),
    [
        ([2, 3, 1], set(), None, 3, ["q1.0", "q1.1", "q1.2"]),  # never whole: the fullest of all
        ([2, 3], {1}, None, 2, ["q1.0", "q1.1", "q1.2"]),
        ([3, 0, 0], set(), None, 3, ["q0.0", "q0.1", "q0.2"]),
        ([1, 3], {1}, "1", 1, ["q0.0"]),  # as many as the block keeps are there
    ],
)
def test_a_cut_off_answer_is_asked_for_again_and_the_fullest_counts(
    memos: Callable[[str], Memo], counts: list[int], whole: set[int], at_most: str | None, asked: int, kept: list[str]
) -> None:
    model = CutOff(counts, whole)
    context = Context(memos("rows"), 42, 2, Cached(model, memos("teacher")), "m")
    block = Llm(name="write", prompt="Ask", tags={"question": "Q", "answer": "A"}, temperature=0.7, at_most=at_most)
    rows = asyncio.run(block(Row("k#1", "k", {}), context))
    assert [row.columns["question"] for row in rows] == kept
    assert len(model.requests) == asked
    assert rows[0].trace.usage == {"prompt_tokens": asked, "completion_tokens": 0}
