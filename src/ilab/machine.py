"""What ``ilab system info`` tells: the machine, versions, folders. No secrets and no environment variables.

torch is asked in a process of its own: its drivers may take seconds, and may end the process that loads them.
"""

from __future__ import annotations

import json
import platform
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
accelerator = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
    "cuda available": torch.cuda.is_available(), "mps available": torch.backends.mps.is_available(),
    "devices": [f"{one.name}, {one.total_memory / 2**30:.1f} GiB" for one in accelerator],
}))
"""


def system_info(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Category to name to value, everything of it plain data."""
    hardware = detect()
    return {
        "Platform": _platform(hardware),
        "GPUs": {
            str(number): f"{gpu.name}, {gpu.memory / GIB:.1f} GiB{' of the machine' if gpu.shared else ''}"
            for number, gpu in enumerate(hardware.gpus)
        },
        "ilab": {
            "version": __version__,
            "profile": loaded.profile.name if loaded.profile else None,
            "profile that fits": choose(hardware).name,
        },
        "Packages": {name: version(name) for name in PACKAGES},
        "Torch": torch_info() if version("torch") else {},
        "Paths": {
            "configuration": str(config_home()),
            "data": str(data_home()),
            "cache": str(cache_home()),
            "store": str(loaded.store),
            **{f"read {number}": str(file) for number, file in enumerate(loaded.files, 1)},
        },
    }


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
        "system": f"{platform.system()} {platform.release()}",
        "distribution": release.get("PRETTY_NAME"),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "processor": hardware.processor,
        "cores": hardware.cores,
        "memory": f"{hardware.memory / GIB:.1f} GiB",
    }
