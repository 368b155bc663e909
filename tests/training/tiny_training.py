"""Ten rows to train on, and how a test trains on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ilab.config import TrainWhere
from ilab.data import Message, TrainingRow

SETTINGS = {"epochs": 3, "batch": 4, "learning_rate": 3e-3, "max_length": 128, "max_batch_tokens": 128, "seed": 3}


def row(index: int, question: str, answer: str) -> TrainingRow:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return TrainingRow(id=f"r{index}", leaf="l", source="skill", sample=f"s{index}", messages=messages)


ROWS = [row(i, f"What is {i} plus {i}? " * (1 + i % 3), f"It is {2 * i}." * (1 + i % 2)) for i in range(10)]


class Trains(Protocol):
    def __call__(
        self,
        folder: Path,
        stopping: Callable[[], bool] = ...,
        where: TrainWhere = ...,
        base: Path | None = ...,
        **settings: Any,
    ) -> list[dict[str, Any]]: ...
