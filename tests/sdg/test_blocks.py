"""Blocks one by one, the cut after them, and the offline flow as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ilab.core.events import Bus, Event
from ilab.core.memo import Memo
from ilab.data import Chunk, Item, Leaf
from ilab.errors import InputError, InputErrors, Stopped
from ilab.models.cached import Cached
from ilab.models.chat import Request
from ilab.plugins import load, names
from ilab.sdg.block import Block, Context, Reject, Row, resolve_count
from ilab.sdg.blocks.filter import Filter
from ilab.sdg.blocks.llm import Llm
from ilab.sdg.blocks.passage import Passage
from ilab.sdg.flow import load_flow
from ilab.sdg.generate import Job, expected, generate, starts_of
from ilab.testing.scripted import ScriptedModel

DOCUMENT = """\
The lens of the Farrow lamp is made of quartz. The keeper Tobias Quill built the Farrow lamp in 1911.

**gallen**: a small brass key that winds the clock.
"""


@pytest.fixture
def context(memos: Callable[[str], Memo]) -> Context:
    return Context(rows=memos("rows"), seed=42, scale=2)


def run(block: Block, row: Row, context: Context) -> list[Row]:
    return asyncio.run(block(row, context))


@pytest.mark.parametrize(
    ("operation", "value", "found", "holds"),
    [
        ("eq", "YES", "YES", True),
        ("eq", "YES", " **Yes.** ", True),
        ("eq", "YES", "No", False),
        ("ne", "NO", "no!", False),
        ("ge", 2, "Score: 2", True),
        ("ge", 2, "Score: 1.5 of 3", False),
        ("gt", 0.7, 0.71, True),
        ("lt", 0, "-3 degrees", True),
        ("in", ["yes", "maybe"], "Maybe", True),
        ("in", [1, 2], "3", False),
        ("contains", "lamp", "The LAMP is lit", True),
    ],
)
def test_filter(context: Context, operation: Any, value: Any, found: Any, holds: bool) -> None:
    block = Filter(name="judge", column="score", operation=operation, value=value)
    row = Row("k/1", "k", {"score": found})
    if holds:
        [kept] = run(block, row, context)
        assert (kept.id, kept.trace.verdicts[0].block) == ("k/1", "judge")
        return
    with pytest.raises(Reject) as caught:
        run(block, row, context)
    assert repr(str(found)) in caught.value.reason


def test_filter_without_a_number_is_unreadable_and_misuse_is_refused(context: Context) -> None:
    with pytest.raises(Reject, match="unreadable"):
        run(Filter(name="f", column="s", operation="ge", value=1), Row("k", "k", {"s": "good"}), context)
    for operation, value in (("in", 1), ("ge", "high"), ("eq", [1])):
        with pytest.raises(ValueError, match="takes"):
            Filter(name="f", column="s", operation=operation, value=value)


def test_passage_rows_are_paragraphs_without_headings(context: Context) -> None:
    table = "| a | b |\n| --- | --- |\n| c | d |"
    text = f"# Title\n\n## Part\nFirst line of it.\nSecond line.\n\nToo short.\n\n{table}\n"
    rows = run(Passage(name="passage"), Row("k#1", "k", {"document": text, "headings": ["Title", "Part"]}), context)
    assert [(row.id, row.columns["answer"]) for row in rows] == [
        ("k#1/passage-1", "First line of it.\nSecond line."),
        ("k#1/passage-2", table),
    ]
    assert {row.columns["question"] for row in rows} == {"Title > Part"}
    assert {row.columns["train_on"] for row in rows} == {"all"}


def test_llm_asks_again_with_another_seed_and_counts_what_it_used(
    context: Context, memos: Callable[[str], Memo]
) -> None:
    answers = iter(["nothing", "<question>a?</question><answer>b</answer>"])
    model = ScriptedModel(lambda request: next(answers))
    context = Context(context.rows, 42, 2, Cached(model, memos("teacher")), "m")
    block = Llm(name="write", prompt="Ask {{ x }}", tags={"question": "QUESTION", "answer": "ANSWER"}, temperature=0.7)
    [row] = run(block, Row("k#1", "k", {"x": "this"}), context)
    assert (row.id, row.columns["question"], row.columns["answer"]) == ("k#1/write-1", "a?", "b")
    first, second = (request.sampling.seed for request in model.requests)
    assert first != second
    assert row.trace.usage == {"prompt_tokens": 4, "completion_tokens": 2}
    assert row.trace.sampling == {"temperature": 0.7, "max_tokens": 2048, "seed": second}
    assert (row.trace.block, row.trace.teacher, row.trace.memoised) == ("write", "m", False)


def test_llm_at_temperature_zero_shares_equal_calls(context: Context, memos: Callable[[str], Memo]) -> None:
    def answer(request: Request) -> str:
        return "text"

    model = ScriptedModel(answer)
    context = Context(context.rows, 42, 2, Cached(model, memos("teacher")), "m")
    greedy, drawn = (Llm(name="w", prompt="Say it", temperature=t) for t in (0.0, 0.5))
    for block in (greedy, drawn):
        for identity in ("k#1", "k#2"):
            assert run(block, Row(identity, "k", {}), context)[0].columns["output"] == "text"
    assert [request.sampling.seed is None for request in model.requests] == [True, False, False]


def test_counts() -> None:
    assert [resolve_count(count, 30) for count in (4, "4", "scale", "8 x scale")] == [4, 4, 30, 240]


def test_plugins_are_loaded_by_name_and_all_are_blocks() -> None:
    for name in names("ilab.blocks"):
        cls = load("ilab.blocks", name)
        assert issubclass(cls, Block)
        assert cls.type == name
    with pytest.raises(InputError, match="no block called 'lmm'"):
        load("ilab.blocks", "lmm")


# -- the offline flow -------------------------------------------------------------------------------------------


@pytest.fixture
def offline(
    make_job: Callable[..., Job], make_leaf: Callable[..., Leaf], make_chunk: Callable[..., Chunk]
) -> Callable[..., Job]:
    def make(**fields: Any) -> Job:
        leaves = [
            make_leaf("knowledge/lamp"),
            make_leaf("s/record", "grounded"),
            make_leaf("s/calendar", "freeform"),
        ]
        given = {"leaves": leaves, "chunks": [make_chunk("knowledge/lamp", DOCUMENT, "Lamp")], "scale_factor": 5}
        return make_job(flow=load_flow("extractive"), **{**given, **fields})

    return make


def test_extractive_makes_samples_for_every_kind(offline: Callable[..., Job]) -> None:
    generated = generate(offline())
    made = {leaf: [s for s in generated.samples if s.leaf == leaf] for leaf in generated.card["leaves"]}
    assert list(made) == ["knowledge/lamp", "s/calendar", "s/record"]
    blocks = {leaf: {sample.origin.block for sample in found} for leaf, found in made.items()}
    assert blocks["knowledge/lamp"] == {"passage", "extract", "seeds"}
    assert blocks["s/record"] == blocks["s/calendar"] == {"recombine", "seeds"}
    pair = next(s for s in made["knowledge/lamp"] if s.origin.block == "extract")
    assert pair.id.startswith("knowledge/lamp#")
    assert pair.origin.evidence is not None
    assert pair.origin.evidence in DOCUMENT
    assert (pair.origin.teacher, pair.origin.source) == (None, "tower.md")
    record = next(s for s in made["s/record"] if s.origin.block == "seeds")
    assert record.question.startswith("Make a record.\nThe ")
    texts = {sample.answer for sample in made["knowledge/lamp"] if sample.train_on == "all"}
    assert texts == {paragraph.strip() for paragraph in DOCUMENT.split("\n\n")}


def test_extractive_is_capped_by_the_scale_factor(offline: Callable[..., Job]) -> None:
    few, many = (generate(offline(scale_factor=scale)) for scale in (1, 5))

    def count(block: str, generated: Any) -> int:
        return sum(sample.origin.block == block for sample in generated.samples)

    assert count("recombine", few) <= 2 * 3 < count("recombine", many) <= 2 * 15
    assert count("extract", few) <= 8
    assert {s.id for s in few.samples if s.origin.block == "extract"} <= {s.id for s in many.samples}


def test_an_edited_skill_answer_makes_only_that_leafs_rows_anew(
    offline: Callable[..., Job], make_leaf: Callable[..., Leaf]
) -> None:
    before = generate(offline())
    assert before.counts["from_memo"] == 0
    seeds = [(None, s.pairs[0].question, s.pairs[0].answer) for s in make_leaf("s/calendar", "freeform").seeds]
    seeds[0] = (None, seeds[0][1], "[14] lesson with Marta!")
    leaves = [
        make_leaf("knowledge/lamp"),
        make_leaf("s/record", "grounded"),
        make_leaf("s/calendar", "freeform", seeds),
    ]
    after = generate(offline(leaves=leaves))
    new = {sample.leaf: sample for sample in after.samples}
    assert after.counts["new"] == sum(sample.leaf == "s/calendar" for sample in after.samples)
    assert len(new) == 3

    def others(generated: Any) -> list[str]:
        return [s.model_dump_json() for s in generated.samples if s.leaf != "s/calendar"]

    assert others(before) == others(after)


def test_held_out_items_are_no_samples_and_say_so(offline: Callable[..., Job]) -> None:
    before = generate(offline())
    victim = next(s for s in before.samples if s.origin.block == "recombine" and s.leaf == "s/calendar")
    item = Item(
        id="held",
        leaf="s/calendar",
        split="test",
        kind="exact",
        question=victim.question,
        gold=victim.answer,
        cluster="c",
    )
    after = generate(offline(held_out=[item]))
    assert {s.id for s in before.samples} - {s.id for s in after.samples} == {victim.id}
    [dropped] = [entry for entry in after.rejected if entry.block == "decontaminate"]
    assert (dropped.id, dropped.reason) == (victim.id, "held out: the same question as held")
    assert after.card["leaves"]["s/calendar"]["rejected"] == {"held out": 1}


def test_a_leaf_without_text_or_result_is_the_users_error(offline: Callable[..., Job]) -> None:
    generated = generate(offline())
    calendar = [s for s in generated.samples if s.leaf == "s/calendar"]
    items = [
        Item(id=s.id, leaf=s.leaf, split="dev", kind="exact", question=s.question, gold=s.answer, cluster="c")
        for s in calendar
    ]
    with pytest.raises(InputError) as caught:
        generate(offline(held_out=items))
    assert not isinstance(caught.value, InputErrors)
    assert caught.value.where == "qna.yaml:3:1"
    assert "s/calendar" in caught.value.message
    assert caught.value.message.count("\n  s/calendar/") == 3
    assert "by block 'decontaminate'" in caught.value.message


def test_what_does_not_fit_is_told_before_anything_runs(make_job: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        generate(make_job())
    assert "where.teacher.url" in caught.value.hint
    with pytest.raises(InputError, match="name is not given"):
        generate(make_job(teacher=ScriptedModel(lambda request: ""), teacher_name=""))
    flow = tmp_path / "flow"
    flow.mkdir()
    shipped = Path(load_flow("extractive").where)
    (flow / "freeform_skills.yaml").write_text((shipped / "freeform_skills.yaml").read_text())
    with pytest.raises(InputError) as caught:
        generate(make_job(flow=load_flow(flow)))
    assert "knowledge.yaml" in caught.value.hint


def test_expected_calls_are_what_a_run_asks(make_job: Callable[..., Job]) -> None:
    model = ScriptedModel(lambda request: f"[QUESTION]{request.sampling.seed}?[ANSWER]It is {request.sampling.seed}.")
    job = make_job(teacher=model)
    forecast = expected(starts_of(job.leaves, job.chunks, job.flow), job.scale_factor)
    generated = generate(job)
    assert forecast["calls"] == generated.counts["calls"] == len(model.requests) == 2 * 2 * 3
    assert forecast["tokens"] > forecast["calls"] * 150
    assert expected(starts_of(job.leaves, job.chunks, load_flow("extractive")), 30) == {
        "calls": 0,
        "tokens": 0,
        "tokens_written": 0,
    }


def test_progress_is_told_and_stopping_is_heard(offline: Callable[..., Job]) -> None:
    events: list[Event] = []
    generated = generate(offline(emit=Bus([events.append]).for_step("generate")))
    last = [event.data for event in events if event.kind == "progress"][-1]
    assert last["done"] == last["total"] == 7  # the chunk in two branches, knowledge seeds, two for each skill
    assert last["accepted"] + last["rejected"] >= len(generated.samples)
    with pytest.raises(Stopped):
        generate(offline(stopping=lambda: True))
