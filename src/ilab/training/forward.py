"""The forward pass: from a batch to the summed loss, as one module.

It is one module so that it can be sharded, compiled and checkpointed as a whole, and so that the output head runs
inside of it (:mod:`ilab.training.loss` never holds all logits). :func:`check` compares it with the model itself before
the first step: the loss with that of the model's own logits (by transformers' own attention), and a packed row with its
samples one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ilab.errors import SetupError
from ilab.training.attention import OWN
from ilab.training.batch import Batch, tensors
from ilab.training.encode import EncodedSet
from ilab.training.loss import IGNORED, Head, summed_loss
from ilab.training.plan import MicroBatch

COMPARED = 256  # positions whose logits are compared: all of a long sample's would be more than training ever holds
CLOSE = 1e-3  # relative difference of two losses that rounding explains, in fp32
CLOSE_LOW = 2e-2  # the same in bf16


class LossModel(nn.Module):
    """``model`` (a causal language model of transformers) with the loss behind it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """The summed cross-entropy (nats), a scalar in float32."""
        return summed_loss(hidden_states(self.model, batch), batch.labels, head_of(self.model))

    def loss(self, batch: Batch) -> Tensor:
        loss: Tensor = self(batch)
        return loss


def head_of(model: Any) -> Head:
    """Hidden states to logits, with the scaling some families put behind the output matrix."""
    output: Head = model.get_output_embeddings()
    scale = getattr(model.config, "logits_scaling", None)  # Granite divides its logits
    if scale in (None, 1.0):
        return output
    return lambda states: output(states) / scale


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """The last hidden states [rows, length, width]."""
    packed: dict[str, Any] = {}
    if batch.ends is not None:
        packed = {"position_ids": batch.positions, "cu_seq_lens_q": batch.ends, "cu_seq_lens_k": batch.ends}
        packed |= {"max_length_q": batch.longest, "max_length_k": batch.longest}
    body = getattr(model, model.base_model_prefix)
    states: Tensor = body(input_ids=batch.ids, use_cache=False, **packed).last_hidden_state
    return states


@torch.no_grad()
def check(model: LossModel, data: EncodedSet, device: torch.device | str, *, low: bool = False) -> None:
    """Refuse a model whose loss would be computed wrongly. ``low``: its weights or attention are in bf16.

    Raises ``SetupError`` where our loss is not that of the model's own logits at the end of the longest sample, or two
    packed samples are not what they are one by one. Of all logits only those of the last ``COMPARED`` positions exist.
    """
    was_training = model.training
    model.eval()
    longest = max(range(len(data.ids)), key=lambda index: (len(data.ids[index]), -index))
    batch = tensors(MicroBatch(((longest,),)), data, device)
    labels = torch.full_like(batch.ids, IGNORED)  # every token of the end, whatever the mask says of it
    labels[:, 1:][:, -COMPARED:] = batch.ids[:, 1:][:, -COMPARED:]
    ours = model.loss(replace(batch, labels=labels)).item()
    theirs = _own_loss(model.model, batch.ids, labels)
    close = CLOSE_LOW if low else CLOSE
    if not math.isclose(ours, theirs, rel_tol=close, abs_tol=close):
        raise SetupError(
            f"this model family computes its logits in a way the trainer does not know (loss {ours:.4f}, not "
            f"{theirs:.4f})",
            hint="report the model's config.json as an issue",
        )
    other = min(range(len(data.ids)), key=lambda index: (len(data.ids[index]), index))
    together = model.loss(tensors(MicroBatch(((other, longest),)), data, device)).item()
    apart = model.loss(batch).item() + model.loss(tensors(MicroBatch(((other,),)), data, device)).item()
    if not math.isclose(together, apart, rel_tol=close, abs_tol=close):
        raise PackingError(
            f"samples packed into one row see each other in this model (loss {together:.4f}, not {apart:.4f})",
            hint="train with one sample in a row: --set where.train.layout=bucketed",
        )
    model.train(was_training)


def _own_loss(model: Any, ids: Tensor, labels: Tensor) -> float:
    """The summed loss by the model's own logits at the last ``COMPARED`` positions that are predicted."""
    with _own_attention(model):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=COMPARED + 1).logits
    targets = labels[0, 1:][-COMPARED:]
    return nn.functional.cross_entropy(logits[0, :-1].float(), targets, reduction="sum").item()


@contextmanager
def _own_attention(model: Any) -> Iterator[None]:
    """With transformers' own attention, whatever the model is trained with."""
    trained_with = model.config._attn_implementation
    model.set_attn_implementation(OWN)
    try:
        yield
    finally:
        model.set_attn_implementation(trained_with)


class PackingError(SetupError):
    """Packed samples leak into each other; one sample in a row would be right."""
