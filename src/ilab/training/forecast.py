"""What a training that has not begun will take where it is going to run: for a plan, before there is a job.

    rows ─▶ lengths_of ─▶ expect     steps, tokens, time: a line of ``ilab plan``
                       └▶ forecast   memory and disk too ─▶ verdict, of ``ilab model train --dry-run``

A run itself asks :func:`ilab.training.start.before_start`, which has the tokens already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ilab.config import Where
from ilab.core.files import read_json
from ilab.data import TrainingRow
from ilab.errors import InputError
from ilab.training.audit import Tally
from ilab.training.encode import held_out
from ilab.training.estimate import Estimate, estimate
from ilab.training.pieces import EncodeOptions
from ilab.training.plan import steps_per_epoch
from ilab.training.probe import known_speed, machine_of
from ilab.training.records import of_row
from ilab.training.settings import TrainSettings
from ilab.training.start import device_of, key_of, not_enough, size, summary
from ilab.training.workers import cut_in_order

SAMPLE = 2000  # rows that are tokenised to tell how long all of them are


def expect(fields: dict[str, Any], rows: Sequence[TrainingRow], base: Path, where: Where) -> dict[str, float]:
    """``steps`` and ``tokens`` of a training on ``rows``, and ``seconds`` where its speed is known from before.

    ``InputError`` where the training would be refused for its data.
    """
    settings = TrainSettings.model_validate(fields)
    lengths = lengths_of(settings, rows, base)
    tokens = sum(lengths) * settings.epochs
    made: dict[str, float] = {"steps": steps_per_epoch(len(lengths), settings.batch) * settings.epochs}
    speed = _speed(settings, base, where)
    return {**made, "tokens": tokens, **({"seconds": tokens / speed} if speed else {})}


def forecast(fields: dict[str, Any], rows: Sequence[TrainingRow], base: Path, where: Where) -> tuple[bool | None, str]:
    """Whether there is what a training on ``rows`` takes (None: nobody knows), and some lines for people.

    Raises ``SetupError`` for a device that is not there.
    """
    settings = TrainSettings.model_validate(fields)
    if not rows:
        return True, "no rows: the base is handed on as it is"
    try:
        lengths = lengths_of(settings, rows, base)
    except InputError as error:
        return False, "\n".join(part for part in (f"it would be refused: {error.message}", error.hint) if part)
    device, place = device_of(where), Path(where.store or ".")
    machine = machine_of(device, place, where.train, _speed(settings, base, where))
    try:
        made = estimate(read_json(base / "config.json"), settings, lengths, machine, where.train)
    except InputError as error:
        return None, f"what it takes is not known before it starts: {error.message}"
    return (None if machine.memory is None else made.fits), verdict(made)


def lengths_of(settings: TrainSettings, rows: Sequence[TrainingRow], base: Path) -> list[int]:
    """Tokens of each piece that is trained on, in the order of ``rows``, without those that are held out.

    Of long lists every so-many-th row is tokenised and stands for those behind it. Raises ``InputError`` where the
    training would be refused for its data.
    """
    from ilab.models.renderer import Renderer

    options = EncodeOptions.model_validate(settings.model_dump(include=set(EncodeOptions.model_fields)))
    held = held_out([row.id for row in rows], settings.validation, settings.seed)
    learnt = [row for row, out in zip(rows, held, strict=True) if not out]
    if not learnt:
        return []
    every = -(-len(learnt) // SAMPLE)
    renderer = Renderer.load(base)
    tally, found = Tally(options, renderer), list[int]()
    for number, (sample, cut) in enumerate(cut_in_order(map(of_row, learnt[::every]), renderer, options)):
        tally.add(sample, cut)
        found += [len(piece.encoded.ids) for piece in cut.pieces] * min(every, len(learnt) - number * every)
    tally.audit().check()
    return found


def verdict(made: Estimate) -> str:
    """Two or three lines for people: what it takes, and whether that is there."""
    if made.machine.memory is None:
        return f"{summary(made)}\nnobody knows how much memory device {made.machine.device} has free there"
    if made.fits:
        return f"{summary(made)}\nit fits: {size(made.machine.memory)} are free on device {made.machine.device}"
    trouble = not_enough(made)
    return f"{summary(made)}\nit does not fit: {trouble.message}\n{trouble.hint}"


def _speed(settings: TrainSettings, base: Path, where: Where) -> float | None:
    """Tokens a second of the last training like this one here; None where there was none, or where pods train."""
    if where.train.launcher != "here":
        return None
    config = read_json(base / "config.json")
    devices = ("cuda", "mps", "cpu") if where.device == "auto" else (where.device,)
    keys = (key_of(config, settings, device, where.threads, where.train) for device in devices)
    return next((found for key in keys if (found := known_speed(key)) is not None), None)
