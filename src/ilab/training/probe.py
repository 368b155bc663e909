"""What can be found out of this machine before training: free memory and disk, its peak, and one step of the model.

The step is that of the largest planned micro-batch, twice over with the update between, in a process of its own: what
is measured there is what the run will hold, and nothing of it stays. ``-m ilab.training.probe FOLDER`` is that process,
for a job that :mod:`ilab.training.handover` wrote.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ilab.config import TrainWhere, cache_home
from ilab.core.files import read_json, write_json
from ilab.core.step import fingerprint
from ilab.errors import InputError, SetupError
from ilab.training.estimate import Estimate
from ilab.training.memory import Machine

if TYPE_CHECKING:
    from ilab.training.loop import TrainJob

SPEEDS = "training-speed.json"
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(?:([kKMGTP])(i?))?")
LIMIT = 0.2  # seconds in which the peak is measured
LEAST = 0.5  # of the closed form: small models vanish in what Python and PyTorch hold
SIDES = {"cpu": 384, "cuda": 4096, "mps": 2048}  # of the square matrices


@dataclass(frozen=True)
class Probe:
    """One step's peak of memory (bytes, on one device) and its seconds, for ``tokens`` of the samples."""

    peak: int
    seconds: float
    tokens: int

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def machine_of(device: str, work: Path, where: TrainWhere, speed: float | None = None) -> Machine:
    """Where a training runs: here, or in pods. ``speed`` is in tokens a second, and known of this machine alone."""
    return this_machine(device, work, where, speed) if where.launcher == "here" else pod(device, work, where)


def this_machine(device: str, work: Path, where: TrainWhere, speed: float | None = None) -> Machine:
    """The free memory of ``device`` (a torch device), or of this process's share, and the free disk under ``work``."""
    memory = free_memory(device)
    if memory is not None and device == "cpu":
        memory //= where.processes
    return Machine(device, where.world, memory, shutil.disk_usage(_existing(work)).free, speed)


def pod(device: str, work: Path, where: TrainWhere) -> Machine:
    """What is known of a pod that trains: a process's share of its memory limit, where the CPU trains; the free disk.

    How much memory its GPUs have nobody says. Raises ``InputError`` for a limit that is no quantity of Kubernetes.
    """
    memory = quantity(where.kubernetes.memory) if device == "cpu" and where.kubernetes.memory else None
    share = memory // where.processes if memory is not None else None
    return Machine(device, where.world, share, shutil.disk_usage(_existing(work)).free)


def quantity(text: str) -> int:
    """Bytes of a quantity as Kubernetes writes it: ``200Gi``, ``1.5G``, ``1000``."""
    found = QUANTITY.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f"{text!r} is no amount of memory", where="where.train.kubernetes.memory", hint="for example 200Gi"
        )
    power = "kmgtp".index(found[2].lower()) + 1 if found[2] else 0
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def free_memory(device: str) -> int | None:
    """Bytes that can still be had; None where the system does not say."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if device.startswith("mps"):
        import torch

        return max(int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory()), 0)
    if not MEMINFO.exists():
        return None
    line = next(line for line in MEMINFO.read_text(encoding="ascii").splitlines() if line.startswith("MemAvailable:"))
    return int(min(int(line.split()[1]) * 1024, _container_memory()))


def _container_memory() -> float:
    """What is left below the limit of the container (cgroup, version 2); infinite where there is none."""
    try:
        limit, used = ((CGROUP / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return float("inf")
    return max(int(limit) - int(used), 0) if limit != "max" else float("inf")


@cache
def matrix_peak(device: str, *, low: bool) -> float:
    """Floating-point operations a second of a matrix product (bf16 where ``low``, else fp32), the best of some."""
    import torch

    side = SIDES[device.partition(":")[0]]
    made = torch.ones(side, side, dtype=torch.bfloat16 if low else torch.float32, device=device)
    best, end = float("inf"), time.monotonic() + LIMIT
    while time.monotonic() < end:
        began = time.perf_counter()
        product = made @ made
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return float(2 * side**3 / best)


def emulates_bf16(device: str) -> bool:
    """Whether ``device`` has no bf16 of its own, so that it is slower there than fp32. A CPU is measured."""
    if device.startswith("cuda"):
        import torch

        return not torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and matrix_peak(device, low=True) < matrix_peak(device, low=False)


def probe(job: TrainJob, device: str) -> Probe:
    """Run one step of ``job`` in a process of its own. Raises ``SetupError`` where it does not get through it."""
    from ilab.training.handover import write_job

    folder = write_job(job, device)
    done = subprocess.run(
        [sys.executable, "-m", "ilab.training.probe", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
    )
    if done.returncode:
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it was killed")
        raise SetupError(
            f"one step of this model does not get through here: {said.strip()[:300]}",
            where="where.train.probe",
            hint="lower train_max_batch_len, or --set where.train.activation_checkpointing=true",
        )
    told = json.loads(done.stdout.splitlines()[-1])
    return Probe(told["peak"], told["seconds"], told["tokens"])


def corrected(made: Estimate, seen: Probe) -> Machine:
    """The machine of ``made`` (an estimate for one device) as it was seen, to estimate again with."""
    memory, machine = made.memory, made.machine
    rest = memory.weights + memory.optimizer + memory.process + memory.gradients + memory.logits + memory.gathered
    found = (seen.peak - rest) / max(memory.activations, 1)
    return replace(machine, speed=seen.speed, correction=machine.correction * max(found, LEAST))


def speed_key(config: object, how: object, device: str, threads: int, world: int) -> str:
    """Under which a speed is kept: what it depends on, besides the samples. The first two are plain JSON."""
    return fingerprint(config, how, device.partition(":")[0], platform.node(), threads, world)


def known_speed(key: str) -> float | None:
    """Tokens a second of the last run of this kind on this machine."""
    try:
        found = read_json(cache_home() / SPEEDS)[key]
    except (OSError, ValueError, KeyError, TypeError):  # never trained, or a file that is not ours to mend
        return None
    return float(found)


def keep_speed(key: str, speed: float) -> None:
    path = cache_home() / SPEEDS
    try:
        known = read_json(path)
    except (OSError, ValueError):
        known = {}
    write_json(path, {**known, key: round(speed, 1)} if isinstance(known, dict) else {key: round(speed, 1)})


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def main(folder: Path) -> None:
    """Rehearse a job and tell what it took."""
    from ilab.core.events import Bus
    from ilab.training.handover import read_job
    from ilab.training.loop import rehearse
    from ilab.training.metrics import peak_memory

    job, device = read_job(folder, Bus().for_step("probe"), lambda: False)
    tokens, seconds = rehearse(replace(job, work=folder), device)
    sys.stdout.write(json.dumps({"peak": peak_memory(device), "seconds": seconds, "tokens": tokens}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
