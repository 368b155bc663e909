"""What a run tells while it goes: one JSON object a step in ``metrics.jsonl``, events, and how much is left.

The file is the contract (``docs/reference/training-metrics.md``): a line is written whole or, after a crash, cut off
at the step that will be trained again. Everything else that wants to know reads it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ilab.core.events import Emit
from ilab.training.plan import StepPlan

FILE = "metrics.jsonl"
MEASURED = ("seconds", "memory")  # what differs from run to run


class Metrics:
    """Appends to ``work/metrics.jsonl`` from step ``done`` on. A context manager."""

    def __init__(self, work: Path, emit: Emit, total: int, done: int) -> None:
        self._path = work / FILE
        self._emit, self.total, self._done = emit, total, done
        kept = [row for row in read_metrics(work) if row["step"] <= done]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._began = self._told = self._last = time.monotonic()
        self._tokens = 0

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def report(self, epoch: int, step: int, plan: StepPlan, measured: dict[str, float], memory: int) -> None:
        """One step is done. ``measured`` has loss (nats a trained token), gradient_norm and learning_rate."""
        now = time.monotonic()
        row = {
            "step": step,
            "epoch": epoch,
            "samples": plan.samples,
            "tokens": plan.tokens,
            "trained_tokens": plan.divisor,
            "padding": round(1 - plan.tokens / max(plan.padded, 1), 4),
            **measured,
            "seconds": round(now - self._last, 4),
            "memory": memory,
        }
        self._last = now
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._tokens += plan.tokens
        if now - self._told > 0.5 or step == self.total:
            self._told = now
            seconds = now - self._began
            self._emit.progress(
                step,
                self.total,
                "steps",
                note=f"loss {measured['loss']:.3f}",
                tokens_per_second=round(self._tokens / max(seconds, 1e-9)),
                eta=round(seconds / max(step - self._done, 1) * (self.total - step), 1),
            )
            self._emit.metric(step=step, epoch=epoch, **measured)


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
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
