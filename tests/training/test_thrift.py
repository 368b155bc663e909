"""What saves memory or time changes no more than it says: each is trained with, and compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_training import Trains

from ilab.config import TrainWhere
from ilab.core.store import digest_tree
from ilab.errors import Stopped
from ilab.training.tiny import TinySpec, make_tiny


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("changed", "close"),
    [
        ({"where": TrainWhere(activation_checkpointing=True)}, 1e-5),
        ({"precision": "bf16"}, 2e-2),
        ({"optimizer": "adamw_8bit"}, 2e-1),
    ],
)
def test_the_losses_are_much_the_same(trains: Trains, tmp_path: Path, changed: dict[str, Any], close: float) -> None:
    trains(tmp_path / "plain")
    trains(tmp_path / "thrifty", **changed)
    assert losses(tmp_path / "thrifty") == pytest.approx(losses(tmp_path / "plain"), rel=close)


def test_moments_in_eight_bits_are_resumed_to_the_same_bytes(trains: Trains, tmp_path: Path) -> None:
    """Of a model whose matrices are large enough to get eight bits, so that they share the table of their codes."""
    make_tiny(tmp_path / "base", TinySpec(width=64, heads=2, feed_forward=64, vocabulary=400))
    changed: dict[str, Any] = {"optimizer": "adamw_8bit", "base": tmp_path / "base"}
    trains(tmp_path / "unbroken", **changed)
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        trains(tmp_path / "broken", lambda: next(calls) == 5, **changed)
    trains(tmp_path / "broken", **changed)
    assert digest_tree(tmp_path / "broken" / "out") == digest_tree(tmp_path / "unbroken" / "out")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of PyTorch's own compiler, which looks at everything
def test_compiled_layers_lose_the_same(trains: Trains, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("PyTorch's compiler needs a C++ compiler")
    trains(tmp_path / "plain", epochs=1)
    trains(tmp_path / "compiled", epochs=1, where=TrainWhere(compile=True))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
