"""A training job as a folder, for processes that are started somewhere else: plain JSON and arrays, no pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ilab.config import TrainWhere
from ilab.core.events import Emit
from ilab.core.files import read_json, write_json
from ilab.training.encode import EncodedSet
from ilab.training.loop import TrainJob
from ilab.training.settings import TrainSettings

FOLDER, JOB = "job", "job.json"


def write_job(job: TrainJob, device: str) -> Path:
    """Write ``job`` to ``work/job``. Returns the folder."""
    folder = job.work / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / JOB).unlink(missing_ok=True)  # written last: where it stands, all of it does
    for name, data in (("data", job.data), ("held_out", job.held_out)):
        _write_set(folder / name, data)
    told = {
        "base": str(job.base.resolve()),
        "work": str(job.work.resolve()),
        "device": device,
        "threads": job.threads,
        "dropped_tokens": job.dropped_tokens,
        "settings": job.settings.model_dump(mode="json"),
        "where": job.where.model_dump(mode="json"),
    }
    write_json(folder / JOB, told)
    return folder


def read_job(folder: Path, emit: Emit, stopping: Callable[[], bool]) -> tuple[TrainJob, str]:
    """The job of a folder, and the device that it asks for."""
    told: dict[str, Any] = read_json(folder / JOB)
    job = TrainJob(
        data=_read_set(folder / "data"),
        held_out=_read_set(folder / "held_out"),
        base=Path(told["base"]),
        work=Path(told["work"]),
        settings=TrainSettings.model_validate(told["settings"]),
        emit=emit,
        stopping=stopping,
        threads=told["threads"],
        where=TrainWhere.model_validate(told["where"]),
        dropped_tokens=told["dropped_tokens"],
    )
    return replace(job), told["device"]


def _write_set(stem: Path, data: EncodedSet) -> None:
    ids = [np.asarray(row, dtype=np.uint32) for row in data.ids]
    masks = [np.asarray(row, dtype=np.bool_) for row in data.trained]
    np.savez(
        stem.with_suffix(".npz"),
        ids=np.concatenate(ids) if ids else np.zeros(0, np.uint32),
        trained=np.concatenate(masks) if masks else np.zeros(0, np.bool_),
        ends=np.cumsum([len(row) for row in ids], dtype=np.int64),
    )
    write_json(stem.with_suffix(".json"), {"rows": list(data.rows)})


def _read_set(stem: Path) -> EncodedSet:
    with np.load(stem.with_suffix(".npz"), allow_pickle=False) as found:
        ends = found["ends"][:-1] if len(found["ends"]) else found["ends"]
        count = len(found["ends"])
        ids = np.split(found["ids"].astype(np.int64), ends) if count else []
        masks = np.split(found["trained"], ends) if count else []
    rows = read_json(stem.with_suffix(".json"))["rows"]
    return EncodedSet(tuple(rows), tuple(ids), tuple(masks), ())
