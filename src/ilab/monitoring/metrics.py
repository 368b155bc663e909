"""The metrics and their text, in Prometheus' text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ilab.monitoring.state import STATES, RunState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STUCK = 30 * 60.0  # seconds, where nothing else is said
GATE = "published"  # what the gate counts


@dataclass(frozen=True)
class Metric:
    """``figure`` is what of :attr:`ilab.monitoring.state.StepState.figures` it shows; empty: worked out here."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ("run", "step")
    figure: str = ""


METRICS: tuple[Metric, ...] = (
    Metric("ilab_run_state", "gauge", "1 for the state that the run is in", ("run", "state")),
    Metric("ilab_run_started_timestamp_seconds", "gauge", "when the run began", ("run",)),
    Metric("ilab_run_last_event_timestamp_seconds", "gauge", "when the run last said something", ("run",)),
    Metric("ilab_run_steps", "gauge", "steps of the run, as far as they are known", ("run",)),
    Metric("ilab_run_free_bytes", "gauge", "free room on the disk of the store", ("run",)),
    Metric("ilab_step_state", "gauge", "1 for the state that the step is in", ("run", "step", "state")),
    Metric("ilab_step_seconds", "gauge", "how long the step took, or has been at work"),
    Metric("ilab_step_last_event_timestamp_seconds", "gauge", "when the step last said something"),
    Metric("ilab_step_stuck", "gauge", "1 where the step is at work and has said nothing for too long"),
    Metric("ilab_step_result", "gauge", "what the step counted in what it made", ("run", "step", "name")),
    Metric("ilab_gate_published", "gauge", "1 where the gate lets the model through, 0 where it stops it"),
    Metric("ilab_step_progress_ratio", "gauge", "share of the step that is done", figure="ratio"),
    Metric("ilab_step_eta_seconds", "gauge", "time until the step is done, at the rate so far", figure="eta"),
    Metric("ilab_step_rate", "gauge", "rows, items or other units of the step per second", figure="rate"),
    Metric("ilab_step_rows_accepted_total", "counter", "generated rows that passed all filters", figure="accepted"),
    Metric("ilab_step_rows_rejected_total", "counter", "generated rows that a filter turned away", figure="rejected"),
    Metric("ilab_teacher_calls_total", "counter", "requests that the teacher answered", figure="calls"),
    Metric(
        "ilab_teacher_calls_from_memo_total",
        "counter",
        "answers that were kept from an earlier run",
        figure="calls_from_memo",
    ),
    Metric("ilab_teacher_tokens_total", "counter", "tokens that the teacher read and wrote", figure="tokens"),
    Metric("ilab_teacher_errors_total", "counter", "attempts without a usable answer", figure="errors"),
    Metric("ilab_teacher_in_flight", "gauge", "requests to the teacher under way", figure="in_flight"),
    Metric("ilab_teacher_waiting", "gauge", "1 while an outage of the teacher is waited out", figure="teacher_waiting"),
    Metric("ilab_step_loss", "gauge", "training loss of the newest step told, nats per token", figure="loss"),
    Metric("ilab_step_validation_loss", "gauge", "loss of the rows held out, nats per token", figure="validation_loss"),
    Metric("ilab_step_learning_rate", "gauge", "learning rate of the newest step told", figure="learning_rate"),
    Metric("ilab_step_tokens_per_second", "gauge", "tokens that training takes a second", figure="tokens_per_second"),
)
BY_FIGURE = {metric.figure: metric.name for metric in METRICS if metric.figure}
Sample = tuple[tuple[str, ...], float]


def exposition(state: RunState, now: float, *, stuck: float = STUCK, free: int | None = None) -> str:
    """The text that is scraped at ``now``; ``stuck`` in seconds, ``free`` in bytes."""
    found: dict[str, list[Sample]] = {}
    for name, labels, value in _samples(state, now, stuck, free):
        found.setdefault(name, []).append(((state.run, *labels), value))
    lines: list[str] = []
    for metric in METRICS:
        if samples := found.get(metric.name):
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            lines += [f"{metric.name}{{{_labels(metric.labels, values)}}} {_text(value)}" for values, value in samples]
    return "\n".join(lines) + "\n"


def _samples(
    state: RunState, now: float, stuck: float, free: int | None
) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Metric, labels behind the run's, value."""
    for one in STATES[1:]:
        yield "ilab_run_state", (one,), float(state.state == one)
    yield "ilab_run_started_timestamp_seconds", (), state.began
    yield "ilab_run_last_event_timestamp_seconds", (), state.heard
    yield "ilab_run_steps", (), float(len(state.steps))
    if free is not None:
        yield "ilab_run_free_bytes", (), float(free)
    silent = state.stuck(now, stuck)
    for name, step in state.steps.items():
        for kind in STATES:
            yield "ilab_step_state", (name, kind), float(step.state == kind)
        yield "ilab_step_stuck", (name,), float(name in silent)
        if step.heard is not None:
            yield "ilab_step_last_event_timestamp_seconds", (name,), step.heard
        if step.seconds is not None:
            yield "ilab_step_seconds", (name,), step.seconds
        elif step.began is not None and step.state != "done":
            until = now if step.state == "running" else step.heard or now
            yield "ilab_step_seconds", (name,), max(until - step.began, 0.0)
        for figure, value in step.figures.items():
            yield BY_FIGURE[figure], (name,), value
        for count, value in step.counts.items():
            yield "ilab_step_result", (name, count), value
        if GATE in step.counts:
            yield "ilab_gate_published", (name,), step.counts[GATE]


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
