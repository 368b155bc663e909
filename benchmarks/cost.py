"""What a command costs: processor time, wall time and memory of the process and all that it waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cost:
    """``cpu`` (user and system) and ``wall`` in seconds, ``peak`` resident memory in bytes, and what was printed."""

    cpu: float
    wall: float
    peak: int
    output: str


def cost(command: Sequence[str | Path], folder: Path = ROOT, times: int = 3) -> Cost:
    """The run of ``command`` that took the least processor time of several. A failure ends the benchmark.

    The greatest memory counts, of all runs. This process should be small: on Linux a child's peak is never told as
    less than what its parent held when it was started.
    """
    runs = [_run([str(part) for part in command], folder) for _ in range(times)]
    best = min(runs, key=lambda run: run.cpu)
    return Cost(best.cpu, best.wall, max(run.peak for run in runs), best.output)


def python(code: str, *arguments: str | Path) -> list[str | Path]:
    """The command that runs a piece of Python."""
    return [sys.executable, "-c", code, *arguments]


def ilab(*arguments: str | Path) -> list[str | Path]:
    """The command that runs the program."""
    return [sys.executable, "-m", "ilab", *arguments]


def row(name: str, found: Cost, bare: Cost | None = None) -> str:
    """A row of the table; with ``bare`` also how many times as much processor time as that."""
    ratio = f"{found.cpu / bare.cpu:.1f} ×" if bare else ""
    return f"| {name} | {found.cpu:.2f} s | {found.wall:.2f} s | {found.peak / 2**20:.0f} MiB | {ratio} |"


HEAD = "| | processor time | wall time | peak memory | beside the bare way |\n| --- | ---: | ---: | ---: | ---: |"


def _run(command: list[str], folder: Path) -> Cost:
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        output, errors = process.stdout.read(), process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)[:300]}\n{output[-1500:]}\n{errors[-1500:]}")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(used.ru_utime + used.ru_stime, time.monotonic() - begun, peak, output)
