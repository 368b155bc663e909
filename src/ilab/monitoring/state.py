"""The newest figures of every step of a run, folded from its events. Knows no output format."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ilab.core.events import Event

State = Literal["waiting", "running", "done", "failed", "stopped"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed", "stopped")
# Figure -> where it stands in an event's data.
PROGRESS: Mapping[str, tuple[str, ...]] = {
    "eta": ("eta",),
    "rate": ("rate",),
    "tokens_per_second": ("tokens_per_second",),
    "accepted": ("accepted",),
    "rejected": ("rejected",),
    "calls": ("calls",),
    "calls_from_memo": ("calls_from_memo",),
    "tokens": ("tokens",),
    "errors": ("teacher", "failed"),
    "in_flight": ("teacher", "in_flight"),
    "teacher_waiting": ("teacher", "waiting"),
}
METRIC: Mapping[str, tuple[str, ...]] = {
    "loss": ("loss",),
    "validation_loss": ("validation_loss",),
    "learning_rate": ("learning_rate",),
}
PASSING = ("eta", "rate", "tokens_per_second", "in_flight", "teacher_waiting")  # of a step at work, and of no other


@dataclass
class StepState:
    """One step. Times are seconds since 1970; ``seconds`` is how long it took, once it is done."""

    state: State = "waiting"
    began: float | None = None
    heard: float | None = None
    seconds: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


@dataclass
class RunState:
    """A run called ``run``: feed it with :meth:`take` in the order of the events. Not safe for threads by itself."""

    run: str
    began: float
    state: Literal["running", "done", "failed", "stopped"] = "running"
    heard: float = 0.0
    steps: dict[str, StepState] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, began: float) -> RunState:
        """The state of a run that begins, with the steps of the plan that is noted in its folder, if one is."""
        state = cls(folder.name, began, heard=began)
        try:
            planned = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["plan"]["steps"]
            state.steps = {str(step["name"]): StepState() for step in planned}
        except (OSError, ValueError, KeyError, TypeError):  # a command without a plan: its steps are known as they come
            pass
        return state

    def take(self, event: Event) -> None:
        self.heard = event.time
        step = self.steps.setdefault(event.step, StepState())
        step.heard = event.time
        if event.kind == "finished":
            step.state = "done"
            step.seconds = _number(event.data.get("seconds"))
            step.counts = _numbers(event.data.get("counts"))
            for name in PASSING:
                step.figures.pop(name, None)
            if "ratio" in step.figures:
                step.figures["ratio"] = 1.0
            return
        if event.kind == "started" or (event.kind == "progress" and step.state != "running"):
            step.state, step.began, step.seconds = "running", event.time, None
        self._figures(step, event)

    def end(self, state: Literal["done", "failed", "stopped"]) -> None:
        """The run is over; steps that were at work share its fate."""
        self.state = state
        for step in self.steps.values():
            if step.state == "running":
                step.state = state
                for name in PASSING:
                    step.figures.pop(name, None)

    def stuck(self, now: float, seconds: float) -> set[str]:
        """Names of the steps at work of which nothing was heard for ``seconds``."""
        return {
            name
            for name, step in self.steps.items()
            if step.state == "running" and step.heard is not None and now - step.heard > seconds
        }

    @staticmethod
    def _figures(step: StepState, event: Event) -> None:
        known = PROGRESS if event.kind == "progress" else METRIC if event.kind == "metric" else {}
        for name, path in known.items():
            value: Any = event.data
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if (number := _number(value)) is not None:
                step.figures[name] = number
            elif event.kind == "progress" and name in PASSING:
                step.figures.pop(name, None)  # not known any more, as a rate while the teacher is down
        done, total = _number(event.data.get("done")), _number(event.data.get("total"))
        if event.kind == "progress" and done is not None and total:
            step.figures["ratio"] = min(done / total, 1.0)


def replay(run: str, events: Iterable[Event]) -> RunState:
    """The state after ``events``, for a run that may be over."""
    state: RunState | None = None
    for event in events:
        state = state or RunState(run, event.time)
        state.take(event)
    return state or RunState(run, 0.0)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(values: Any) -> dict[str, float]:
    found = values.items() if isinstance(values, Mapping) else ()
    return {str(name): number for name, value in found if (number := _number(value)) is not None}
