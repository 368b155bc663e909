"""The files of phases 07 and 10 from what the flows ``full`` and ``llama`` make, with a scripted teacher over HTTP."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ilab.config import Endpoint
from ilab.data import Chunk, Leaf, Message, Origin, Sample
from ilab.models.openai import OpenAIModel
from ilab.sdg.flow import load_flow
from ilab.sdg.generate import Generated, Job, generate
from ilab.sdg.mix import Mixture, by_source, mix
from ilab.sdg.phases import Asked, knowledge_rows, replayed_rows, take_apart, under
from ilab.sdg.raft import Passages
from ilab.testing.lab_teacher import answer_lab_prompts
from ilab.testing.teacher import serve

MADE = {
    "full": {"spellcheck", "summary"},
    "llama": {"summary_detailed", "summary_extractive", "summary_atomic_facts"},
}


@pytest.fixture
def towers(
    make_leaf: Callable[..., Leaf], make_chunk: Callable[..., Chunk], make_passage: Callable[..., str]
) -> tuple[Leaf, list[Chunk]]:
    texts = [make_passage(number, 8) for number in range(12)]
    return make_leaf("knowledge/towers"), [make_chunk("knowledge/towers", text) for text in texts]


@pytest.fixture
def made(make_job: Callable[..., Job], towers: tuple[Leaf, list[Chunk]]) -> Callable[[str], Generated]:
    def run(flow: str) -> Generated:
        leaf, chunks = towers
        with serve(script=answer_lab_prompts) as teacher:
            model = OpenAIModel(Endpoint(url=teacher.url, timeout=20.0), backoff=0.02)
            return generate(make_job(leaves=[leaf], chunks=chunks, flow=load_flow(flow), scale_factor=4, teacher=model))

    return run


@pytest.mark.parametrize("flow", ["full", "llama"])
def test_texts_made_of_a_passage_are_the_flows_and_stand_once_in_a_phase(
    made: Callable[[str], Generated], towers: tuple[Leaf, list[Chunk]], flow: str
) -> None:
    leaf, chunks = towers
    passages = Passages(chunks)
    samples = [sample for sample in made(flow).samples if sample.train_on == "assistant"]
    retold = {sample.id: sample for sample in samples if "/retold-" in sample.id}
    shown = {sample.id for sample in samples if sample.context}
    alone = {sample.id for sample in samples} - set(retold) - shown
    assert retold and shown and alone

    rows = {row["id"]: row for row in knowledge_rows(leaf, samples, passages)}
    assert set(rows) == {sample.id for sample in samples}
    texts = [chunk.text for chunk in chunks]
    for identity, row in rows.items():
        user, about = row["messages"][0]["content"], json.loads(row["metadata"])
        assert sum(user.count(text) for text in texts) == 1, user  # its passage, and that once
        assert row["unmask"] is True
        if identity in retold:
            assert set(about) == {"dataset", "dataset_type", "raw_document", "domain"}
            assert about["dataset"] == f"document_{about['dataset_type']}"
            assert user.startswith(f"{about['raw_document']}\n\n")
            assert row["messages"][1]["content"] == retold[identity].answer
        else:
            assert about["dataset"] == "document_knowledge_qa"
            assert user.startswith(f"{about['sdg_document']}\n\n")
    kinds = {json.loads(rows[identity]["metadata"])["dataset_type"] for identity in retold}
    assert kinds <= MADE[flow] and kinds

    later = replayed_rows(leaf, samples, passages, 42)
    assert {row["id"] for row in later if row["id"].endswith("~raft")} == {f"{identity}~raft" for identity in alone}
    again = [row for row in later if row["id"].startswith("replay/")]
    assert Counter(row["id"] for row in again) == Counter(f"replay/{identity}" for identity in rows)
    assert {row["id"].removeprefix("replay/") for row in again if not row["unmask"]} == set(retold)

    mixed, _ = mix(by_source(samples, {leaf.path: "knowledge"}), Mixture(distractors=2), 42, (), chunks)
    assert sum(row.sample in retold for row in mixed) == len(retold)  # the mix makes none of its own, and none twice
    assert {row.sample for row in mixed if row.source == "raft"} == alone


def sample(question: str, context: str | None = None, identity: str = "k#1/retold-facts") -> Sample:
    messages = (Message(role="user", content=question), Message(role="assistant", content="a"))
    origin = Origin(leaf="k", leaf_digest="0", flow="f", block="b")
    return Sample(id=identity, leaf="k", messages=messages, context=context, origin=origin)


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        (sample("q?"), Asked("q?", "T")),
        (sample("q?\nT", "T"), Asked("q?", "T")),
        (sample("q?\n\nT", "\nT"), Asked("q?", "\nT")),  # a context that begins with an empty line
        (sample("q?\nT"), Asked("q?", "T")),  # stored before contexts were
        (sample("List.\n\nT"), Asked("List.", "T", "summary_atomic_facts")),
        (sample("T\n\nList.", None, "k#1/flat-own_kind"), Asked("List.", "T", "own_kind")),
    ],
)
def test_take_apart(make_chunk: Callable[..., Chunk], found: Sample, asked: Asked) -> None:
    assert take_apart(found, make_chunk("k", "T")) == asked


def test_without_a_passage_a_question_stands_alone(make_leaf: Callable[..., Leaf]) -> None:
    (row,) = knowledge_rows(make_leaf("k"), [sample("q?")], Passages([]))
    assert row["messages"][0]["content"] == "q?"
    assert replayed_rows(make_leaf("k"), [sample("q?")], Passages([]), 1) == [{**row, "id": f"replay/{row['id']}"}]


def test_a_system_message_of_its_own_stays() -> None:
    own = {"messages": [{"role": "system", "content": "mine"}, {"role": "user", "content": "q"}]}
    assert under(own, "other") == own
    assert under({"messages": own["messages"][1:]}, "new")["messages"][0] == {"role": "system", "content": "new"}


def test_samples_without_a_context_are_stored_as_before(tmp_path: Path) -> None:
    assert "context" not in sample("q?").model_dump_json(exclude_none=True)
    old = '{"id":"k","leaf":"k","messages":[],"origin":{"leaf":"k","leaf_digest":"0","flow":"f","block":"b"}}'
    assert Sample.model_validate_json(old).context is None
