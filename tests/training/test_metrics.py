"""The metrics file: every line by its schema, measured apart from content, and numbers that can be worked out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import Trains

from ilab.config import TrainWhere
from ilab.core.events import Bus
from ilab.training import probe
from ilab.training.metrics import FILE, MEASURED, SCHEMA, Gauge, Metrics, Spent, idle_share, peak_memory, read_metrics
from ilab.training.plan import MicroBatch, StepPlan

FOUND = {"loss": 2.0, "gradient_norm": 1.0, "learning_rate": 0.1}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def conforms(row: dict[str, Any]) -> None:
    columns = {column.name: column for column in SCHEMA}
    assert set(row) <= set(columns)
    assert {name for name, column in columns.items() if not column.optional} <= set(row)
    for name, value in row.items():
        assert isinstance(value, (int, float) if columns[name].kind is float else columns[name].kind), name
        assert value == value and abs(value) != float("inf")


def test_every_line_of_a_run_is_by_the_schema_and_only_content_reaches_the_artifact(
    trains: Trains, tmp_path: Path
) -> None:
    index = trains(tmp_path, validation=0.3, save_every=1)
    written = lines(tmp_path / "work" / FILE)
    for row in written:
        conforms(row)
        assert 0 < row["mfu"] < 1.5 and row["tokens_per_second"] > 0 and row["memory"] > 1 << 26
    assert written[-1]["eta"] == 0
    artifact = lines(tmp_path / "out" / FILE)
    assert [{k: v for k, v in row.items() if k not in MEASURED} for row in written] == artifact
    validated = [row["validation_loss"] for row in artifact if "validation_loss" in row]
    assert validated == [entry["loss"] for entry in index]


def test_neither_layout_nor_world_changes_what_reaches_the_artifact(trains: Trains, tmp_path: Path) -> None:
    trains(tmp_path / "a", where=TrainWhere(layout="bucketed"), max_batch_tokens=60, max_length=60)
    trains(tmp_path / "b", where=TrainWhere(layout="packed"), max_batch_tokens=128)
    exact = ("loss", "gradient_norm")
    one, two = (
        [{k: v for k, v in row.items() if k not in exact} for row in lines(tmp_path / name / "out" / FILE)]
        for name in "ab"
    )
    assert one == two


def plan(*rows: tuple[int, ...], idle: int = 0) -> StepPlan:
    made = [MicroBatch((row,)) for row in rows] + [MicroBatch(((0,),), idle=True)] * idle
    return StepPlan(tuple(made), divisor=10, tokens=20, padded=25, samples=3)


def test_the_numbers_of_a_step(tmp_path: Path) -> None:
    events: list[Any] = []
    gauge = Gauge([10, 10], lambda _: 4e6, peak=1e6, dropped_tokens=7)
    with Metrics(tmp_path, Bus([events.append]).for_step("t"), 2, 0, gauge) as metrics:
        metrics.report(0, 1, plan((0,), (1,)), FOUND, Spent(8.0, 123))
        metrics.report(0, 2, plan((0,), (1,)), {**FOUND, "validation_loss": 1.5}, Spent(2.0, 456))
    first, second = lines(tmp_path / FILE)
    conforms(first)
    assert (first["mfu"], first["tokens_per_second"], first["padding"]) == (0.5, 2.5, 0.2)
    assert (first["dropped_tokens"], first["memory"], first["idle"]) == (7, 123, 0)
    assert (second["mfu"], second["validation_loss"]) == (2.0, 1.5)
    assert [event.kind for event in events] == ["progress", "metric"]


def test_what_a_crash_tore_is_written_again(tmp_path: Path) -> None:
    gauge = Gauge([10, 10])
    with Metrics(tmp_path, Bus().for_step("t"), 3, 0, gauge) as metrics:
        metrics.report(0, 1, plan((0,)), FOUND, Spent(1.0, 1))
        metrics.report(0, 2, plan((0,)), FOUND, Spent(1.0, 1))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    with Metrics(tmp_path, Bus().for_step("t"), 3, 1, gauge) as metrics:
        metrics.report(0, 2, plan((0,)), FOUND, Spent(1.0, 1))
    rows = lines(tmp_path / FILE)
    assert [row["step"] for row in rows] == [1, 2] and "mfu" not in rows[0]


def test_who_waits_for_a_larger_micro_batch_is_idle() -> None:
    lengths = [10, 10, 4, 6]
    assert idle_share(plan((0,), (1,)), lengths, 1) == 0
    assert idle_share(plan((0,), (1,)), lengths, 2) == 0
    assert idle_share(plan((0,), (2,)), lengths, 2) == pytest.approx(0.3)  # 10 and 4 of 2 x 10
    assert idle_share(plan((0,), (1,), (2,), idle=1), lengths, 2) == pytest.approx(1 - 24 / 28)


def test_the_peak_of_a_matrix_product_is_measured_once() -> None:
    torch.set_num_threads(1)
    peak = probe.matrix_peak("cpu", low=False)
    assert 1e8 < peak < 1e13
    assert probe.matrix_peak("cpu", low=False) == peak


def test_the_most_memory_held_is_this_process_own() -> None:
    before = peak_memory("cpu")
    held = torch.ones(30 << 20)
    assert peak_memory("cpu") - before > 60 << 20 or before > 200 << 20
    assert held.sum().item() > 0
