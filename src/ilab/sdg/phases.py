"""Samples as the two training files of instructlab-sdg: phase 07 teaches knowledge, phase 10 skills.

    07   each knowledge question below its passage, ``unmask`` true: the passage is learnt, not only the answer;
         texts made of a passage (summaries, corrected copies) under an instruction to make them
    10   skills; each question of 07 that has other passages to be asked among (RAFT); all questions of 07 again;
         the texts made of passages, ``unmask`` false

A record is ``messages``, ``metadata`` (JSON text), ``id``, ``unmask``. Put right: ids lead back to the sample
(``ilab data why``), draws derive from them, and no two rows of a file have the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ilab.data import Chunk, Leaf, Sample
from ilab.sdg.raft import Passages, asked_among, can_be_asked

Rows = list[dict[str, Any]]
DISTRACTORS, ORACLE = 3, 0.4  # upstream's: four passages, the right one among them in two rows of five
DATASET = "document_knowledge_qa"
# What upstream calls the texts that our flows make of a passage, by the last part of the sample's id.
MADE = {
    "corrected": "spellcheck",
    "detailed": "summary_detailed",
    "extract": "summary_extractive",
    "facts": "summary_atomic_facts",
}


@dataclass(frozen=True)
class Asked:
    """A sample taken apart: what is asked or told to do, below which passage; ``made`` names a text made of it."""

    question: str
    passage: str
    made: str = ""


def take_apart(sample: Sample, chunk: Chunk | None) -> Asked:
    """A knowledge sample without its passage, which is its context or else the chunk that it was made from.

    An instruction stands an empty line before or after the passage that it is about; a question one line end before.
    """
    passage = chunk.text if chunk else ""
    if sample.context:
        return Asked(sample.question.removesuffix(f"\n{sample.context}"), sample.context)
    if passage and sample.question.endswith(f"\n\n{passage}"):
        return Asked(sample.question.removesuffix(f"\n\n{passage}"), passage, _made(sample))
    if passage and sample.question.startswith(f"{passage}\n\n"):
        return Asked(sample.question.removeprefix(f"{passage}\n\n"), passage, _made(sample))
    if passage and sample.question.endswith(f"\n{passage}"):  # a sample stored before contexts were
        return Asked(sample.question.removesuffix(f"\n{passage}"), passage)
    return Asked(sample.question, passage)


def knowledge_rows(leaf: Leaf, samples: Sequence[Sample], passages: Passages) -> Rows:
    """Phase 07 of one leaf, without system messages."""
    rows = []
    for sample in samples:
        asked = take_apart(sample, passages.own(sample))
        metadata = {"dataset": DATASET, "domain": leaf.domain, "sdg_document": asked.passage}
        if asked.made:
            kind = {"dataset": f"document_{asked.made}", "dataset_type": asked.made, "raw_document": asked.passage}
            metadata = {**kind, "domain": leaf.domain}
        user = "\n\n".join(part for part in (asked.passage, asked.question) if part)
        rows.append(_record(sample.id, [user, sample.answer], metadata, unmask=True))
    return rows


def replayed_rows(leaf: Leaf, samples: Sequence[Sample], passages: Passages, seed: int) -> Rows:
    """What phase 10 has of a knowledge leaf, without system messages."""
    among: Rows = []
    for sample in samples:
        if not can_be_asked(sample, passages):
            continue
        row = asked_among(sample, passages, f"{sample.id}~raft", (DISTRACTORS, ORACLE), seed)
        asked = take_apart(sample, passages.own(sample))
        metadata = {"dataset": f"{DATASET}_raft_p{ORACLE}", "domain": leaf.domain, "sdg_document": asked.passage}
        user = next(message.content for message in row.messages if message.role == "user")
        among.append(_record(row.id, [user, sample.answer], metadata, unmask=False))
    again = knowledge_rows(leaf, samples, passages)
    return among + [
        {**row, "id": f"replay/{row['id']}", "unmask": "dataset_type" not in json.loads(row["metadata"])}
        for row in again
    ]


def under(row: Mapping[str, Any], system: str) -> dict[str, Any]:
    """A row of a phase as it is trained on: a system message first, ``system`` where it has none."""
    if row["messages"][0]["role"] == "system":
        return dict(row)
    return {**row, "messages": [{"content": system, "role": "system"}, *row["messages"]]}


def _made(sample: Sample) -> str:
    last = sample.id.rpartition("/")[2]
    name = last.rpartition("-")[2]
    return MADE.get(name, name)


def _record(identity: str, contents: Sequence[str], metadata: Mapping[str, str], unmask: bool) -> dict[str, Any]:
    user, assistant = contents
    return {
        "messages": [{"content": user, "role": "user"}, {"content": assistant, "role": "assistant"}],
        "metadata": json.dumps(metadata, ensure_ascii=False, sort_keys=True),
        "id": identity,
        "unmask": unmask,
    }
