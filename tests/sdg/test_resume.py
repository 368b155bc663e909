"""Stopped or killed half way, then run again: only what was in flight is asked twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ilab.config import Endpoint
from ilab.errors import Stopped
from ilab.models.openai import OpenAIModel
from ilab.sdg.generate import Generated, Job, generate
from ilab.testing.teacher import Teacher, serve

IN_FLIGHT = 4
JOB = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    from conftest import chunk, leaf, passage
    from ilab.config import Endpoint
    from ilab.core.events import Bus
    from ilab.core.memo import Memo
    from ilab.models.openai import OpenAIModel
    from ilab.sdg.flow import load_flow
    from ilab.sdg.generate import Job, generate

    memos = {{name: Memo(Path({memo!r}) / name) for name in ("rows", "teacher")}}
    generate(Job(
        leaves=[leaf("knowledge/towers")], chunks=[chunk("knowledge/towers", passage(1, 400))], held_out=[],
        flow=load_flow("simple"), scale_factor=30, seed=42, memo=memos.__getitem__,
        emit=Bus().for_step("generate"), stopping=lambda: False,
        teacher=OpenAIModel(Endpoint(url={url!r}, in_flight={in_flight})), teacher_name="teacher",
        in_flight={in_flight},
    ))
"""


@pytest.fixture
def job(
    make_job: Callable[..., Job], make_chunk: Callable, make_passage: Callable, memos_in: Callable
) -> Callable[..., Job]:
    def make(teacher: Teacher, memo: Path, **fields: object) -> Job:
        return make_job(
            chunks=[make_chunk("knowledge/towers", make_passage(1, 400))],
            scale_factor=30,
            memo=memos_in(memo),
            teacher=OpenAIModel(Endpoint(url=teacher.url, in_flight=IN_FLIGHT)),
            in_flight=IN_FLIGHT,
            **fields,
        )

    return make


def content(generated: Generated) -> list[str]:
    return [sample.model_dump_json() for sample in generated.samples]


def test_kill_repeats_at_most_what_was_in_flight(job: Callable[..., Job], tmp_path: Path) -> None:
    with serve(latency=0.02) as teacher:
        script = JOB.format(
            folder=str(Path(__file__).parent), memo=str(tmp_path / "killed"), url=teacher.url, in_flight=IN_FLIGHT
        )
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            deadline = time.monotonic() + 60
            while len(teacher.calls) < 25 and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert 25 <= len(teacher.calls) < 60
        resumed = generate(job(teacher, tmp_path / "killed"))
        assert len(teacher.calls) <= 60 + IN_FLIGHT
        unbroken = generate(job(teacher, tmp_path / "whole"))
    assert len(resumed.samples) + len(resumed.rejected) == 60
    assert content(resumed) == content(unbroken)
    assert resumed.card == unbroken.card


def test_stop_keeps_every_answer(job: Callable[..., Job], tmp_path: Path) -> None:
    with serve(latency=0.05) as teacher:
        with pytest.raises(Stopped) as caught:
            generate(job(teacher, tmp_path, stopping=lambda: len(teacher.calls) >= 12))
        assert "run the same command" in caught.value.hint
        before = len(teacher.calls)
        assert before < 60
        generated = generate(job(teacher, tmp_path))
        assert len(teacher.calls) <= 60 + IN_FLIGHT
    assert generated.counts["calls_from_memo"] >= before - IN_FLIGHT
