"""One training phase as the pipeline sees it: a dataset and a base in, candidates out."""

from __future__ import annotations

from typing import Any

from ilab.artifacts import Candidates, Checkpoint, Dataset
from ilab.core.files import write_json
from ilab.core.step import Counts, Site
from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.training.encode import encode_rows, split_rows


def train_phase(fields: dict[str, Any], dataset: Dataset, base: Checkpoint, out: Candidates, site: Site) -> Counts:
    """Encode, audit, train, save. ``fields`` are those of ``TrainSettings``.

    Raises InputError for data that cannot be trained on, Stopped after saving when the site says stop.
    """
    from ilab.models.device import pick_device
    from ilab.training.loop import TrainJob, TrainSettings, train

    settings = TrainSettings.model_validate(fields)
    rows = dataset.rows()
    if not rows:
        raise InputError("the dataset of this phase is empty", hint="look at what was rejected: ilab report open")
    site.emit.progress(0, None, "rows", note="tokenising")
    data = encode_rows(rows, Renderer.load(base.model), settings.max_length)
    data, held_out = split_rows(data, settings.validation, settings.seed)
    job = TrainJob(
        data=data,
        held_out=held_out,
        base=base.model,
        out=out.path,
        work=site.work,
        settings=settings,
        device=pick_device(site.where.device),
        threads=site.where.threads,
        emit=site.emit,
        stopping=site.stopping,
    )
    index = train(job)
    out.write_index(index)
    write_json(out.path / "left_out.json", [{"id": name, "reason": reason} for name, reason in data.left_out])
    return {
        "candidates": len(index),
        "rows": len(data.rows),
        "held_out": len(held_out.rows),
        "left_out": len(data.left_out),
        "steps": index[-1]["step"],
        "tokens_per_epoch": sum(data.lengths),
    }
