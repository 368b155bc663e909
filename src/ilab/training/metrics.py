"""What a run tells while it goes: one JSON object a step in ``metrics.jsonl``, events, and how much is left.

The file is the contract, and :data:`SCHEMA` says what is in it (``docs/reference/training-metrics.md`` is written from
it): a line is written whole or, after a crash, cut off at the step that will be trained again. Everything else that
wants to know reads it. What is *measured*, or depends on where the run ran, never reaches the artifact.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.core.events import Emit
from ilab.training.estimate import load_of
from ilab.training.plan import StepPlan

FILE = "metrics.jsonl"
TELL = 0.5  # seconds between two events
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Column:
    """One key of a line. ``measured``: it differs from run to run; ``optional``: not every line has it."""

    name: str
    kind: type
    unit: str
    meaning: str
    measured: bool = False
    optional: bool = False


SCHEMA = (
    Column("step", int, "", "optimizer step, from 1"),
    Column("epoch", int, "", "epoch, from 0"),
    Column("samples", int, "samples", "samples of the step"),
    Column("tokens", int, "tokens", "their tokens, without padding"),
    Column("trained_tokens", int, "tokens", "those of them that bear loss: the divisor of the loss"),
    Column("dropped_tokens", int, "tokens", "tokens of the rows that were left out of every epoch"),
    Column("loss", float, "nats/token", "mean cross-entropy of the trained tokens"),
    Column("gradient_norm", float, "", "norm of the gradient before it is clipped"),
    Column("learning_rate", float, "", "of this step"),
    Column(
        "validation_loss", float, "nats/token", "loss of the rows held out, where a candidate is saved", optional=True
    ),
    Column("seconds", float, "s", "time of the step, without saving and validation", True),
    Column("tokens_per_second", float, "tokens/s", "tokens / seconds, over all devices", True),
    Column(
        "mfu",
        float,
        "",
        "share of the measured matrix-product peak that useful operations reach (arXiv 2204.02311)",
        True,
        True,
    ),
    Column("padding", float, "", "share of the computed tokens that is padding", True),
    Column(
        "idle", float, "", "share of the devices' time that passes waiting for a larger micro-batch, as planned", True
    ),
    Column("memory", int, "bytes", "most memory held so far by the first process, or on its GPU", True),
    Column("eta", float, "s", "time until the last step, at the speed so far", True),
)
MEASURED = tuple(column.name for column in SCHEMA if column.measured)


@dataclass(frozen=True)
class Gauge:
    """What the numbers of a step are measured against.

    ``flops`` says how many floating-point operations a step needs (None where nobody knows), ``peak`` how many a second
    all devices together were seen to do; ``lengths`` are those of the samples, ``size`` is the number of devices.
    """

    lengths: Sequence[int]
    flops: Callable[[StepPlan], float] | None = None
    peak: float = 0.0
    size: int = 1
    dropped_tokens: int = 0


@dataclass(frozen=True)
class Spent:
    """Seconds of one step, and the most bytes held since the start."""

    seconds: float
    memory: int


class Metrics:
    """Appends to ``work/metrics.jsonl`` from step ``done`` on. A context manager."""

    def __init__(self, work: Path, emit: Emit, total: int, done: int, gauge: Gauge) -> None:
        self._path = work / FILE
        self._emit, self.total, self._done, self._gauge = emit, total, done, gauge
        kept = [row for row in read_metrics(work) if row["step"] <= done]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._began = self._told = time.monotonic()
        self._tokens = 0

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def report(self, epoch: int, step: int, plan: StepPlan, found: dict[str, float], spent: Spent) -> None:
        """One step is done. ``found`` has loss (nats a trained token), gradient_norm and learning_rate."""
        now = time.monotonic()
        left = (now - self._began) / max(step - self._done, 1) * (self.total - step)
        row = {
            "step": step,
            "epoch": epoch,
            "samples": plan.samples,
            "tokens": plan.tokens,
            "trained_tokens": plan.divisor,
            "dropped_tokens": self._gauge.dropped_tokens,
            **found,
            **self._measured(plan, spent),
            "eta": round(left, 1),
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._tokens += plan.tokens
        if now - self._told > TELL or step == self.total:
            self._told = now
            self._emit.progress(
                step,
                self.total,
                "steps",
                note=f"loss {found['loss']:.3f}",
                tokens_per_second=round(self._tokens / max(now - self._began, 1e-9)),
                eta=round(left, 1),
            )
            self._emit.metric(step=step, epoch=epoch, **found)

    def _measured(self, plan: StepPlan, spent: Spent) -> dict[str, float]:
        gauge, seconds = self._gauge, max(spent.seconds, 1e-9)
        reached = {}
        if gauge.flops is not None and gauge.peak:
            reached["mfu"] = round(gauge.flops(plan) / seconds / gauge.peak, 4)
        return {
            "seconds": round(seconds, 4),
            "tokens_per_second": round(plan.tokens / seconds, 1),
            **reached,
            "padding": round(1 - plan.tokens / max(plan.padded, 1), 4),
            "idle": round(idle_share(plan, gauge.lengths, gauge.size), 4),
            "memory": spent.memory,
        }


def idle_share(plan: StepPlan, lengths: Sequence[int], size: int) -> float:
    """Share of the time of ``size`` devices in which one waits for another's larger micro-batch, or has none."""
    work = [0 if one.idle else load_of(one, lengths).tokens for one in plan.micro_batches]
    longest = sum(max(work[start : start + size]) for start in range(0, len(work), size))
    return 1 - sum(work) / max(size * longest, 1)


def read_metrics(work: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's file, up to one that a crash tore."""
    path = work / FILE
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            return


def peak_memory(device: str) -> int:
    """The most bytes held so far: on the device, or of this process where that is the CPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():  # getrusage's number begins with that of whoever started the process
        line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
