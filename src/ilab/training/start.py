"""Before anything is spent: what a training will take, and whether this machine has it.

    the estimate ─▶ (where.train.probe) one step of the real model ─▶ disk, memory: enough, or what to change

What a plan tells before there is a job is in :mod:`ilab.training.forecast`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab.config import TrainWhere, Where
from ilab.core.files import read_json
from ilab.errors import InputError, SetupError
from ilab.training.architecture import architecture
from ilab.training.estimate import Estimate, estimate
from ilab.training.metrics import read_metrics
from ilab.training.probe import corrected, emulates_bf16, keep_speed, known_speed, machine_of, probe, speed_key
from ilab.training.settings import TrainSettings

if TYPE_CHECKING:
    from ilab.training.loop import TrainJob

RECENT = 50  # steps whose speed is kept


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
    job.emit.metric(note=summary(made))
    check_disk(made, job.work, held=_held(job.work))
    if not made.fits:
        trouble = not_enough(made)
        if job.where.forecast == "refuse":
            raise trouble
        job.emit.metric(note=trouble.message)
    return made


def device_of(where: Where) -> str:
    """The device that trains: this machine's, or the pods'. Raises ``SetupError`` for one that is not here."""
    from ilab.models.device import pick_device

    return pick_device(where.device) if where.train.launcher == "here" else where.train.kubernetes.device


def tell_emulated(job: TrainJob, device: str) -> None:
    """Say it where bf16 is asked for and the device only imitates it: the run would be slower than with fp32."""
    if job.settings.precision == "bf16" and emulates_bf16(device):
        job.emit.metric(note=f"device {device} only imitates bf16: train_precision=fp32 is faster here")


def summary(made: Estimate) -> str:
    """One line for people."""
    parts = [f"{made.steps:,} steps, {made.tokens:,} tokens", f"about {size(made.memory.total)} of memory"]
    parts.append(f"{size(made.disk.total)} of disk")
    if made.seconds is not None:
        parts.append(f"{made.seconds / 60:,.0f} min" if made.seconds >= 90 else f"{max(made.seconds, 1):,.0f} s")
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
    machine = machine_of(device, job.work, job.where, speed)
    lengths = job.data.lengths
    if job.where.probe:
        alone = estimate(config, job.settings, lengths, replace(machine, size=1), job.where)
        found = corrected(alone, probe(job, device))
        machine = replace(found, size=machine.size, speed=found.speed if machine.size == 1 else speed)
    return estimate(config, job.settings, lengths, machine, job.where)


def _held(work: Path) -> int:
    """Bytes that an earlier, stopped run of the same job left: they are part of what it writes in all."""
    return sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
