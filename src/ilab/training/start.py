"""Before anything is spent: what a training will take, and whether this machine has it.

    the estimate ─▶ (where.train.probe) one step of the real model ─▶ disk, memory: enough, or what to change

``ilab plan`` shows steps, tokens and time by :func:`expect_training`; a run asks :func:`before_start`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab.config import TrainWhere, Where
from ilab.core.files import read_json
from ilab.data import TrainingRow
from ilab.errors import InputError, SetupError
from ilab.training.architecture import architecture
from ilab.training.estimate import Estimate, estimate
from ilab.training.metrics import read_metrics
from ilab.training.probe import corrected, keep_speed, known_speed, pod, probe, speed_key, this_machine
from ilab.training.settings import TrainSettings

if TYPE_CHECKING:
    from ilab.training.loop import TrainJob

RECENT = 50  # steps whose speed is kept
SAMPLE = 2000  # rows that are tokenised to tell how long all of them are


def before_start(job: TrainJob, device: str) -> Estimate | None:
    """Estimate ``job`` and tell it in one line; None for a model of which nothing is known before it is loaded.

    Raises ``SetupError`` where the disk will not be enough, or the memory (``where.train.forecast=warn``: it says so
    and goes on).
    """
    config = read_json(job.base / "config.json")
    try:
        architecture(config)
    except InputError:
        return None
    made = _made(job, config, device)
    job.emit.progress(0, made.steps, "steps", note=summary(made))
    check_disk(made, job.work, held=_held(job.work))
    if not made.fits:
        trouble = not_enough(made)
        if job.where.forecast == "refuse":
            raise trouble
        job.emit.progress(0, made.steps, "steps", note=trouble.message)
    return made


def expect_training(fields: dict[str, Any], rows: Sequence[TrainingRow], base: Path, where: Where) -> dict[str, float]:
    """``steps`` and ``tokens`` of a training on ``rows``, and ``seconds`` where its speed is known from before.

    Long lists are told by every so-many-th row, so both are an estimate there.
    """
    from ilab.models.renderer import Renderer
    from ilab.training.pieces import EncodeOptions
    from ilab.training.records import of_row
    from ilab.training.workers import cut_in_order

    settings = TrainSettings.model_validate(fields)
    options = EncodeOptions.model_validate(settings.model_dump(include=set(EncodeOptions.model_fields)))
    every = -(-len(rows) // SAMPLE) or 1
    told = rows[::every]
    cuts = [cut for _, cut in cut_in_order(map(of_row, told), Renderer.load(base), options)]
    lengths = [len(piece.encoded.ids) for cut in cuts for piece in cut.pieces]
    times = len(rows) / max(len(told), 1)
    steps = -(-round(len(lengths) * times) // settings.batch) * settings.epochs
    tokens = round(sum(lengths) * times) * settings.epochs
    config = read_json(base / "config.json")
    devices = ("cuda", "mps", "cpu") if where.device == "auto" else (where.device,)
    keys = (key_of(config, settings, device, where.threads, where.train) for device in devices)
    speed = next((found for key in keys if (found := known_speed(key)) is not None), None)
    return {"steps": steps, "tokens": tokens, **({"seconds": tokens / speed} if speed else {})}


def summary(made: Estimate) -> str:
    """One line for people."""
    parts = [f"{made.steps:,} steps, {made.tokens:,} tokens", f"about {size(made.memory.total)} of memory"]
    parts.append(f"{size(made.disk.total)} of disk")
    if made.seconds is not None:
        parts.append(f"{made.seconds / 60:,.0f} min" if made.seconds >= 90 else f"{made.seconds:,.0f} s")
    return ", ".join(parts)


def check_disk(made: Estimate, work: Path, *, held: int = 0) -> None:
    """Raises ``SetupError`` where less is free than will be written; ``held`` bytes are there from before."""
    needed = made.disk.total - held
    if made.machine.disk is None or needed <= made.machine.disk:
        return
    raise SetupError(
        f"training will write about {size(needed)}, and {size(made.machine.disk)} are free: "
        f"{made.disk.candidates} candidates of {size(made.disk.candidate)}, a state of {size(made.disk.state)} twice",
        where=str(work),
        hint="free some space (ilab pipeline gc), keep fewer candidates (-p train_keep_checkpoints=1), or take another "
        "disk (--store FOLDER); then run the same command again",
    )


def not_enough(made: Estimate) -> SetupError:
    """Says how much memory is missing and which settings to change, with their values."""
    said = " ".join(f"{name}={value}" for name, value in made.change)
    hint = f"change {said}" if said else "take a smaller model, or more devices: --set where.train.processes=N"
    return SetupError(
        f"training will hold about {size(made.memory.total)} of memory on each device, and "
        f"{size(made.machine.memory or 0)} are free",
        where=f"device {made.machine.device}",
        hint=f"{hint} (or --set where.train.forecast=warn, to try all the same)",
    )


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def keep_measured_speed(job: TrainJob, device: str) -> None:
    """Remember how fast the last steps of a run were, for the next plan."""
    rows = list(read_metrics(job.work))[-RECENT:]
    seconds = sum(row["seconds"] for row in rows)
    if seconds > 0:
        key = key_of(read_json(job.base / "config.json"), job.settings, device, job.threads, job.where)
        keep_speed(key, sum(row["tokens"] for row in rows) / seconds)


def key_of(config: Mapping[str, Any], settings: TrainSettings, device: str, threads: int, where: TrainWhere) -> str:
    """The key of the speed with which this model is trained like this here."""
    how = settings.model_dump(include={"method", "precision", "optimizer", "max_batch_tokens", "lora_rank"})
    layout = [where.layout, where.activation_checkpointing, where.compile]
    return speed_key(config, [how, layout], device, threads, where.world)


def _made(job: TrainJob, config: Mapping[str, Any], device: str) -> Estimate:
    """By the closed form; where it is asked for, corrected by one step on one device."""
    speed = known_speed(key_of(config, job.settings, device, job.threads, job.where))
    machine = (
        this_machine(device, job.work, job.where, speed)
        if job.where.launcher == "here"
        else pod(device, job.work, job.where)
    )
    lengths = job.data.lengths
    if job.where.probe:
        alone = estimate(config, job.settings, lengths, replace(machine, size=1), job.where)
        found = corrected(alone, probe(job, device))
        machine = replace(found, size=machine.size, speed=found.speed if machine.size == 1 else speed)
    return estimate(config, job.settings, lengths, machine, job.where)


def _held(work: Path) -> int:
    """Bytes that an earlier, stopped run of the same job left: they are part of what it writes in all."""
    return sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
