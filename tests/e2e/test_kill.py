"""Stopped at any point, the same command finishes, with the same bytes as an unbroken build.

The process kills itself from inside, behind an event or a file operation that is counted, so that every run of a test
is cut at the same place.
"""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from ilab.core.events import read_events

# Sends the signal ``arguments[3]`` behind the ``arguments[2]``-th event of step ``arguments[0]`` and kind
# ``arguments[1]``.
AT_EVENT = """
import os
from ilab.core import events
step, kind, left, number = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
real = events.Bus.send
def send(bus, sent_kind, sent_step, data):
    global left
    real(bus, sent_kind, sent_step, data)
    if (sent_step, sent_kind) == (step, kind):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
events.Bus.send = send
"""
# The same behind the ``arguments[1]``-th rename, replace or flush to the disk once step ``arguments[0]`` has started.
AT_WRITE = """
import os, threading
from ilab.core import events
step, left, going, lock = arguments[0], int(arguments[1]), False, threading.Lock()
real_send = events.Bus.send
def send(bus, kind, sent_step, data):
    global going
    real_send(bus, kind, sent_step, data)
    going = going or (sent_step, kind) == (step, "started")
events.Bus.send = send
def counted(real):
    def call(*given, **more):
        global left
        with lock:
            left -= going
            if going and left == 0:
                os.kill(os.getpid(), 9)
        return real(*given, **more)
    return call
for name in ("rename", "replace", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
"""


def finish(project: Any, reference: Any) -> None:
    """The same command again makes what an unbroken build made, to the byte, and leaves nothing unfinished."""
    project.built()
    assert project.digests() == reference.digests()
    assert project.store.partials() == []
    mine, theirs = project.json("registry", "list"), reference.json("registry", "list")
    assert [(entry["version"], entry["digest"]) for entry in mine] == [(e["version"], e["digest"]) for e in theirs]
    assert {row["state"] for row in project.plan().values()} == {"reuse"}


def cut(project: Any, step: str, kind: str, count: int = 1, number: int = signal.SIGKILL) -> Any:
    done = project.instrumented("run", before=AT_EVENT, given=(step, kind, str(count), str(int(number))))
    assert "Traceback" not in done.stderr
    return done


def test_killed_in_training_it_goes_on_from_the_last_state(project: Any, reference: Any) -> None:
    # A metric is told with the progress, twice a second, and with the last step.
    assert cut(project, "train-phase-1", "metric").returncode == -signal.SIGKILL
    assert project.store.latest("train-phase-1") is None
    (partial,) = [path for path in project.store.partials() if path.parent.name == "train"]
    assert (partial / "lease.json").exists()
    states = {row["step"]: row["state"] for row in project.json("pipeline", "status")}
    assert states["generate"] == "done" and states["train-phase-2"] == "to do"
    finish(project, reference)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_saves_the_work_and_says_how_to_go_on(
    project: Any, reference: Any, number: int, code: int
) -> None:
    done = cut(project, "train-phase-1", "metric", number=number)
    assert done.returncode == code, done.stderr
    assert "stopping: saving the work" in done.stderr
    assert "stopped" in done.stderr.split("error: ")[1]
    assert "run the same command to go on" in done.stderr
    (partial,) = [path for path in project.store.partials() if path.parent.name == "train"]
    assert not (partial / "lease.json").exists(), "the lease is given back"
    (state,) = (partial / "work").glob("state-*")
    step = json.loads((state / "manifest.json").read_text())["cursor"]["steps"]
    assert step > 0
    if number == signal.SIGINT:
        finish(project, reference)
        first = project.runs()[1] / "events.jsonl"
        told = [event for event in read_events(first) if (event.step, event.kind) == ("train-phase-1", "metric")]
        steps = [event.data["step"] for event in told if "step" in event.data]
        assert steps and min(steps) > step, "no step is trained twice"


def test_asked_to_stop_while_generating(project: Any) -> None:
    done = cut(project, "generate", "started", number=signal.SIGINT)
    assert done.returncode == 130, done.stderr
    assert "run the same command to go on" in done.stderr
    assert project.built("--until", "generate").returncode == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("step", "kind", "count"),
    [
        ("taxonomy", "started", 1),
        ("base", "started", 1),
        ("generate", "started", 1),
        ("generate", "progress", 1),
        ("generate", "finished", 1),
        ("mix-knowledge", "finished", 1),
        ("train-phase-1", "started", 1),
        ("train-phase-1", "metric", 1),
        ("train-phase-1", "finished", 1),
        ("evaluate-phase-1", "progress", 2),
        ("train-phase-2", "metric", 1),
        ("final-evaluation", "finished", 1),
        ("package", "started", 1),
        ("register", "started", 1),
    ],
)
def test_killed_behind_any_event(project: Any, reference: Any, step: str, kind: str, count: int) -> None:
    assert cut(project, step, kind, count).returncode == -signal.SIGKILL
    finish(project, reference)


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("step", ["generate", "train-phase-1", "package", "register"])
def test_killed_while_writing(project: Any, reference: Any, step: str, count: int) -> None:
    done = project.instrumented("run", before=AT_WRITE, given=(step, str(count)))
    assert done.returncode in (-signal.SIGKILL, 0)
    if step != "register":
        assert done.returncode == -signal.SIGKILL, "the step writes more often than that"
    finish(project, reference)


@pytest.mark.long
def test_killed_again_and_again(project: Any, reference: Any) -> None:
    """Every attempt gets one file operation further than the one before could be sure of."""
    for count in range(4, 60, 7):
        done = project.instrumented("run", before=AT_WRITE, given=("train-phase-1", str(count)))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    finish(project, reference)
