"""A micro-batch as tensors.

Packed rows get restarting positions and no attention mask, which transformers' attention reads as separate documents;
padded rows need no mask either, since the padding stands behind the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ilab.training.encode import EncodedSet
from ilab.training.loss import IGNORED
from ilab.training.plan import MicroBatch


@dataclass(frozen=True)
class Batch:
    """``ids`` and ``labels`` are [rows, longest]; ``positions`` too where samples are packed, else None.

    ``labels`` is IGNORED wherever no loss is borne: also at the first token of every sample, before which nothing
    stands.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor | None


def tensors(micro_batch: MicroBatch, data: EncodedSet, device: torch.device | str) -> Batch:
    """``micro_batch`` of ``data`` on ``device``. An idle one bears no loss at all."""
    lengths = [sum(len(data.ids[index]) for index in row) for row in micro_batch.rows]
    shape = len(micro_batch.rows), max(lengths)
    ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    packed = any(len(row) > 1 for row in micro_batch.rows)
    positions = torch.zeros(shape, dtype=torch.long) if packed else None
    for at, row in enumerate(micro_batch.rows):
        start = 0
        for index in row:
            segment = torch.as_tensor(data.ids[index], dtype=torch.long)
            end = start + len(segment)
            ids[at, start:end] = segment
            if not micro_batch.idle:
                trained = torch.as_tensor(data.trained[index], dtype=torch.bool)
                labels[at, start:end] = torch.where(trained, segment, IGNORED)
                labels[at, start] = IGNORED
            if positions is not None:
                positions[at, start:end] = torch.arange(end - start)
            start = end
    return Batch(ids.to(device), labels.to(device), positions if positions is None else positions.to(device))
