"""What is trained and how. Every field here changes the result, and is part of a training step's identity.

Where it runs (device, processes, kernels) is in ``config.TrainWhere`` and changes nothing but rounding.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MethodName = Literal["full", "lora", "qlora", "osft"]
Unit = Literal["epochs", "steps", "samples", "tokens"]


class TrainSettings(BaseModel):
    """One phase of training.

    The ``lora_`` fields are those of the low-rank adapter (arXiv 2106.09685) of the methods ``lora`` and ``qlora``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(gt=0)
    batch: int = Field(gt=0, description="samples per optimizer step, over all devices")
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    precision: Literal["fp32", "bf16"] = "fp32"
    train_on: Literal["assistant", "last", "all"] = Field("assistant", description="turns that bear loss")
    over_length: Literal["drop", "truncate", "split", "error"] = Field("drop", description="fate of longer ones")
    max_length: int = Field(gt=1, description="tokens of the longest sample")
    max_batch_tokens: int = Field(gt=1, description="tokens of one micro-batch on a device, padding included")
    method: MethodName = "full"
    lora_rank: int = Field(16, gt=0, description="rank of the update")
    lora_alpha: int = Field(32, gt=0, description="the update is scaled by alpha / rank (rslora: alpha / sqrt(rank))")
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_targets: tuple[str, ...] = Field((), description="linear layers that learn (osft too); none: all")
    lora_variant: Literal["plain", "rslora", "dora"] = "plain"
    osft_share: float = Field(0.25, gt=0, le=1, description="share of each matrix's directions that osft trains")
    save_every: int = Field(1, gt=0, description="amount between two candidates, in save_unit")
    save_unit: Unit = "epochs"
    keep: int | None = Field(None, gt=0, description="newest candidates kept, besides the best by held-out loss")
    validation: float = Field(0.0, ge=0, lt=1, description="share of the rows held out of training")
    seed: int = 42
