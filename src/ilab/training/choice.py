"""What an option means for the method and the device, and what is taken instead where that cannot be had.

    --pipeline simple         QLoRA; where four bits cannot be had LoRA; where that cannot be had all weights
    --pipeline full           all weights
    --pipeline accelerated    all weights, or an adapter where --lora-rank is given

A method that is named (``--method``) is taken as it is and never replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ilab.errors import InputError, SetupError
from ilab.training.four_bits import bitsandbytes

DEVICES = re.compile(r"auto|cpu|mps|hpu|cuda(:\d+)?")
NAMES = ("simple", "full", "accelerated")


@dataclass(frozen=True)
class Choice:
    """A method's name (None: as the project has it), and one line for whatever was not taken as asked."""

    method: str | None
    notes: tuple[str, ...] = ()


def choose_method(given: Mapping[str, Any], device: str) -> Choice:
    """The method that the options ``method``, ``pipeline``, ``lora_rank`` and ``lora_quantize_dtype`` mean.

    Raises ``InputError`` where they contradict each other.
    """
    named, rank, bits = given["method"], given["lora_rank"], given["lora_quantize_dtype"]
    adapter = rank is not None and rank > 0
    if named:
        if adapter and named not in ("lora", "qlora"):
            raise InputError(f"--lora-rank has no meaning with --method {named}", hint="take --method lora")
        if rank == 0 and named in ("lora", "qlora"):
            raise InputError(f"--lora-rank 0 (all weights) has no meaning with --method {named}", hint="leave one out")
        if bits == "nf4" and named != "qlora":
            raise InputError(f"--lora-quantize-dtype nf4 has no meaning with --method {named}")
        return Choice(named)
    if bits == "nf4" and rank != 0:
        return Choice("qlora")
    if adapter:
        return Choice("lora")
    if given["pipeline"] == "simple" and rank is None:
        return fitting(device) if bits != "none" else _without_bits(())
    return Choice("full" if given["pipeline"] or rank == 0 else None)


def fitting(device: str) -> Choice:
    """QLoRA, or what comes nearest to it and can be had, with the reason."""
    if reason := why_not_qlora(device):
        return _without_bits((f"{reason}: LoRA beside a base in full precision is trained in place of QLoRA",))
    return Choice("qlora")


def _without_bits(notes: tuple[str, ...]) -> Choice:
    if find_spec("peft") is None:
        return Choice("full", ("peft is not installed (pip install 'ilab[lora]'): all weights are trained",))
    return Choice("lora", notes)


def why_not_qlora(device: str) -> str:
    """Why a base in four bits cannot be trained beside here; empty where it can."""
    for package in ("peft", "bitsandbytes"):
        if find_spec(package) is None:
            return f"{package} is not installed (pip install 'ilab[lora]')"
    return "" if _can_quantise(device) else f"bitsandbytes has no four-bit weights on {device}"


def _can_quantise(device: str) -> bool:
    """Whether a small matrix can be put in four bits on ``device`` and multiplied with: the one thing that decides."""
    import torch

    try:
        functional = bitsandbytes("functional")
        packed, state = functional.quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4")
        return bool(torch.isfinite(functional.dequantize_4bit(packed, state)).all())
    except (ImportError, OSError, RuntimeError, NotImplementedError, AttributeError, ValueError):
        return False


def checked_device(wanted: str, processes: int, *, or_cpu: bool = False) -> tuple[str, str]:
    """(device, a line to say or empty): ``wanted`` where it is there, else with ``or_cpu`` the CPU.

    Raises ``InputError`` for a word that is no device, ``SetupError`` for one that this machine does not have.
    """
    from ilab.models.device import pick_device

    if not DEVICES.fullmatch(wanted):
        raise InputError(f"there is no device called {wanted!r}", hint="devices: auto, cpu, cuda, cuda:N, mps")
    try:
        device = pick_device(wanted)
        _check_count(device, processes)
    except SetupError as error:
        if or_cpu:
            return "cpu", f"{error.message}: the CPU trains, which takes longer"
        raise
    return device, ""


def _check_count(device: str, processes: int) -> None:
    import torch

    if not device.startswith("cuda"):
        return
    index, count = int(device.partition(":")[2] or 0), torch.cuda.device_count()
    if index >= count or processes > count:
        raise SetupError(
            f"this machine has {count} CUDA device(s), not {max(index + 1, processes)}",
            where="where.device",
            hint=f"give --gpus {count}, or --device cuda",
        )
