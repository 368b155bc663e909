"""What a training that has not begun will take where it is going to run: for a plan, before there is a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ilab.config import Where
from ilab.core.files import read_json
from ilab.data import TrainingRow
from ilab.errors import InputError
from ilab.training.estimate import Estimate, estimate
from ilab.training.pieces import EncodeOptions
from ilab.training.probe import pod, this_machine
from ilab.training.records import of_row
from ilab.training.settings import TrainSettings
from ilab.training.start import SAMPLE, not_enough, size, summary
from ilab.training.workers import cut_in_order


def forecast(fields: dict[str, Any], rows: Sequence[TrainingRow], base: Path, where: Where) -> Estimate | None:
    """The estimate of a training on ``rows`` from the model ``base``, with the settings ``fields``; None without rows.

    Of long lists every so-many-th row stands for those behind it. Raises ``InputError`` for a model of which nothing is
    known before it is loaded, ``SetupError`` for a device that is not there.
    """
    from ilab.models.device import pick_device
    from ilab.models.renderer import Renderer

    settings = TrainSettings.model_validate(fields)
    options = EncodeOptions.model_validate(settings.model_dump(include=set(EncodeOptions.model_fields)))
    every = -(-len(rows) // SAMPLE) or 1
    cuts = cut_in_order(map(of_row, rows[::every]), Renderer.load(base), options)
    lengths = [len(piece.encoded.ids) for _, cut in cuts for piece in cut.pieces for _ in range(every)]
    if not lengths:
        return None
    place = Path(where.store or ".")
    if where.train.launcher == "here":
        machine = this_machine(pick_device(where.device), place, where.train)
    else:
        machine = pod(where.train.kubernetes.device, place, where.train)
    return estimate(read_json(base / "config.json"), settings, lengths, machine, where.train)


def verdict(made: Estimate) -> str:
    """Two or three lines for people: what it takes, and whether that is there."""
    if made.machine.memory is None:
        return f"{summary(made)}\nnobody knows how much memory device {made.machine.device} has free there"
    if made.fits:
        return f"{summary(made)}\nit fits: {size(made.machine.memory)} are free on device {made.machine.device}"
    trouble = not_enough(made)
    return f"{summary(made)}\nit does not fit: {trouble.message}\n{trouble.hint}"


def unknown(error: InputError) -> str:
    """The line for a model of which nothing is known."""
    return f"what it takes is not known before it starts: {error.message}"
