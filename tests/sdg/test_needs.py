"""What blocks need of an endpoint, how they ask for it, and what becomes of a prompt that is too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ilab.config import Endpoint, Where
from ilab.core.events import Bus, Event
from ilab.core.memo import Memo
from ilab.errors import ServiceError
from ilab.models.ability import Need
from ilab.models.cached import Cached
from ilab.models.chat import JSON_OBJECT
from ilab.sdg.block import Block, Context, Row
from ilab.sdg.blocks.judge import Judge
from ilab.sdg.blocks.llm import Llm
from ilab.sdg.blocks.logprobs import Logprobs
from ilab.sdg.blocks.messages import Messages
from ilab.sdg.flow import load_file, load_flow
from ilab.sdg.generate import Job, generate
from ilab.sdg.needs import needs_of, verifier_needs
from ilab.sdg.rows import RowJob, run_rows
from ilab.sdg.teachers import open_teacher
from ilab.testing.scripted import ScriptedModel
from ilab.testing.teacher import Features, Teacher, serve

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}
FLOW = """
name: wants
version: 1
branches:
  pairs:
    input: chunk
    blocks:
      - {type: llm, name: write, prompt: say.txt, output: text}
      - {type: conversation, turns: [{role: user, content: "{{ text }}"}]}
      - {type: messages, name: draws, draws: 2 x scale, output: several}
      - {type: logprobs, name: likely, prompt: say.txt, output: said, model: scorer}
      - {type: llm, name: other, prompt: say.txt, output: more, model: third}
"""


@pytest.fixture
def wants(tmp_path: Path) -> Path:
    (tmp_path / "wants.yaml").write_text(FLOW)
    (tmp_path / "say.txt").write_text("Say {{ document }}")
    return tmp_path / "wants.yaml"


def test_the_needs_of_a_flow_by_model_block_and_line(wants: Path) -> None:
    flow = load_file(wants)
    assert needs_of([flow], "teacher", 1) == {
        "teacher": [Need("n", "draws", f"{wants}:10")],
        "scorer": [Need("logprobs", "likely", f"{wants}:11")],
        "third": [Need(None, "other", f"{wants}:12")],
    }
    assert verifier_needs([flow], "second", 1) == {}
    for name in ("simple", "full", "llama", "eval", "extractive"):
        assert needs_of(load_flow(name).flows.values(), "teacher", 30) == {"teacher": []}


@pytest.mark.parametrize(
    ("block", "needed"),
    [
        (Messages(name="m", draws=1), set()),
        (Messages(name="m", draws="scale"), {"n"}),
        (Llm(name="w", prompt="Say", plain=True), {"completions"}),
        (Llm(name="w", prompt="Say", keys={"answer": "answer"}, answer_schema=SCHEMA), {"json_schema"}),
        (Llm(name="w", prompt="Say", keys={"answer": "answer"}, answer_schema={}), {"json_object"}),
        (Judge(name="j", prompt="Say", output="verdict", choices=("YES", "NO")), {"choice"}),
        (Logprobs(name="p", prompt="Say", plain=True), {"logprobs", "completions"}),
        (Judge(name="j", prompt="Say", output="verdict"), set()),
    ],
)
def test_what_each_block_needs(block: Block, needed: set[str]) -> None:
    assert block.abilities(2) == needed


def test_what_contradicts_itself_is_told_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match="to a schema or to choices"):
        Llm(name="w", prompt="Say", answer_schema={}, choices=("a", "b"))
    with pytest.raises(ValidationError, match="no system message"):
        Llm(name="w", prompt="Say", system="Be brief", plain=True)


def test_how_it_is_asked_for(memos: Callable[[str], Memo]) -> None:
    model = ScriptedModel(lambda request: '{"answer": "a"}' if request.sampling.response_format else "YES")
    context = Context(memos("rows"), 42, 2, Cached(model, memos("teacher")), "m")
    blocks = [
        Llm(name="first try", prompt="Say", keys={"answer": "answer"}, answer_schema=SCHEMA),
        Llm(name="any", prompt="Say", keys={"answer": "answer"}, answer_schema={}),
        Judge(name="j", prompt="Say", output="verdict", choices=("YES", "NO")),
        Llm(name="go-on", prompt="Once upon", plain=True),
    ]
    for block in blocks:
        assert len(asyncio.run(block(Row("k#1", "k", {}), context))) == 1
    schema, any_json, choice, plain = model.requests
    assert schema.sampling.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    assert any_json.sampling.response_format == JSON_OBJECT
    assert choice.sampling.choices == ("YES", "NO")
    assert (plain.prompt, plain.messages) == ("Once upon", ())


def test_blocks_that_ask_for_nothing_special_are_what_they_were() -> None:
    """Fields that are not used are no part of a flow's identity, but how answers are asked for again is."""
    told = Llm(name="w", prompt="Say").identity()
    assert told.keys() == {"type", "version", "name", "tags", "temperature", "max_tokens", "stop", "prompt", "system"}
    assert told["version"] == 2


@pytest.fixture
def run(
    wants: Path, memos_in: Callable[[Path], Callable[[str], Memo]], tmp_path: Path
) -> Callable[[Teacher], tuple[Any, list[str]]]:
    """The rows that come of one, and what was told."""

    def go(teacher: Teacher) -> tuple[Any, list[str]]:
        events: list[Event] = []
        flow, emit = load_file(wants), Bus([events.append]).for_step("flow")
        where = Where(teacher=Endpoint(url=teacher.url), cache=str(tmp_path / "cache"))
        job = RowJob(
            flow=flow,
            rows=[Row(f"k#{n}", "k", {"document": f"text {n}"}) for n in range(3)],
            scale_factor=1,
            seed=42,
            quality=0.7,
            memo=memos_in(tmp_path / "memo"),
            emit=emit,
            stopping=lambda: False,
            teacher=open_teacher(where, [flow], "teacher", 1, emit),
            teacher_name="teacher",
        )
        result, _ = run_rows(job)
        return result, [event.data["note"] for event in events if event.kind == "metric"]

    return go


def test_a_late_blocks_need_ends_the_run_before_the_first_paid_call(
    run: Callable[[Teacher], tuple[Any, list[str]]],
) -> None:
    models = ("teacher", "scorer", "third")
    with serve(lambda body: "hm", models=models, features=Features(logprobs="refused")) as teacher:
        with pytest.raises(ServiceError) as caught:
            run(teacher)
        assert "wants.yaml:11: block 'likely' needs log probabilities: HTTP 400" in caught.value.message
        assert not [call for call in teacher.calls if "Say" in str(call)]


def test_n_is_replaced_by_calls_with_seeds_of_their_own_and_told_once(
    run: Callable[[Teacher], tuple[Any, list[str]]],
) -> None:
    models = ("teacher", "scorer", "third")
    script = lambda body: f"drawn with {body.get('seed')}"  # noqa: E731
    with serve(script, models=models, features=Features(n="refused")) as teacher:
        result, told = run(teacher)
        calls = len(teacher.calls)
        again, silent = run(teacher)
        assert len(teacher.calls) == calls
    assert len(told) == 1 and "teacher does not give several choices in one call (for 'draws')" in told[0]
    assert len(result.rows) == 3 and silent == []
    for row in result.rows:
        first, second = row.columns["several"]
        assert first != second
    assert again.rows == [row.same(made.trace) for row, made in zip(result.rows, again.rows, strict=True)]


def test_a_row_whose_prompt_is_too_long_is_refused_for_nothing(
    make_job: Callable[..., Job], make_chunk: Callable[..., Any], make_passage: Callable[..., str], tmp_path: Path
) -> None:
    path = "knowledge/towers"
    chunks = [make_chunk(path, make_passage(1)), make_chunk(path, make_passage(2, sentences=200))]
    events = Bus().for_step("generate")
    with serve(features=Features(context_length=2600)) as teacher:
        where = Where(teacher=Endpoint(url=teacher.url), cache=str(tmp_path))
        flow = load_flow("simple")
        client = open_teacher(where, flow.flows.values(), "teacher", 3, events)
        made = generate(make_job(chunks=chunks, flow=flow, teacher=client))
    long = [entry for entry in made.rejected if chunks[1].id in entry.id]
    assert {entry.reason.partition(":")[0] for entry in long} == {"the prompt is too long for the model"}
    assert "do not fit into 2600" in long[0].reason
    assert {sample.origin.chunk for sample in made.samples} == {chunks[0].id}
    assert made.counts["calls"] == len(teacher.calls) > 0
    assert not [call for call in teacher.calls if "number 2" in call["messages"][-1]["content"]]
