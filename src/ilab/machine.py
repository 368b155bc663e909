"""What ``ilab system info`` tells: the machine, versions, folders. No secrets and no environment variables.

torch is asked in a process of its own: its drivers may take seconds, and may end the process that loads them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab import __version__
from ilab.config import cache_home, config_home, data_home
from ilab.hardware import GIB, Hardware, detect
from ilab.profiles import choose

if TYPE_CHECKING:
    from ilab.config import Loaded

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "bitsandbytes",
    "liger-kernel",
    "gguf",
    "xllamacpp",
    "llama-cpp-python",
    "vllm",
    "docling",
    "pyarrow",
    "openpyxl",
    "lm-eval",
)
PATIENCE = 60  # seconds that torch may take to load
TORCH = """
import json, torch
told = {
    "torch.version": torch.__version__,
    "torch.version.cuda": torch.version.cuda,
    "torch.version.hip": torch.version.hip,
    "torch.backends.cpu.capability": torch.backends.cpu.get_cpu_capability(),
    "torch.cuda.available": torch.cuda.is_available(),
    "torch.backends.mps.is_available": torch.backends.mps.is_available(),
}
for number in range(torch.cuda.device_count()):
    one = torch.cuda.get_device_properties(number)
    told[f"torch.cuda.{number}.name"] = one.name
    told[f"torch.cuda.{number}.total"] = f"{one.total_memory / 2**30:.1f} GiB"
    told[f"torch.cuda.{number}.capability"] = f"{one.major}.{one.minor}"
print(json.dumps(told))
"""


def system_info(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Category to name to value, everything of it plain data. Without torch its category is empty."""
    hardware = detect()
    return {
        "Platform": _platform(hardware),
        "InstructLab": {
            "ilab.version": __version__,
            "profile": loaded.profile.name if loaded.profile else None,
            "profile that fits": choose(hardware).name,
            **{f"{name}.version": version(name) for name in _instructlabs()},
        },
        "Torch": torch_info() if version("torch") else {},
        "llama_cpp_python": {
            "llama_cpp_python.version": version("llama-cpp-python"),
            "xllamacpp.version": version("xllamacpp"),
            "llama-server": shutil.which("llama-server"),
        },
        "GPUs": {
            str(number): f"{gpu.name}, {gpu.memory / GIB:.1f} GiB{' of the machine' if gpu.shared else ''}"
            for number, gpu in enumerate(hardware.gpus)
        },
        "Packages": {name: version(name) for name in PACKAGES},
        "Paths": {
            "configuration": str(config_home()),
            "data": str(data_home()),
            "cache": str(cache_home()),
            "store": str(loaded.store),
            **{f"read {number}": str(file) for number, file in enumerate(loaded.files, 1)},
        },
    }


def _instructlabs() -> list[str]:
    """Packages of InstructLab that are installed beside this one."""
    names = {str(one.metadata["Name"]) for one in metadata.distributions()}
    return sorted(name for name in names if name.lower().startswith("instructlab"))


def version(name: str) -> str | None:
    """The installed version of a package, or None. The package itself is not loaded."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def torch_info() -> dict[str, Any]:
    """What torch says of itself and its devices; ``error`` where it cannot be loaded."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"torch did not answer within {PATIENCE} seconds"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]}
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def _platform(hardware: Hardware) -> dict[str, Any]:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "sys.platform": sys.platform,
        "os.name": os.name,
        "platform.release": platform.release(),
        "platform.machine": platform.machine(),
        "platform.python_version": platform.python_version(),
        **{f"os-release.{name}": release.get(name) for name in ("ID", "VERSION_ID", "PRETTY_NAME")},
        "processor": hardware.processor,
        "cores": hardware.cores,
        "memory.total": f"{hardware.memory / GIB:.1f} GiB",
        "memory.available": _available(),
        "unused accelerators": ", ".join(hardware.unused) or None,
    }


def _available(path: Path = Path("/proc/meminfo")) -> str | None:
    """The memory that a program could have now, where the system tells it."""
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return f"{int(match[1]) * 1024 / GIB:.1f} GiB" if match else None
