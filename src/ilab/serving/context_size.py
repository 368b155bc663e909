"""How long a context vLLM has room for on the GPUs, from the model's files: vLLM itself finds out only once it has
loaded the model, and then ends.

    per token  = layers × 2 × key heads of one GPU × head size × bytes     multi-head, grouped and multi-query attention
    per token  = layers × (latent + rotary size) × bytes                   multi-head latent attention, whole on each
    room       = memory × utilisation − weights / GPUs − what computing takes

A layer with a sliding window keeps its window and no more. Layers of other kinds (state spaces, linear attention), and
whatever else is not certain from config.json, are not reckoned with: vLLM then decides as it always does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ilab.hardware import GIB, Gpu
from ilab.models.chat_template import json_object

UTILISATION = 0.9  # vLLM's own share of the GPU's memory
DRIVER = GIB // 2  # bytes that CUDA takes of the free memory before vLLM looks at it
COMPUTING, COMPUTING_SHARE = GIB, 0.04  # activations and graphs: bytes, and share of the memory (batches grow with it)
BATCHED = 8192  # most tokens of one batch, which a sliding window keeps besides itself
STEPS = ((4096, 1024), (0, 256))  # from so many tokens on, the context is a multiple of so many
LATENT = {"deepseek_v2", "deepseek_v3", "kimi_k2"}  # families that vLLM runs with multi-head latent attention
UNRECKONED = {  # options that change what is reckoned here
    "--quantization", "-q", "--cpu-offload-gb", "--kv-cache-memory-bytes", "--num-gpu-blocks-override",
    "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp", "--decode-context-parallel-size", "-dcp",
}  # fmt: skip
FULL, SLIDING = "full_attention", "sliding_attention"  # as `layer_types` has them
STRETCHING = {"linear", "dynamic", "yarn"}  # rotary scalings by which vLLM multiplies the context


@dataclass(frozen=True)
class Cache:
    """What keys and values take on one GPU: bytes ``per_token`` of the context, and ``fixed`` bytes of sliding windows.
    ``context``: tokens that the model was made for."""

    per_token: int
    fixed: int
    context: int


@dataclass(frozen=True)
class Fitted:
    """``context``: tokens that there is room for, None where the model's own fits; ``utilisation``: the share of the
    memory that vLLM may take, None for its own; ``note``: a line for people."""

    context: int | None = None
    utilisation: float | None = None
    note: str = ""


def fit(model: Path, gpus: tuple[Gpu, ...], given: Mapping[str, str]) -> Fitted:
    """What the Hugging Face directory ``model`` has room for on ``gpus``, which share it evenly.

    ``given`` are vLLM's options that are decided already: what they say is kept to.
    """
    if not gpus or any(gpu.shared for gpu in gpus) or UNRECKONED & set(given):
        return Fitted()
    memory, share = min(gpu.memory for gpu in gpus), _share(gpus, given)
    chosen = None if "--gpu-memory-utilization" in given or share == UTILISATION else share
    config = _text_config(json_object(model / "config.json"))
    size = 4 if given.get("--dtype") in ("float32", "float") else 2  # vLLM computes in 16 bits unless told otherwise
    cache = cache_of(config, len(gpus), _kept_size(size, given.get("--kv-cache-dtype", "auto")))
    if cache is None or "--max-model-len" in given:
        return Fitted(utilisation=chosen)
    loaded = weights(model, halved=size == 2 and _stored(config) == "float32")
    room = round(memory * share) - loaded // len(gpus) - COMPUTING - round(memory * COMPUTING_SHARE)
    most = (room - cache.fixed) // cache.per_token
    if most >= cache.context:
        return Fitted(utilisation=chosen)
    place, tokens = f"{share:.0%} of {memory / GIB:.0f} GiB of GPU memory", rounded(most)
    if not tokens:
        note = f"note: the weights leave no room for a context in {place}; vLLM may not start"
        return Fitted(utilisation=chosen, note=note)
    note = f"context: {tokens:,} tokens of the model's {cache.context:,}, which is what fits into {place}"
    return Fitted(tokens, chosen, f"{note}; --max-ctx-size N sets another")


def cache_of(config: Mapping[str, Any], gpus: int, size: int) -> Cache | None:
    """What keys and values take of a language model with this config.json, on each of ``gpus``; ``size``: bytes of a
    number. None where config.json does not say it for certain."""
    full, sliding, window = _layers(config)
    context = _context(config)
    if not full + sliding or not context:
        return None
    if "kv_lora_rank" in config:
        latent = (config["kv_lora_rank"], config.get("qk_rope_head_dim"))
        if config.get("model_type") not in LATENT or not all(_is_count(value) for value in latent):
            return None
        return Cache(full * sum(latent) * size, 0, context) if not sliding else None
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    kept = config.get("num_key_value_heads", heads)
    if not (_is_count(heads) and _is_count(width) and _is_count(kept)):
        return None
    head = config.get("head_dim") or width // heads
    if not _is_count(head):
        return None
    each = 2 * max(1, kept // gpus) * head * size
    # Where every layer slides, the context still has to be kept in one of them, as far as vLLM's check goes.
    return Cache((full or 1) * each, sliding * each * (window + BATCHED), context)


def weights(model: Path, halved: bool) -> int:
    """Bytes of the weights on the GPUs: those of the files; ``halved`` where vLLM makes 16 bits of 32."""
    files = list(model.glob("*.safetensors")) or list(model.glob("*.bin"))
    size = sum(file.stat().st_size for file in files)
    return size // 2 if halved else size


def rounded(tokens: int) -> int:
    """``tokens`` rounded down to a number that people like."""
    step = next(step for least, step in STEPS if tokens >= least) if tokens > 0 else 1
    return max(0, tokens // step * step)


def _share(gpus: tuple[Gpu, ...], given: Mapping[str, str]) -> float:
    """The share of the memory that vLLM may take: what is given, its own, or less where others use the GPU, for then
    it would not start."""
    try:
        return float(given["--gpu-memory-utilization"])
    except (KeyError, ValueError):
        pass
    free = min(((gpu.free - DRIVER) / gpu.memory for gpu in gpus if gpu.free is not None), default=1.0)
    return UTILISATION if free >= UTILISATION else max(0, int(free * 100)) / 100


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a config.json; the type of its numbers may stand outside."""
    inner = config.get("text_config")
    return {"dtype": _stored(config), **inner} if isinstance(inner, dict) else config


def _stored(config: Mapping[str, Any]) -> str:
    return str(config.get("dtype") or config.get("torch_dtype") or "")


def _kept_size(size: int, kind: str) -> int:
    """Bytes of a number that is kept, where vLLM computes with ``size``."""
    return size if kind == "auto" else 1 if kind.startswith("fp8") else 2


def _layers(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Layers that keep the whole context, those that keep a window, and its tokens; zeros where it is not certain."""
    count, types, window = config.get("num_hidden_layers"), config.get("layer_types"), config.get("sliding_window")
    if not _is_count(count) or any(name in config for name in ("layers_block_type", "block_configs", "ssm_cfg")):
        return 0, 0, 0
    if types is None:
        return int(count), 0, 0  # a window that is not said layer by layer makes it less, never more
    if not isinstance(types, list) or set(types) - {FULL, SLIDING} or (SLIDING in types and not _is_count(window)):
        return 0, 0, 0
    return types.count(FULL), types.count(SLIDING), int(window or 0)


def _context(config: Mapping[str, Any]) -> int:
    """Tokens that vLLM would make room for if nothing were said."""
    context = config.get("max_position_embeddings")
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not _is_count(context):
        return 0
    if isinstance(scaling, dict) and scaling.get("rope_type", scaling.get("type")) in STRETCHING:
        before, factor = scaling.get("original_max_position_embeddings", context), scaling.get("factor", 1)
        if _is_count(before) and isinstance(factor, int | float):
            return max(int(context), int(before * factor))
    return int(context)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
