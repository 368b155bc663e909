"""The trainer against a loop that shares nothing with it but the order of the samples.

Twenty lines of PyTorch: one document at a time, transformers' own loss, no planner, no packing, no chunks.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import SETTINGS, Trains
from transformers import AutoModelForCausalLM

from ilab.config import TrainWhere
from ilab.training.encode import EncodedSet
from ilab.training.plan import Shape, plan_epoch

BATCH, RATE, WARM, DECAY, CLIP = 4, 3e-3, 2, 0.1, 0.7


def reference(base: Path, data: EncodedSet, epochs: int) -> tuple[list[tuple[float, float]], Any]:
    """(loss, gradient norm) of every step, and the model afterwards."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=DECAY)
    shape = Shape(BATCH, 10_000, SETTINGS["seed"], "bucketed")
    orders = [
        [index for micro in plan.micro_batches for row in micro.rows for index in row]
        for epoch in range(epochs)
        for plan in plan_epoch(data.lengths, data.trained_counts, epoch, shape)
    ]
    told = []
    for step, members in enumerate(orders, 1):
        optimizer.zero_grad()
        total, tokens = 0.0, sum(sum(map(bool, data.trained[index][1:])) for index in members)
        for index in members:
            ids = torch.tensor([list(map(int, data.ids[index]))])
            labels = torch.where(torch.tensor([list(map(bool, data.trained[index]))]), ids, -100)
            count = int((labels[0, 1:] != -100).sum())
            loss = model(input_ids=ids, labels=labels).loss * count
            (loss / tokens).backward()
            total += loss.item()
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
        for parameter in model.parameters():
            parameter.grad *= min(1.0, CLIP / (norm + 1e-6))
        part = max(0.0, step - WARM) / (len(orders) - WARM)
        cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * part))
        optimizer.param_groups[0]["lr"] = RATE * (step / WARM if step <= WARM else cosine)
        optimizer.step()
        told.append((total / tokens, norm))
    return told, model


@pytest.mark.parametrize("layout", ["bucketed", "packed"])
def test_loss_gradient_and_weights_are_those_of_a_plain_loop(
    trains: Trains, base: Path, data: EncodedSet, tmp_path: Path, layout: str
) -> None:
    expected, model = reference(base, data, 3)
    trains(
        tmp_path,
        where=TrainWhere(layout=layout),  # type: ignore[arg-type]
        batch=BATCH,
        learning_rate=RATE,
        warmup_steps=WARM,
        weight_decay=DECAY,
        clip=CLIP,
        schedule="cosine",
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == len(expected) == 9
    for row, (loss, norm) in zip(rows, expected, strict=True):
        assert row["loss"] == pytest.approx(loss, rel=1e-4)
        assert row["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "epoch-003", dtype=torch.float32)
    theirs = dict(model.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs[name], rtol=1e-2, atol=1e-4)
