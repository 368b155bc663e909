"""A training job as a folder, for processes that are started somewhere else: plain JSON and arrays, no pickle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ilab.config import TrainWhere
from ilab.core.events import Emit
from ilab.core.files import read_json, write_json
from ilab.training.encode import MASK, TOKEN, EncodedSet, TokenRows
from ilab.training.loop import TrainJob
from ilab.training.settings import TrainSettings

FOLDER, JOB = "job", "job.json"
WATCHING: dict[str, Any] = {"submit": True, "kubernetes": {"kubeconfig", "context", "start_seconds"}}


def write_job(job: TrainJob, device: str) -> Path:
    """Write ``job`` to ``work/job``. Returns the folder."""
    folder = job.work / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / JOB).unlink(missing_ok=True)  # written last: where it stands, all of it does
    for name, data in (("data", job.data), ("held_out", job.held_out)):
        _write_set(folder / name, data)
    write_json(folder / JOB, told(job, device))
    return folder


def told(job: TrainJob, device: str) -> dict[str, Any]:
    """All of ``job`` but its samples, and but what the waiting command alone has a use for, as JSON."""
    where = job.where.model_dump(mode="json", exclude=WATCHING)
    if not job.where.submit:  # no command waits: nobody is missed
        where["kubernetes"]["unattended_seconds"] = None
    return {
        "base": str(job.base.resolve()),
        "work": str(job.work.resolve()),
        "device": device,
        "threads": job.threads,
        "dropped_tokens": job.dropped_tokens,
        "settings": job.settings.model_dump(mode="json"),
        "where": where,
    }


def read_job(folder: Path, emit: Emit, stopping: Callable[[], bool]) -> tuple[TrainJob, str]:
    """The job of a folder, and the device that it asks for."""
    found: dict[str, Any] = read_json(folder / JOB)
    job = TrainJob(
        data=_read_set(folder / "data"),
        held_out=_read_set(folder / "held_out"),
        base=Path(found["base"]),
        work=Path(found["work"]),
        settings=TrainSettings.model_validate(found["settings"]),
        emit=emit,
        stopping=stopping,
        threads=found["threads"],
        where=TrainWhere.model_validate(found["where"]),
        dropped_tokens=found["dropped_tokens"],
    )
    return job, found["device"]


def _write_set(stem: Path, data: EncodedSet) -> None:
    """Flat arrays, which every process maps instead of holding a copy."""
    for name, rows, dtype in (("ids", data.ids, TOKEN), ("trained", data.trained, MASK)):
        parts = [np.asarray(row, dtype=dtype) for row in rows]
        _write_array(Path(f"{stem}.{name}.npy"), np.concatenate([np.zeros(0, dtype), *parts]))
    _write_array(Path(f"{stem}.ends.npy"), np.cumsum(data.lengths, dtype=np.int64))
    write_json(stem.with_suffix(".json"), list(data.rows))


def _write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """In place of an older one at once: a process that maps that one keeps it."""
    beside = path.with_name(f".{path.name}")
    np.save(beside, array)  # the name ends in .npy already
    beside.replace(path)


def _read_set(stem: Path) -> EncodedSet:
    ids, trained = (np.load(f"{stem}.{name}.npy", mmap_mode="c", allow_pickle=False) for name in ("ids", "trained"))
    ends = np.load(f"{stem}.ends.npy", allow_pickle=False)
    rows = read_json(stem.with_suffix(".json"))
    return EncodedSet(tuple(rows), TokenRows.of_ends(ids, ends), TokenRows.of_ends(trained, ends))
