"""The candidates of a run: the models it saves on its way, of which a later step chooses one.

Saved whenever so many epochs, steps, samples or tokens are crossed since the last, and at the end. Of the older ones
the newest ``keep`` stay, and the one with the lowest loss on held-out rows; one goes only when the next is whole.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.core.files import take_over, write_json, write_text
from ilab.training.metrics import FILE, MEASURED, read_metrics
from ilab.training.settings import TrainSettings

CURSOR = "cursor.json"
FOLDER = "candidates"


@dataclass(frozen=True)
class Cursor:
    """How far a run has come, from its start: optimizer steps, whole epochs, samples and tokens."""

    steps: int = 0
    epochs: int = 0
    samples: int = 0
    tokens: int = 0


def due(settings: TrainSettings, before: Cursor, after: Cursor) -> bool:
    """Whether a candidate is saved between the two: a multiple of the amount has been crossed.

    Crossed, not met: steps of 128 samples meet a multiple of 1,000 only by chance. At the end one is saved anyway.
    """
    done, was = (int(getattr(cursor, settings.save_unit)) // settings.save_every for cursor in (after, before))
    return done > was


def name_of(settings: TrainSettings, cursor: Cursor) -> str:
    """Names sort by age."""
    if settings.save_unit == "epochs":
        return f"epoch-{cursor.epochs:03d}"
    return f"{settings.save_unit}-{getattr(cursor, settings.save_unit):09d}"


def folder_of(work: Path, settings: TrainSettings, cursor: Cursor) -> Path:
    return work / FOLDER / name_of(settings, cursor)


def note(folder: Path, cursor: Cursor, loss: float | None) -> None:
    """Write beside a candidate what it is. ``loss``: nats a token on the held-out rows, None without any."""
    write_json(folder / CURSOR, {"epoch": cursor.epochs, "step": cursor.steps, "loss": loss})


def prune(work: Path, keep: int | None) -> None:
    """Remove all but the newest ``keep`` and the best."""
    for path in (work / FOLDER).iterdir():
        if not (path / CURSOR).is_file():  # a run died while it removed this
            shutil.rmtree(path)
    folders = sorted((work / FOLDER).iterdir())
    if keep is None or len(folders) <= keep:
        return
    losses = {path: json.loads((path / CURSOR).read_text())["loss"] for path in folders}
    known = [path for path in folders if losses[path] is not None]
    best = {min(known, key=lambda path: losses[path])} if known else set()
    for path in folders[:-keep]:
        if path not in best:
            shutil.rmtree(path)


def collect(work: Path, out: Path) -> list[dict[str, Any]]:
    """Link the candidates into the artifact ``out``, with the metrics that are content (no times, no memory).

    Returns the index: name, epoch, step, losses; earliest first.
    """
    metrics = [{key: value for key, value in row.items() if key not in MEASURED} for row in read_metrics(work)]
    index = []
    for folder in sorted((work / FOLDER).iterdir()):
        cursor = json.loads((folder / CURSOR).read_text())
        losses = [row["loss"] for row in metrics if row["epoch"] == max(cursor["epoch"] - 1, 0)]
        # Linked, not moved: a crash here leaves the candidates where a resumed run finds them.
        shutil.copytree(folder, out / folder.name, copy_function=take_over, ignore=lambda *_: {CURSOR})
        index.append({"name": folder.name, **cursor, "training_loss": _mean(losses)})
    write_text(out / FILE, "".join(json.dumps(row, sort_keys=True) + "\n" for row in metrics))
    return index


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
