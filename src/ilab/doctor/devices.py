"""torch: whether it can be loaded, sees the GPU that the system has, and suits the GPU's driver."""

from __future__ import annotations

from typing import Any

from ilab.doctor.finding import Finding
from ilab.hardware import Hardware, driver_cuda
from ilab.machine import torch_info, version

PAGE = "https://pytorch.org/get-started/locally names the line for"


def torch(hardware: Hardware, wanted: str) -> Finding:
    """What torch computes on here; ``wanted`` is the device that the configuration names."""
    if version("torch") is None:
        needed = "ilab run, model train, serve, chat, evaluate"
        return Finding("torch", "note", "not installed", needed, "pip install 'ilab[train]'")
    told = torch_info()
    if "error" in told:
        fix = "pip install --force-reinstall torch"
        return Finding("torch", "bad", f"cannot be loaded: {told['error']}", "training", fix)
    available = {"cuda": told["torch.cuda.available"], "mps": told["torch.backends.mps.is_available"]}
    usable = {"cpu", *(name for name, there in available.items() if there)}
    found = f"{told['torch.version']}, devices: {', '.join(sorted(usable))}"
    kind = wanted.partition(":")[0]
    if kind not in ("auto", *usable):
        fix = "ilab config set where.device auto"
        return Finding("torch", "bad", f"{found}; where.device is {wanted}", "training", fix)
    expected = {"gpu": "cuda", "apple": "mps", "cpu": "cpu"}[hardware.kind]
    if expected not in usable:
        why, fix = _why_not(hardware, told)
        return Finding("torch", "note", f"{found}; it does not see {hardware}{why}", "training on the GPU", fix)
    return Finding("torch", "ok", found)


def _why_not(hardware: Hardware, told: dict[str, Any]) -> tuple[str, str]:
    """Why torch does not see the GPU, as far as it can be known, and what to type."""
    vendor = hardware.gpus[0].vendor
    if vendor == "amd":
        return ("" if told["torch.version.hip"] else ": it is built without ROCm"), f"{PAGE} this ROCm"
    if vendor == "apple":
        return "", "pip install --upgrade torch"
    built, driver = told["torch.version.cuda"], driver_cuda()
    if built is None:
        return ": it is built without CUDA", f"{PAGE} CUDA{f' {driver}' if driver else ''}"
    if driver and int(built.partition(".")[0]) > int(driver.partition(".")[0]):
        # Within a major version newer programs run on older drivers (CUDA's minor version compatibility).
        why = f": it is built for CUDA {built}, and the driver is one for CUDA {driver}"
        return why, f"a newer driver; or {PAGE} CUDA {driver}"
    return "", f"nvidia-smi   (tells what the driver says); {PAGE} this driver"
