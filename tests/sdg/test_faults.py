"""Faults of a real server: no row may be lost, none doubled, and what fails for good says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ilab.config import Endpoint
from ilab.data import Chunk, Leaf
from ilab.errors import ServiceError
from ilab.models.openai import OpenAIModel
from ilab.sdg.generate import Generated, Job, generate
from ilab.testing.teacher import Faults, Teacher, answer_by_rule, serve

ROWS = 60


@pytest.fixture
def sixty(
    make_job: Callable[..., Job],
    make_leaf: Callable[..., Leaf],
    make_chunk: Callable[..., Chunk],
    make_passage: Callable[..., str],
) -> Callable[..., Job]:
    """A job of 60 calls: 10 chunks (or so many times as many), 2 seed examples, 3 draws."""

    def make(teacher: Teacher, in_flight: int = 16, times: int = 1, **fields: Any) -> Job:
        path = "knowledge/towers"
        chunks = [make_chunk(path, make_passage(n, sentences=400)) for n in range(10 * times)]
        client = OpenAIModel(Endpoint(url=teacher.url, in_flight=in_flight, timeout=1.0), backoff=0.02)
        return make_job(leaves=[make_leaf(path)], chunks=chunks, teacher=client, in_flight=in_flight, **fields)

    return make


def facts(generated: Generated) -> list[str]:
    return [sample.model_dump_json() for sample in generated.samples]


KINDS = [
    ("500", 0.1),
    ("503", 0.1),
    ("429", 0.1),
    ("429-seconds", 0.05),
    ("429-date", 0.05),
    ("reset", 0.1),
    ("silent", 0.05),
    ("malformed", 0.1),
    ("empty", 0.1),
    ("truncated", 0.1),
    ("untagged", 0.1),
    ("wrong-n", 0.1),
]


EARLY = {0.05: 2257, 0.1: 21133}  # share of faulty calls: seed


@pytest.mark.parametrize(("kind", "share"), KINDS)
def test_sixty_of_sixty_whatever_fails(sixty: Callable[..., Job], kind: Any, share: float) -> None:
    # With these seeds the faults fall on early calls: no row is hit on every one of its tries, in whatever order they go.
    with serve(faults=Faults(share=share, kinds=(kind,), seed=EARLY[share])) as teacher:
        generated = generate(sixty(teacher))
        assert teacher.faulty, "the fault was never injected"
        # Answers that arrived but cannot be used are in the memo as they are: asking again is a call of its own.
        wanted = ROWS + (0 if kind == "wrong-n" else len(teacher.faulty))
        # A busy machine may keep a good answer for longer than the client waits: one more call, and nothing lost.
        assert len(teacher.calls) == wanted or (kind == "silent" and wanted < len(teacher.calls) <= wanted + 5)
    assert len(generated.samples) == ROWS
    assert len({sample.id for sample in generated.samples}) == ROWS
    assert generated.rejected == []
    assert generated.counts["accepted"] == generated.counts["new"] == ROWS


def test_an_outage_in_the_middle_loses_nothing(sixty: Callable[..., Job]) -> None:
    with serve(faults=Faults(outage_after=25, outage=2.0)) as teacher:
        generated = generate(sixty(teacher))
    assert len(generated.samples) == ROWS
    assert generated.rejected == []


def test_the_result_does_not_depend_on_how_much_is_in_flight(
    sixty: Callable[..., Job], memos_in: Callable, tmp_path: Path
) -> None:
    results = []
    for in_flight in (1, 32):
        with serve(latency=0.005) as teacher:
            results.append(generate(sixty(teacher, in_flight, memo=memos_in(tmp_path / str(in_flight)))))
        assert teacher.peak <= in_flight
    assert facts(results[0]) == facts(results[1])
    assert results[0].card == results[1].card
    assert results[0].counts == results[1].counts


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(sixty: Callable[..., Job]) -> None:
    with serve() as teacher:
        first = generate(sixty(teacher))
        second = generate(sixty(teacher))
        assert len(teacher.calls) == ROWS
    assert facts(first) == facts(second)
    assert first.card == second.card
    assert (first.counts["new"], first.counts["from_memo"]) == (ROWS, 0)
    assert (second.counts["new"], second.counts["from_memo"]) == (0, ROWS)
    assert (second.counts["calls"], second.counts["calls_from_memo"]) == (0, ROWS)


def test_an_edited_leaf_makes_only_its_own_calls(
    sixty: Callable[..., Job],
    make_leaf: Callable[..., Leaf],
    make_chunk: Callable[..., Chunk],
    make_passage: Callable[..., str],
) -> None:
    leaves = [make_leaf(f"knowledge/tower{n}") for n in range(8)]
    chunks = [make_chunk(leaf.path, make_passage(n, 400)) for n, leaf in enumerate(leaves)]
    with serve() as teacher:
        before = generate(replace(sixty(teacher), leaves=leaves, chunks=chunks))
        calls = len(teacher.calls)
        edited = make_leaf(leaves[3].path, seeds=[("A lamp has a lens.", "What has a lamp?", "a big lens")])
        again = [*leaves[:3], edited, *leaves[4:]]
        after = generate(replace(sixty(teacher), leaves=again, chunks=chunks))
        assert len(teacher.calls) - calls == 3  # one seed example, one chunk, three draws
    assert after.counts["from_memo"] == sum(sample.leaf != edited.path for sample in after.samples) > 30

    def others(generated: Generated) -> list[str]:
        return [s.model_dump_json() for s in generated.samples if s.leaf != edited.path]

    assert others(before) == others(after)


def test_a_permanently_bad_answer_is_one_rejected_row(sixty: Callable[..., Job]) -> None:
    def stubborn(body: dict[str, Any]) -> str:
        prompt = body["messages"][0]["content"]
        refuses = "tower number 4 " in prompt and "What has a lamp?" in prompt
        return "No." if refuses else answer_by_rule(body)

    with serve(stubborn) as teacher:
        generated = generate(sixty(teacher, scale_factor=1))
    assert len(generated.samples) == 19
    [rejected] = generated.rejected
    assert (rejected.block, rejected.row["raw"]) == ("write", "No.")
    assert rejected.reason == "the answer cannot be read: asked 3 times for [QUESTION], [ANSWER]"
    [leaf] = generated.card["leaves"].values()
    assert {name: leaf[name] for name in ("kind", "rows", "accepted", "rejected")} == {
        "kind": "knowledge",
        "rows": 20,
        "accepted": 19,
        "rejected": {"the answer cannot be read": 1},
    }
    assert generated.card["blocks"]["knowledge/write"] == {"in": 20, "out": 19, "rejected": 1}


def test_a_refused_request_is_one_rejected_row(sixty: Callable[..., Job]) -> None:
    with serve(faults=Faults(plan={5: "400"})) as teacher:
        generated = generate(sixty(teacher))
    [rejected] = generated.rejected
    assert "this request is too long for the model" in rejected.reason
    assert len(generated.samples) == ROWS - 1


def test_nothing_accepted_is_the_services_fault_and_shows_three_rows(sixty: Callable[..., Job]) -> None:
    with serve(lambda body: "I would rather not.") as teacher, pytest.raises(ServiceError) as caught:
        generate(sixty(teacher, scale_factor=1))
    assert caught.value.where == "qna.yaml:3:1"
    assert "20 rows were refused, 20 of them by block 'write'" in caught.value.message
    assert caught.value.message.count("| I would rather not.") == 3
    assert "sdg_teacher_model=NAME" in caught.value.hint
