"""A training that is handed to the stub of a cluster, and what a cluster does that trains it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster_stub import Stub

from ilab.config import TrainWhere, Where
from ilab.core.events import Bus, Event
from ilab.training.elsewhere import note_finished
from ilab.training.encode import EncodedSet
from ilab.training.launch import run_job
from ilab.training.loop import TrainJob
from ilab.training.settings import TrainSettings
from ilab.training.start import device_of

SETTINGS = {"epochs": 1, "batch": 2, "learning_rate": 1e-3, "max_length": 128, "max_batch_tokens": 128}


class Trial:
    """A training job that is handed to the stub; keeps the events that it told."""

    def __init__(self, stub: Stub, work: Path, base: Path, data: EncodedSet) -> None:
        self.stub, self.work, self.base, self.data = stub, work, base, data
        self.events: list[Event] = []
        self.stopping: Callable[[], bool] = lambda: False

    @property
    def notes(self) -> list[str]:
        return [event.data["note"] for event in self.events if event.kind == "metric" and "note" in event.data]

    def run(self, kind: str = "TrainJob", *, start: float = 60.0, **more: Any) -> None:
        place: dict[str, Any] = {
            "kubeconfig": str(self.stub.kubeconfig()),
            "image": "x/y:1",
            "volumes": {"models": str(self.base.parents[2])},
            "start_seconds": start,
        }
        place |= more.pop("pods", {})
        where = TrainWhere.model_validate({"launcher": kind, "submit": True, "kubernetes": place, **more})
        settings, none = TrainSettings.model_validate(SETTINGS), EncodedSet((), (), (), ())
        emit = Bus([self.events.append]).for_step("t")
        job = TrainJob(self.data, none, self.base, self.work, settings, emit, self.stopping, 1, where)
        run_job(job, device_of(Where(train=where)))

    def made(self) -> int:
        return sum(method == "POST" for method, _ in self.stub.asked)

    def removed(self) -> int:
        return sum(method == "DELETE" for method, _ in self.stub.asked)


def told(line: dict[str, Any]) -> str:
    return json.dumps({"event": "progress", "data": line})


def succeed(trial: Trial, kind: str) -> list[Callable[[Stub], None]]:
    """Pods come, train, and are done."""

    def begin(stub: Stub) -> None:
        stub.pod("a-0", "Running")
        stub.say("a-0", told({"done": 1, "total": 2, "unit": "steps"}))
        stub.say("a-0", "a \x1b[31mlibrary's remark")

    def end(stub: Stub) -> None:
        stub.say("a-0", told({"done": 2, "total": 2, "unit": "steps"}), stub.logs["a-0"][-1][0])  # at the same moment
        stub.pod("a-0", "Succeeded")
        stub.condition("Complete" if kind == "TrainJob" else "Succeeded")
        note_finished(trial.work, 2)

    return [lambda stub: None, begin, lambda stub: None, end]
