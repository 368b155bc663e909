"""Several processes train as one does: real ones, under torchrun, with gloo between them and FSDP2 around the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import Trains

from ilab.config import TrainWhere
from ilab.errors import InputError, Stopped

TWO = TrainWhere(processes=2)


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path, name: str = "epoch-003") -> dict[str, torch.Tensor]:
    return load_file(folder / "out" / name / "model.safetensors")


@pytest.mark.parametrize("layout", ["bucketed", pytest.param("packed", marks=pytest.mark.long)])
def test_two_processes_train_what_one_does(trains: Trains, tmp_path: Path, layout: str) -> None:
    settings = {"batch": 3, "validation": 0.2}
    alone = trains(tmp_path / "one", **settings)
    together = trains(tmp_path / "two", where=TrainWhere(processes=2, layout=layout), **settings)
    for first, second in zip(steps(tmp_path / "one"), steps(tmp_path / "two"), strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
        assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-4)
        assert first["trained_tokens"] == second["trained_tokens"]
    for first, second in zip(alone, together, strict=True):
        assert first["name"] == second["name"] and first["loss"] == pytest.approx(second["loss"], rel=1e-4)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_in_four_bits_are_shared_out_too(trains: Trains, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    settings = {"method": "qlora", "precision": precision, "learning_rate": 1e-2}
    trains(tmp_path / "one", **settings)
    trains(tmp_path / "two", where=TWO, **settings)
    close = 1e-4 if precision == "fp32" else 2e-2
    losses = [[row["loss"] for row in steps(tmp_path / name)] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=close)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.long
def test_another_number_of_processes_goes_on_where_one_stopped(trains: Trains, tmp_path: Path) -> None:
    """Two, then one, then two: the state is re-sharded each time."""
    whole = trains(tmp_path / "whole")
    folder = tmp_path / "parts"
    for stop_at, where in ((2, TWO), (3, TrainWhere()), (None, TWO)):
        calls = iter(range(1, 1000))
        metrics = folder / "work" / "metrics.jsonl"

        def stopping(stop_at: int | None = stop_at, metrics: Path = metrics, calls: Any = calls) -> bool:
            done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
            return stop_at is not None and next(calls) > 0 and done >= stop_at

        if stop_at is None:
            index = trains(folder, where=where)
        else:
            with pytest.raises(Stopped):
                trains(folder, stopping, where)
    assert [entry["name"] for entry in index] == [entry["name"] for entry in whole]
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(tensor, weights(folder)[name], rtol=1e-3, atol=1e-5)
    assert [row["step"] for row in steps(folder)] == list(range(1, 10))


@pytest.mark.long
def test_what_the_processes_fail_of_is_told_as_if_one_had_failed(trains: Trains, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no number") as caught:
        trains(tmp_path, where=TWO, learning_rate=1e30, epochs=30)
    assert "train_learning_rate" in caught.value.hint
