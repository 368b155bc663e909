"""Summed cross-entropy over the trained tokens, without ever holding all logits.

Hidden states at positions that bear no loss are dropped before the output head, and the rest goes through the head in
chunks whose logits are recomputed in the backward pass. The caller divides by the token count of the whole step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

IGNORED = -100
CHUNK = 4096  # positions whose logits exist at once

Head = Callable[[Tensor], Tensor]


def summed_loss(hidden: Tensor, labels: Tensor, head: Head, chunk: int = CHUNK) -> Tensor:
    """Sum of the cross-entropy (nats) of predicting ``labels[:, t]`` from ``hidden[:, t - 1]``.

    ``hidden`` is [rows, length, width]; ``labels`` [rows, length] with ``IGNORED`` where no loss is borne, already so
    at the first token of each packed segment. Returns a scalar in float32; zero (connected) when nothing is trained.
    """
    targets = labels[:, 1:].reshape(-1)
    kept = (targets != IGNORED).nonzero().squeeze(1)
    states = hidden[:, :-1].reshape(-1, hidden.shape[-1]).index_select(0, kept)
    targets = targets.index_select(0, kept)
    if len(kept) <= chunk:
        return _chunk_loss(states, targets, head)
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(kept), chunk):
        total = total + checkpoint(
            _chunk_loss, states[start : start + chunk], targets[start : start + chunk], head, use_reentrant=False
        )
    return total


def _chunk_loss(states: Tensor, targets: Tensor, head: Head) -> Tensor:
    return cross_entropy(head(states).float(), targets, reduction="sum")
