"""One training phase as the pipeline sees it: a dataset and a base in, candidates out.

A phase for which the taxonomy has nothing (no skills, or no knowledge) hands its base on as the only candidate.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ilab.artifacts import Candidates, Checkpoint, Dataset
from ilab.config import cache_home
from ilab.core.files import take_over, write_json, write_text
from ilab.core.step import Counts, Site
from ilab.models.renderer import Renderer
from ilab.training.candidates import collect
from ilab.training.encode import split_rows
from ilab.training.pieces import EncodeOptions
from ilab.training.records import of_row
from ilab.training.shards import encode_set


def train_phase(fields: dict[str, Any], dataset: Dataset, base: Checkpoint, out: Candidates, site: Site) -> Counts:
    """Encode, audit, train, save. ``fields`` are those of ``TrainSettings``.

    Raises InputError for data that cannot be trained on, Stopped after saving when the site says stop.
    """
    from ilab.training.launch import run_job
    from ilab.training.loop import TrainJob
    from ilab.training.settings import TrainSettings
    from ilab.training.start import device_of

    settings = TrainSettings.model_validate(fields)
    rows = dataset.rows()
    if not rows:
        return _hand_on(base, out)
    site.emit.progress(0, None, "rows", note="tokenising")
    data = encode_set(
        [of_row(row) for row in rows],
        Renderer.load(base.model),
        EncodeOptions.model_validate(settings.model_dump(include=set(EncodeOptions.model_fields))),
        (Path(site.where.cache) if site.where.cache else cache_home()) / "tokens",
    )
    data, held_out = split_rows(data, settings.validation, settings.seed)
    if settings.validation and not held_out.ids:
        few = f"{len(data.rows):,} rows are too few for train_validation_share={settings.validation:g}"
        site.emit.metric(note=f"no row is held out of training, so no loss can choose a checkpoint: {few}")
    job = TrainJob(
        data=data,
        held_out=held_out,
        base=base.model,
        work=site.work,
        settings=settings,
        emit=site.emit,
        stopping=site.stopping,
        threads=site.where.threads,
        where=site.where.train,
        dropped_tokens=data.audit.lost if data.audit is not None else 0,
    )
    run_job(job, device_of(site.where))
    index = collect(site.work, out.path)
    out.write_index(index)
    if data.audit is not None:
        write_json(out.path / "audit.json", data.audit.model_dump(mode="json"))
    return {
        "candidates": len(index),
        "rows": len(data.rows),
        "held_out": len(held_out.rows),
        "left_out": len(data.left_out),
        "steps": index[-1]["step"],
        "tokens_per_epoch": sum(data.lengths),
    }


def _hand_on(base: Checkpoint, out: Candidates) -> Counts:
    """The base, untouched, as what this phase made of it."""
    shutil.copytree(base.model, out.path / "unchanged", copy_function=take_over)
    out.write_index([{"name": "unchanged", "epoch": 0, "step": 0}])
    write_text(out.path / "metrics.jsonl", "")
    return {"candidates": 1, "rows": 0, "steps": 0}
