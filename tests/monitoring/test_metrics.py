"""Events become figures, and figures Prometheus' text, as two other readers of that text have it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ilab.core.events import Event
from ilab.monitoring import METRICS, RunState, exposition
from ilab.monitoring.metrics import BY_FIGURE
from ilab.monitoring.state import METRIC, PROGRESS

TEACHER = {"in_flight": 3, "limit": 4, "ceiling": 8, "waiting": False, "failed": 2}
ROWS = {"accepted": 9, "rejected": 1, "calls": 30, "calls_from_memo": 5, "tokens": 1200, "teacher": TEACHER}
GENERATE = [
    Event("started", "generate", {"type": "generate", "key": "k"}, 100.0),
    Event("progress", "generate", {"done": 10, "total": 40, "unit": "rows", "rate": 2.5, "eta": 12.0, **ROWS}, 110.0),
]
TRAIN = [
    Event("started", "train-phase-1", {"type": "train", "key": "t"}, 120.0),
    Event("progress", "train-phase-1", {"done": 2, "total": 8, "tokens_per_second": 900, "eta": 6.0}, 121.0),
    Event("metric", "train-phase-1", {"step": 2, "epoch": 0, "loss": 1.25, "learning_rate": 2e-5}, 121.0),
    Event("metric", "train-phase-1", {"note": "a line for people"}, 122.0),
]
GATE = [
    Event("finished", "generate", {"state": "run", "counts": {"samples": 36}, "seconds": 20.5}, 119.0),
    Event("finished", "gate", {"state": "reuse", "key": "g", "counts": {"items": 60, "published": 0}}, 130.0),
]


def folded(*events: Event, run: str = "r1") -> RunState:
    state = RunState(run, 99.0)
    for event in events:
        state.take(event)
    return state


def read(text: str) -> dict[str, float]:
    """Samples by ``name{label=value,…}`` without the run, by the official parser."""
    parser = pytest.importorskip("prometheus_client.parser")
    found = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation and family.type in ("gauge", "counter")
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sample.labels.items() if k != "run")
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_the_figures_of_a_run() -> None:
    found = read(exposition(folded(*GENERATE, *TRAIN), 130.0, free=7))
    step = "{step=generate}"
    assert found[f"ilab_step_progress_ratio{step}"] == 0.25
    assert found[f"ilab_step_eta_seconds{step}"] == 12.0
    assert found[f"ilab_step_seconds{step}"] == 30.0
    assert found[f"ilab_teacher_calls_total{step}"] == 30
    assert found[f"ilab_teacher_errors_total{step}"] == 2
    assert found[f"ilab_teacher_tokens_total{step}"] == 1200
    assert found[f"ilab_teacher_waiting{step}"] == 0
    assert found[f"ilab_step_rows_accepted_total{step}"] == 9
    assert found["ilab_step_loss{step=train-phase-1}"] == 1.25
    assert found["ilab_step_learning_rate{step=train-phase-1}"] == 2e-5
    assert found["ilab_step_tokens_per_second{step=train-phase-1}"] == 900
    assert found["ilab_step_state{step=train-phase-1,state=running}"] == 1
    assert found["ilab_run_last_event_timestamp_seconds{}"] == 122.0
    assert found["ilab_run_free_bytes{}"] == 7
    assert found["ilab_run_state{state=running}"] == 1


def test_what_is_done_has_no_rate_and_keeps_its_counts() -> None:
    found = read(exposition(folded(*GENERATE, *GATE), 500.0))
    assert found["ilab_step_state{step=generate,state=done}"] == 1
    assert found["ilab_step_seconds{step=generate}"] == 20.5
    assert found["ilab_step_progress_ratio{step=generate}"] == 1
    assert found["ilab_step_result{step=generate,name=samples}"] == 36
    assert found["ilab_gate_published{step=gate}"] == 0
    assert found["ilab_teacher_calls_total{step=generate}"] == 30
    assert not any(name.startswith(("ilab_step_eta", "ilab_step_rate", "ilab_teacher_waiting")) for name in found)


def test_silence_is_stuck_only_while_a_step_is_at_work() -> None:
    state = folded(*GENERATE, *TRAIN, *GATE)
    at = 122.0
    assert read(exposition(state, at + 60, stuck=61))["ilab_step_stuck{step=train-phase-1}"] == 0
    found = read(exposition(state, at + 62, stuck=61))
    assert found["ilab_step_stuck{step=train-phase-1}"] == 1
    assert found["ilab_step_stuck{step=generate}"] == 0
    state.end("failed")
    found = read(exposition(state, at + 62, stuck=61))
    assert found["ilab_step_stuck{step=train-phase-1}"] == 0
    assert found["ilab_step_state{step=train-phase-1,state=failed}"] == 1
    assert found["ilab_step_state{step=generate,state=done}"] == 1
    assert found["ilab_run_state{state=failed}"] == 1


def test_a_rate_that_is_not_known_any_more_goes() -> None:
    down = Event("progress", "generate", {"done": 11, "total": 40, "teacher": {**TEACHER, "waiting": True}}, 115.0)
    found = read(exposition(folded(*GENERATE, down), 116.0))
    assert found["ilab_teacher_waiting{step=generate}"] == 1
    assert "ilab_step_rate{step=generate}" not in found and "ilab_step_eta_seconds{step=generate}" not in found
    assert found["ilab_step_rows_accepted_total{step=generate}"] == 9


def test_a_step_that_is_made_again_starts_from_the_beginning_and_notes_start_nothing() -> None:
    again = [Event("started", "generate", {}, 200.0), Event("metric", "gate", {"note": "x"}, 201.0)]
    found = read(exposition(folded(*GENERATE, *GATE, *again), 203.0))
    assert found["ilab_step_seconds{step=generate}"] == 3.0
    assert found["ilab_step_state{step=gate,state=done}"] == 1


def test_names_cannot_break_the_text() -> None:
    name = 'a"b\\c\nd'
    text = exposition(folded(Event("started", name, {}, 1.0), run=name), 2.0)
    parser = pytest.importorskip("prometheus_client.parser")
    labels = [s.labels for f in parser.text_string_to_metric_families(text) for s in f.samples]
    assert {one["run"] for one in labels} == {name}
    assert {one["step"] for one in labels if "step" in one} == {name}


def test_numbers_that_are_none_are_left_out() -> None:
    odd = Event("progress", "x", {"done": 1, "total": None, "rate": float("nan"), "eta": "soon", "teacher": None}, 1.0)
    found = read(exposition(folded(odd), 2.0))
    assert not any("ratio" in name or "rate" in name or "eta" in name for name in found)


def test_the_plan_of_a_run_tells_what_is_still_waiting(tmp_path: Path) -> None:
    plan = {"plan": {"steps": [{"name": "taxonomy"}, {"name": "generate"}]}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    state = RunState.of(tmp_path, 50.0)
    state.take(GENERATE[0])
    found = read(exposition(state, 101.0))
    assert found["ilab_run_steps{}"] == 2
    assert found["ilab_step_state{step=taxonomy,state=waiting}"] == 1
    (tmp_path / "plan.json").write_text("{torn")
    assert RunState.of(tmp_path, 50.0).steps == {}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is not installed")
def test_promtool_finds_nothing_to_complain_of() -> None:
    text = exposition(folded(*GENERATE, *TRAIN, *GATE), 130.0, free=5)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_metric_has_a_source() -> None:
    shown = set(exposition(folded(*GENERATE, *TRAIN, *GATE[1:]), 130.0, free=1).split())
    late = Event("metric", "train-phase-1", {"validation_loss": 1.0}, 1.0)
    shown |= set(exposition(folded(late), 2.0).split())
    assert {metric.name for metric in METRICS} <= shown
    assert set(BY_FIGURE) == {*PROGRESS, *METRIC, "ratio"}
