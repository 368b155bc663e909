"""`data generate` stopped half way, then run again: what was in flight is asked twice, nothing else, and the result is
that of an unbroken run to the byte.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from ilab.testing.teacher import Faults, serve

PASSAGES, CALLS, ROWS = 30, 210, 90
IN_FLIGHT = 16


@pytest.fixture
def unbroken(generating: Callable[[int, int], Any], teacher_script: Any) -> Any:
    """A project, and beside it the result of an unbroken run."""
    whole = generating(1, PASSAGES).beside("whole")
    with serve(teacher_script) as teacher:
        whole.end(teacher)
        assert len(teacher.calls) == CALLS
    assert (whole.record().counts["accepted"], whole.record().counts["rejected"]) == (ROWS, 0)
    return whole


def same(project: Any, whole: Any) -> None:
    assert project.content() == whole.content()
    assert project.record().digest == whole.record().digest
    assert project.store.partials() == []


def kill_at(at: int, unbroken: Any, teacher_script: Any) -> None:
    project = unbroken.beside("store")
    with serve(teacher_script, latency=0.02) as teacher:
        assert project.cut(teacher, at, signal.SIGKILL).returncode == -signal.SIGKILL
        before = len(teacher.calls)
        assert at <= before < CALLS + IN_FLIGHT
        project.end(teacher)
        assert len(teacher.calls) <= CALLS + IN_FLIGHT
    same(project, unbroken)
    assert project.record().counts["calls_from_memo"] >= before - IN_FLIGHT


def test_killed_half_way(unbroken: Any, teacher_script: Any) -> None:
    kill_at(CALLS // 2, unbroken, teacher_script)


@pytest.mark.long
@pytest.mark.parametrize("at", [1, 40, 180, 209])
def test_killed(unbroken: Any, teacher_script: Any, at: int) -> None:
    kill_at(at, unbroken, teacher_script)


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop(unbroken: Any, teacher_script: Any, number: int, code: int) -> None:
    """What was answered is kept; what was in flight is given up, and asked again."""
    project = unbroken.beside("store")
    with serve(teacher_script, latency=0.05) as teacher:
        done = project.cut(teacher, CALLS // 2, number)
        assert done.returncode == code, done.stderr
        assert "run the same command" in done.stderr
        assert len(teacher.calls) < CALLS
        project.end(teacher)
        assert len(teacher.calls) <= CALLS + IN_FLIGHT
    same(project, unbroken)


@pytest.mark.long
def test_killed_again_and_again(unbroken: Any, teacher_script: Any) -> None:
    """Every attempt gets on: the calls in flight are lost each time, the rest never."""
    project = unbroken.beside("store")
    kills = 0
    with serve(teacher_script, latency=0.02) as teacher:
        while project.cut(teacher, 50, signal.SIGKILL).returncode != 0:
            kills += 1
            assert kills < 8
            assert len(teacher.calls) <= CALLS + kills * IN_FLIGHT
        assert kills >= 3
        assert len(teacher.calls) <= CALLS + kills * IN_FLIGHT
    same(project, unbroken)


@pytest.mark.long
def test_killed_while_the_server_fails(unbroken: Any, teacher_script: Any) -> None:
    """Both at once: a tenth of the calls fail, before the kill and after it."""
    project = unbroken.beside("store")
    faults = Faults(share=0.1, kinds=("500", "reset", "malformed", "429"), seed=3)
    with serve(teacher_script, latency=0.02, faults=faults) as teacher:
        assert project.cut(teacher, CALLS // 2, signal.SIGKILL).returncode == -signal.SIGKILL
        project.end(teacher)
        assert teacher.faulty
        assert len(teacher.calls) <= CALLS + IN_FLIGHT + len(teacher.faulty)
    same(project, unbroken)


@pytest.mark.long
def test_without_its_index_the_journal_is_read_anew(unbroken: Any, teacher_script: Any) -> None:
    project = unbroken.beside("store")
    with serve(teacher_script, latency=0.02) as teacher:
        project.cut(teacher, CALLS // 2, signal.SIGKILL)
        for index in project.journal()[0].parent.glob("index.sqlite*"):
            index.unlink()
        project.end(teacher)
        assert len(teacher.calls) <= CALLS + IN_FLIGHT
    same(project, unbroken)
