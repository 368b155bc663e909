"""Whether a process is still the one it was: a pid alone does not say so, for the system gives it out again."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")


def born(pid: int) -> str | None:
    """What no process that gets ``pid`` later will share: boot and start time.

    None where there is no such process, or only a zombie that nobody has asked how it ended. Without ``/proc``
    (macOS, BSD) the start time comes from ``ps``.
    """
    if pid <= 0:
        return None
    if not Path("/proc/self/stat").exists():
        return _from_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before the bracket may hold anything
    if len(fields) < 20 or fields[0] in (b"Z", b"X", b"x"):
        return None
    return f"{_boot()}:{int(fields[19])}"  # field 22 of proc(5): clock ticks since boot


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def _from_ps(pid: int) -> str | None:
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    told = subprocess.run(
        asked, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    )
    state, _, started = told.stdout.strip().partition(" ")
    return None if told.returncode or state.startswith("Z") else started.strip()
