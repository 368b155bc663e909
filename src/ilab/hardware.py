"""What this machine has: processor, memory, GPUs. Asked of the system's own tools, never of torch.

    nvidia-smi         GPUs of NVIDIA, by any name (GeForce, RTX, A100, H200 …)
    rocm-smi, /sys     GPUs of AMD
    hl-smi             Intel's Gaudi, which nothing here computes on: it is told, not used
    sysctl             Apple's chips, whose memory is the GPU's too
    /proc, /sys        processor, memory, and the limit that a container sets

Each reader is a function of text, so what another machine says can be tried here. Memory is in bytes throughout.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

MIB, GIB = 1 << 20, 1 << 30
PATIENCE = 10  # seconds that a tool may take: a driver that hangs must not hang us
NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
ROCM = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
GAUDI = ("hl-smi", "-Q", "name", "-f", "csv,noheader")
AMD_VENDOR = "0x1002"  # in PCI's list of vendors
LEAST_VRAM = 2 * GIB  # of an AMD GPU that counts: the graphics part of a processor is given less

Vendor = Literal["nvidia", "amd", "apple"]
Kind = Literal["cpu", "apple", "gpu"]
Ask = Callable[[tuple[str, ...]], str]  # a command's standard output; empty where it is not there or fails


@dataclass(frozen=True)
class Gpu:
    """One GPU. ``shared``: its memory is the machine's, so both cannot be used up. ``free``: what nobody uses now; None
    where that is not told."""

    name: str
    vendor: Vendor
    memory: int
    shared: bool = False
    free: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Hardware:
    """``memory``: bytes of the machine's that this process may use. ``unused``: accelerators of other kinds."""

    system: str
    processor: str
    cores: int
    memory: int
    gpus: tuple[Gpu, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        if not self.gpus:
            return "cpu"
        return "apple" if self.gpus[0].vendor == "apple" else "gpu"

    @property
    def device_memory(self) -> int:
        """Bytes that one device has for a model: of the smallest GPU, without one of the machine."""
        return min((gpu.memory for gpu in self.gpus), default=self.memory)

    def __str__(self) -> str:
        """One line for people: ``2 × NVIDIA L4 (22 GiB)``, or the processor and the memory."""
        if not self.gpus:
            told = [f"{self.processor}, {self.cores} cores, {self.memory // GIB} GiB of memory, no GPU"]
        else:
            told = _counted(f"{gpu.name} ({round(gpu.memory / GIB)} GiB)" for gpu in self.gpus)
        return ", ".join([*told, *(f"{one} (not used by ilab)" for one in _counted(self.unused))])


def detect() -> Hardware:
    """This machine. What cannot be found out is left out; nothing is raised."""
    return hardware_of(_ask, Path("/"), platform.system(), platform.machine(), os.environ)


def driver_cuda() -> str:
    """The CUDA version that NVIDIA's driver is for, as ``12.4``; ``""`` without a driver."""
    return cuda_of(_ask(("nvidia-smi",)))


def cuda_of(text: str) -> str:
    """From the head of ``nvidia-smi``'s table."""
    match = re.search(r"CUDA Version:\s*(\d+\.\d+)", text)
    return match[1] if match else ""


def hardware_of(ask: Ask, root: Path, system: str, machine: str, environment: Mapping[str, str]) -> Hardware:
    """The machine whose commands ``ask`` runs and whose ``/proc`` and ``/sys`` lie under ``root``.

    GPUs that ``CUDA_VISIBLE_DEVICES`` hides are left out, as torch leaves them out.
    """
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(_affinity())
    if system == "Darwin":
        return apple(ask(("sysctl", "-n", "machdep.cpu.brand_string")), ask(("sysctl", "-n", "hw.memsize")), cores or 1)
    memory = _memory(root)
    found = nvidia_gpus(ask(NVIDIA), memory)
    if found:
        found = visible(found, environment.get("CUDA_VISIBLE_DEVICES"))
    else:
        found = amd_gpus(ask(ROCM)) or amd_gpus_of(root)
    return Hardware(system, _processor(root) or machine, cores or 1, memory, found, gaudis(ask(GAUDI)))


def nvidia_gpus(text: str, memory: int = 0) -> tuple[Gpu, ...]:
    """From lines ``name, MiB, free MiB``, the last of which may be missing. A GPU that shares the machine's ``memory``
    tells ``[N/A]`` for its own."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) not in (2, 3) or not row[0].strip():
            continue
        size = row[1].strip()
        shared = not size.isdecimal()
        if shared and not size.startswith("[") and size != "N/A":
            continue  # a message of the driver's, with a comma in it
        name = row[0].strip()
        found.append(Gpu(name if "nvidia" in name.lower() else f"NVIDIA {name}", "nvidia", 0, shared))
        free = row[2].strip() if len(row) == 3 else ""
        found[-1] = replace(
            found[-1],
            memory=memory if shared else int(size) * MIB,
            free=int(free) * MIB if free.isdecimal() and not shared else None,
        )
    return tuple(gpu for gpu in found if gpu.memory)


def visible(gpus: tuple[Gpu, ...], wanted: str | None) -> tuple[Gpu, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves: all but those it names by number; an empty text hides all.

    As with CUDA, the list ends at the first number that is no GPU's. Names (``GPU-…``, ``MIG-…``) are not looked up.
    """
    if wanted is None:
        return gpus
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    if any(not re.fullmatch(r"-?\d+", part) for part in parts):
        return gpus[: len(parts)]
    shown = []
    for part in parts:
        if not 0 <= int(part) < len(gpus):
            break
        shown.append(gpus[int(part)])
    return tuple(shown)


def amd_gpus(text: str) -> tuple[Gpu, ...]:
    """From the JSON of ``rocm-smi``: an object for each card, whose keys have changed their case over time."""
    try:
        told: Any = json.loads(text)
    except ValueError:
        return ()
    cards = [card for card in told.values() if isinstance(card, dict)] if isinstance(told, dict) else []
    found = []
    for card in ({str(key).lower(): str(value) for key, value in card.items()} for card in cards):
        size = card.get("vram total memory (b)", "")
        names = (card.get(key, "") for key in ("card series", "device name", "card model"))
        name = next((name for name in names if name and not name.startswith("0x")), "AMD GPU")
        used = card.get("vram total used memory (b)", "")
        if size.isdecimal() and int(size) >= LEAST_VRAM:
            free = int(size) - int(used) if used.isdecimal() else None
            found.append(Gpu(name, "amd", int(size), free=free))
    return tuple(found)


def gaudis(text: str) -> tuple[str, ...]:
    """From lines with a name, as ``HL-325L``."""
    names = (row.partition(",")[0].strip() for row in text.splitlines())
    return tuple(f"Intel Gaudi {name}" for name in names if name.startswith("HL-"))


def amd_gpus_of(root: Path) -> tuple[Gpu, ...]:
    """From the kernel's files, where ``rocm-smi`` is not installed."""
    found = []
    for folder in sorted((root / "sys/class/drm").glob("card[0-9]*/device")):
        size = _text(folder / "mem_info_vram_total")
        if _text(folder / "vendor") == AMD_VENDOR and size.isdecimal() and int(size) >= LEAST_VRAM:
            found.append(Gpu(_text(folder / "product_name") or "AMD GPU", "amd", int(size)))
    return tuple(found)


def apple(chip: str, memory: str, cores: int) -> Hardware:
    """From what ``sysctl`` tells. A Mac with Intel's processor has no GPU that counts."""
    name = chip.strip() or "Mac"
    size = int(memory) if memory.strip().isdecimal() else 0
    gpus = (Gpu(name, "apple", size, shared=True),) if name.startswith("Apple") and size else ()
    return Hardware("macOS", name, cores, size, gpus)


def _processor(root: Path) -> str:
    """The name in ``/proc/cpuinfo``; ARM processors tell none there, but some boards do in their device tree."""
    match = re.search(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    if match is None:
        return _text(root / "proc/device-tree/model").strip("\0")
    return " ".join(re.sub(r"\((?:R|TM)\)", "", match[1], flags=re.IGNORECASE).split())


def _counted(names: Iterable[str]) -> list[str]:
    """Each name once, in the order of its first coming, with ``2 ×`` before one that comes twice."""
    return [f"{count} × {name}" if count > 1 else name for name, count in Counter(names).items()]


def _memory(root: Path) -> int:
    """Bytes of the machine, or fewer where its container has a limit (cgroup version 2, else 1)."""
    match = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    limits = [int(match[1]) * 1024] if match else []
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _text(root / name)
        limits += [int(text)] if text.isdecimal() else []
    return min(limits, default=0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _ask(command: tuple[str, ...]) -> str:
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
