"""A micro-batch as tensors.

Packed rows get restarting positions, the places where their samples end, and no attention mask; padded rows need none
either, since the padding stands behind the tokens.
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
    """``ids`` and ``labels`` are [rows, longest]; ``labels`` is IGNORED wherever no loss is borne.

    That is so, too, at the first token of every sample, before which nothing stands.

    Where samples are packed into one row: ``positions`` [1, length], ``ends`` (int32, [samples + 1]: 0, then the end of
    each) and ``longest``, the tokens of the longest.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor | None = None
    ends: Tensor | None = None
    longest: int = 0


def tensors(micro_batch: MicroBatch, data: EncodedSet, device: torch.device | str) -> Batch:
    """``micro_batch`` of ``data`` on ``device``. An idle one bears no loss at all."""
    lengths = [sum(len(data.ids[index]) for index in row) for row in micro_batch.rows]
    shape = len(micro_batch.rows), max(lengths)
    ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    ends = [0]
    for at, row in enumerate(micro_batch.rows):
        start = 0
        for index in row:
            segment = torch.tensor(data.ids[index], dtype=torch.long)  # a copy: mapped rows may not be written
            end = start + len(segment)
            ids[at, start:end] = segment
            if not micro_batch.idle:
                trained = torch.tensor(data.trained[index], dtype=torch.bool)
                labels[at, start:end] = torch.where(trained, segment, IGNORED)
                labels[at, start] = IGNORED
            positions[at, start:end] = torch.arange(end - start)
            ends.append(end)
            start = end
    if all(len(row) == 1 for row in micro_batch.rows):
        return Batch(ids.to(device), labels.to(device))
    longest = max(len(data.ids[index]) for row in micro_batch.rows for index in row)
    places = torch.tensor(ends, dtype=torch.int32, device=device)
    return Batch(ids.to(device), labels.to(device), positions.to(device), places, longest)
