"""The job as a flow in YAML, through the whole of generation: engine, client, the journal on the disk, samples.

The rows are samples with their provenance; duplicates and held-out items are looked for, the card is counted.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from job import ASK, JUDGE, REPLY, Work, documents, jinja

from ilab.config import Endpoint
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import Chunk, Leaf, Place, QuestionAnswer, SeedExample, digest_text, short
from ilab.models.openai import OpenAIModel
from ilab.sdg import engine as _engine  # noqa: F401 - imported beforehand: imports are not what is measured
from ilab.sdg.blocks import filter as _filter  # noqa: F401
from ilab.sdg.blocks import llm as _llm  # noqa: F401
from ilab.sdg.flow import load_flow
from ilab.sdg.generate import Job, generate

LEAF = "knowledge/kilns"
FLOW = """\
name: job
version: 1
branches:
  pairs:
    input: chunk
    blocks:
      - {type: llm, name: ask, prompt: ask.txt, tags: {question: QUESTION}, temperature: 0.7, max_tokens: 100}
      - {type: llm, name: reply, prompt: reply.txt, tags: {answer: ANSWER}, temperature: 0.7, max_tokens: 100}
      - {type: llm, name: judge, prompt: judge.txt, tags: {verdict: VERDICT}, max_tokens: 100}
      - {type: filter, name: supported, column: verdict, operation: eq, value: 'YES'}
"""


def run(url: str, work: Work) -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("ILAB_BENCH_FOLDER")) as folder:
        return len(generate(made_job(url, work, Path(folder))).samples)


def write_flow(folder: Path) -> Path:
    """The flow of the job as a folder."""
    folder.mkdir()
    (folder / "knowledge.yaml").write_text(FLOW, encoding="utf-8")
    for name, prompt in (("ask", ASK), ("reply", REPLY), ("judge", JUDGE)):
        (folder / f"{name}.txt").write_text(jinja(prompt), encoding="utf-8")
    return folder


def made_job(url: str, work: Work, folder: Path, limit: float = 120.0) -> Job:
    """The job against ``url``, its journal below ``folder``. ``limit`` in seconds for one call."""
    memos = {name: Memo(folder / name) for name in ("rows", "teacher")}
    return Job(
        leaves=[leaf()],
        chunks=[chunk(text) for text in documents(work.documents)],
        held_out=[],
        flow=load_flow(str(write_flow(folder / "flow"))),
        scale_factor=1,
        seed=42,
        memo=memos.__getitem__,
        emit=Bus().for_step("generate"),
        stopping=lambda: False,
        teacher=OpenAIModel(Endpoint(url=url, in_flight=work.in_flight, timeout=limit)),
        teacher_name="teacher",
        in_flight=work.in_flight,
    )


def leaf() -> Leaf:
    place = Place(file="qna.yaml", line=1)
    pair = QuestionAnswer(question="What burns?", answer="the kiln", place=place)
    return Leaf(
        path=LEAF,
        kind="knowledge",
        version=3,
        created_by="benchmark",
        task="",
        domain="kilns",
        seeds=(SeedExample(context="The kiln burns.", pairs=(pair,), place=place),),
        digest="0" * 64,
        place=place,
    )


def chunk(text: str) -> Chunk:
    digest = digest_text(text)
    return Chunk(
        id=short(digest),
        leaf=LEAF,
        document=digest,
        source="kilns.md",
        heading=("Kilns",),
        span=(0, len(text)),
        text=text,
        tokens=len(text) // 4,
    )
