"""What a run says while it runs.

Four kinds of event, one JSON object a line in ``events.jsonl``: ``started``, ``progress``, ``metric``, ``finished``.
Sinks (terminal, plain lines, JSON) read the same stream; a sink that fails never stops the work. Times and speeds
live here and nowhere in an artifact.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

EventKind = Literal["started", "progress", "metric", "finished"]


@dataclass(frozen=True)
class Event:
    """``data`` is plain JSON. For ``progress``: ``done``, ``total`` (or None), ``unit``, ``note``.

    More where it is known: ``rate`` (units a second), ``eta`` (seconds), ``tokens_per_second``; and of a flow
    (:mod:`ilab.sdg.progress`) ``accepted``, ``rejected``, ``calls``, ``calls_from_memo``, ``tokens``, ``teacher``,
    ``leaf_count``, and ``leaves``: ``[done, total, accepted, rejected]`` of those that changed since the last event.

    A ``metric`` that has a ``note`` is a line that people are shown whatever else goes on.
    """

    kind: EventKind
    step: str
    data: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0


Sink = Callable[[Event], None]


class Emit:
    """Handed to a step: emits events under the step's name."""

    def __init__(self, bus: Bus, step: str) -> None:
        self._bus = bus
        self._step = step

    def started(self, **data: Any) -> None:
        self._bus.send("started", self._step, data)

    def progress(self, done: int, total: int | None = None, unit: str = "", note: str = "", **more: Any) -> None:
        """``done`` of ``total`` ``unit``; ``note`` is one short line for people (a sample as it is made)."""
        self._bus.send("progress", self._step, {"done": done, "total": total, "unit": unit, "note": note, **more})

    def metric(self, **values: Any) -> None:
        self._bus.send("metric", self._step, values)

    def finished(self, **data: Any) -> None:
        self._bus.send("finished", self._step, data)


class Bus:
    """Sends every event to all sinks, one at a time, from any thread."""

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self._sinks = list(sinks)
        self._lock = threading.Lock()

    def send(self, kind: EventKind, step: str, data: dict[str, Any]) -> None:
        event = Event(kind, step, data, time.time())
        with self._lock:
            for sink in self._sinks:
                try:
                    sink(event)
                except OSError:  # a full disk or a closed pipe must not stop a training run
                    continue

    def for_step(self, step: str) -> Emit:
        return Emit(self, step)


def jsonl_sink(path: Path) -> Sink:
    """Appends every event to ``path``, a line each. The file is open only while it writes: nobody has to close it."""
    path.touch()

    def write(event: Event) -> None:
        line = json.dumps(asdict(event), ensure_ascii=False) + "\n"
        with path.open("a", encoding="utf-8") as handle:
            handle.write(line)

    return write


def read_events(path: Path) -> list[Event]:
    """The events of a run; a torn last line (the run was killed) is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            events.append(Event(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return events
