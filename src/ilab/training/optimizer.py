"""The optimizer and the learning rate.

AdamW (arXiv 1711.05101) of PyTorch itself, or with its moments in eight bits (arXiv 2110.02861, bitsandbytes), which
takes a quarter of their memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

import torch

from ilab.errors import SetupError
from ilab.training.four_bits import bitsandbytes
from ilab.training.settings import TrainSettings

EIGHT_BITS_FROM = 4096  # numbers of a tensor, from which on bitsandbytes holds its moments in eight bits
LEAST = 0.05  # of the learning rate, where a cosine ends


def make_optimizer(
    settings: TrainSettings, parameters: Mapping[str, torch.nn.Parameter], device: str
) -> torch.optim.Optimizer:
    """For ``parameters``. Raises ``SetupError`` where eight bits are asked for and cannot be had on ``device``."""
    rate, betas, decay = settings.learning_rate, settings.betas, settings.weight_decay
    if settings.optimizer == "adamw":
        fused = True if device.startswith("cuda") else None
        return torch.optim.AdamW(parameters.values(), rate, betas, weight_decay=decay, fused=fused)
    if find_spec("bitsandbytes") is None:
        raise SetupError(
            "an optimizer in eight bits needs bitsandbytes, which is not installed",
            where="train_optimizer",
            hint="pip install 'ilab[lora]', or train with train_optimizer=adamw",
        )
    try:  # one step of a tensor that is large enough to get eight bits: the one thing that decides
        tried = torch.nn.Parameter(torch.zeros(EIGHT_BITS_FROM, device=device))
        tried.grad = torch.zeros_like(tried)
        _in_eight_bits([tried], settings).step()
    except (ImportError, OSError, RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        raise SetupError(
            f"bitsandbytes has no optimizer in eight bits on {device}: {str(error)[:200]}",
            where="train_optimizer",
            hint="-p train_optimizer=adamw; to save memory in another way: -p train_method=lora",
        ) from error
    return _in_eight_bits(parameters.values(), settings)


def _in_eight_bits(parameters: Iterable[torch.nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = bitsandbytes("optim").AdamW8bit(
        parameters, settings.learning_rate, settings.betas, weight_decay=settings.weight_decay
    )
    return made


def schedule(settings: TrainSettings, step: int, total: int) -> float:
    """Share of the learning rate at ``step`` (1-based): linear warm-up, then constant or cosine down to 5 %."""
    if step <= settings.warmup_steps:
        return step / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    progress = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    return LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * progress))
