"""Attention inside the samples of a packed row, and nowhere else.

A packed row holds samples one behind the other; where each ends is handed to every layer (``cu_seq_lens_q``, the name
that transformers gives it). On Nvidia's GPUs in half precision PyTorch's variable-length attention does all of
them at once; everywhere else (older GPUs, AMD's, fp32) each sample is attended to by itself. No mask of length x length
is ever made, and no package is needed. Rows of one sample go through PyTorch's causal attention as they are.

Models whose layers look back a limited way only, or bend their logits, keep transformers' own attention and its mask.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ilab.models.weights import BUILDING

NAME = "ilab_segments"
OWN = "sdpa"  # transformers' own
LIMITS = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size")  # in a config: more than causal attention


def attention_for(config: Any) -> str:
    """The name of the attention that a model of this ``config`` is trained with."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    limited = any(getattr(text, name, None) for name in LIMITS) and getattr(text, "use_sliding_window", True)
    if limited or kinds != {"full_attention"}:
        return OWN
    with BUILDING:
        from transformers import AttentionInterface
        from transformers.masking_utils import AttentionMaskInterface

        AttentionInterface.register(NAME, _attend)
        AttentionMaskInterface.register(NAME, _no_mask)
    return NAME


def _no_mask(*_: Any, **__: Any) -> None:
    """Causal within a sample, and padding only behind it: nothing is left to mask."""


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: [rows, heads, length, size] each; returns [rows, length, heads, size].

    There are fewer heads of ``key`` and ``value`` where queries share them.
    """
    ends: Tensor | None = more.get("cu_seq_lens_q")
    shared = key.shape[1] != query.shape[1]
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": shared, "is_causal": True}
    if ends is None:
        made = scaled_dot_product_attention(query, key, value, **options)
    elif query.dtype in (torch.bfloat16, torch.float16) and not dropout and has_varlen(query.device):
        return _at_once(query, key, value, (ends, more["max_length_q"], scaling, shared)), None
    else:
        places = ends.tolist()
        parts = [
            scaled_dot_product_attention(query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], **options)
            for a, b in pairwise(places)
        ]
        made = torch.cat(parts, dim=2)
    return made.transpose(1, 2).contiguous(), None


@cache
def has_varlen(device: torch.device) -> bool:
    """Whether PyTorch's variable-length attention runs there: on Nvidia's GPUs from compute capability 8.0 on.

    AMD's GPUs are called cuda too; there it has not been tried, so it is not used.
    """
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _at_once(query: Tensor, key: Tensor, value: Tensor, how: tuple[Tensor, int, float | None, bool]) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    ends, longest, scaling, shared = how
    first, second, third = (one[0].transpose(0, 1) for one in (query, key, value))
    options: dict[str, Any] = {"scale": scaling, "window_size": (-1, 0), "enable_gqa": shared}
    made = varlen_attn(first, second, third, ends, ends, longest, longest, **options)
    return (made if isinstance(made, Tensor) else made[0]).unsqueeze(0)
