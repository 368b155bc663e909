"""config.json in the words of GGUF, for the families whose files are tested here.

A family is one row of ``FAMILIES``. What llama.cpp computes for an architecture is fixed in its source, so every
setting that would make the model compute something else is refused by name, never left out.

llama.cpp rotates neighbouring channels for the architectures ``llama`` and ``granite`` (RoPE as in the paper, arXiv
2104.09864), while transformers rotates halves: rows of the query and key matrices change places on the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ilab.errors import InputError

Value = int | float | str | bool


@dataclass(frozen=True)
class Family:
    """``biases``: modules that may have one. ``permuted``: query and key rows are interleaved in the file."""

    architecture: str
    permuted: bool
    biases: frozenset[str] = frozenset()
    normed_heads: bool = False
    scaled: bool = False
    own_head_size: bool = True  # whether head_dim may differ from width / heads


_ALL = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
FAMILIES = {
    "llama": Family("llama", True, _ALL),
    "mistral": Family("llama", True),
    "qwen2": Family("qwen2", False, frozenset({"q_proj", "k_proj", "v_proj"}), own_head_size=False),
    "qwen3": Family("qwen3", False, normed_heads=True),
    "granite": Family("granite", True, _ALL, scaled=True, own_head_size=False),
}
_MULTIPLIERS = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
_MODULES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Shape:
    """A model's dimensions as its file states them. ``keys`` go into the file under the architecture's name;
    ``rope_factors`` are divisors of the rotation frequencies, one per pair of channels; ``notes`` are for people."""

    family: Family
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    tied: bool
    keys: dict[str, Value]
    rope_factors: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def module_sizes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each module's weight: rows (outputs) and columns (inputs)."""
        width, wide = int(self.keys["embedding_length"]), int(self.keys["feed_forward_length"])
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        return {
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
            "q_proj": (queries, width),
            "k_proj": (keys, width),
            "v_proj": (keys, width),
            "o_proj": (width, queries),
            "q_norm": (self.head_size,),
            "k_norm": (self.head_size,),
            "gate_proj": (wide, width),
            "up_proj": (wide, width),
            "down_proj": (width, wide),
        }


@dataclass(frozen=True)
class Part:
    """Which tensor of the safetensors a tensor of the file is made of: its ``shape`` (rows, columns), and ``heads``
    to interleave, or 0."""

    name: str
    shape: tuple[int, ...]
    heads: int = 0


def read_shape(config: Mapping[str, Any], where: str) -> Shape:
    """Understand a config.json. Raises ``InputError`` for whatever llama.cpp would compute otherwise."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise InputError(
            f"models of type {config.get('model_type')!r} cannot be converted here",
            where=where,
            hint=f"known are: {', '.join(FAMILIES)}; for others there is llama.cpp's own convert_hf_to_gguf.py",
        )
    _refuse(config, family, where)
    width, heads = _number(config, "hidden_size", where), _number(config, "num_attention_heads", where)
    head_size = int(config.get("head_dim") or width // heads)
    context = _number(config, "max_position_embeddings", where)
    notes: list[str] = []
    window = _window(config)
    if window and window < context:
        notes.append(f"context cut to {window:,} tokens: llama.cpp has no sliding window for this architecture")
        context = window
    keys: dict[str, Value] = {
        "block_count": _number(config, "num_hidden_layers", where),
        "context_length": context,
        "embedding_length": width,
        "feed_forward_length": _number(config, "intermediate_size", where),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.key_length": head_size,
        "attention.value_length": head_size,
        "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope.dimension_count": head_size,
        "vocab_size": _number(config, "vocab_size", where),
    }
    if family.scaled:
        keys |= {key: float(config.get(name, 1.0)) for name, key in _MULTIPLIERS.items()}
    rope = _rope(config)
    keys |= _rope_keys(rope, where)
    return Shape(
        family,
        layers=int(keys["block_count"]),
        heads=heads,
        kv_heads=int(keys["attention.head_count_kv"]),
        head_size=head_size,
        vocabulary=int(keys["vocab_size"]),
        context=context,
        tied=bool(config.get("tie_word_embeddings", False)),
        keys=keys,
        rope_factors=_llama3_factors(rope, head_size) if rope["rope_type"] == "llama3" else (),
        notes=tuple(notes),
    )


def tensors(shape: Shape, present: frozenset[str], where: str) -> dict[str, Part]:
    """Every tensor of the file, in its order, and what it is made of. ``present`` are the names in the safetensors.

    Raises ``InputError`` where one is missing, or where one has no place in the file.
    """
    family = shape.family
    sizes = shape.module_sizes()
    width = sizes["input_layernorm"][0]
    found = {"token_embd.weight": Part("model.embed_tokens.weight", (shape.vocabulary, width))}
    for layer in range(shape.layers):
        for module, name in _MODULES.items():
            last = module.rpartition(".")[2]
            if last in ("q_norm", "k_norm") and not family.normed_heads:
                continue
            heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(last, 0) if family.permuted else 0
            source = f"model.layers.{layer}.{module}"
            found[f"blk.{layer}.{name}.weight"] = Part(f"{source}.weight", sizes[last], heads)
            if last in family.biases and f"{source}.bias" in present:
                found[f"blk.{layer}.{name}.bias"] = Part(f"{source}.bias", sizes[last][:1], heads)
    found["output_norm.weight"] = Part("model.norm.weight", (width,))
    if not shape.tied:
        found["output.weight"] = Part("lm_head.weight", (shape.vocabulary, width))
    wanted = {part.name for part in found.values()}
    if missing := sorted(wanted - present):
        raise InputError(f"the weights lack {missing[0]}", where=where, hint="the folder is incomplete; copy it again")
    ignored = {name for name in present if name.endswith("rotary_emb.inv_freq")} | {"lm_head.weight"}
    if extra := sorted(present - wanted - ignored):
        raise InputError(
            f"the tensor {extra[0]} has no place in a GGUF file of architecture {family.architecture}",
            where=where,
            hint="an adapter has to be merged first; other additions cannot be converted",
        )
    return found


def _refuse(config: Mapping[str, Any], family: Family, where: str) -> None:
    width, heads = _number(config, "hidden_size", where), _number(config, "num_attention_heads", where)
    head_size = config.get("head_dim") or width // heads
    wrong = None
    if config.get("quantization_config"):
        wrong = "the weights are quantised already (quantization_config)"
    elif config.get("hidden_act", "silu") != "silu":
        wrong = f"its activation is {config['hidden_act']!r}, llama.cpp's is silu"
    elif float(_rope(config).get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        wrong = "it rotates a part of each head only (partial_rotary_factor)"
    elif not family.own_head_size and head_size * heads != width:
        wrong = f"its heads have {head_size} channels, {width // heads} are expected"
    elif head_size % 2 or heads % int(config.get("num_key_value_heads") or heads):
        wrong = "its heads cannot be paired"
    elif any(config.get(name) for name in ("attention_bias", "mlp_bias")) and not family.biases:
        wrong = "it has biases"
    if wrong:
        raise InputError(
            f"this {config['model_type']} model cannot be a GGUF file: {wrong}",
            where=where,
            hint="llama.cpp would compute something else; convert a model without this setting",
        )


def _window(config: Mapping[str, Any]) -> int:
    """The sliding window of the attention in tokens, 0 for none. Qwen has the number written even where it is off."""
    if not config.get("use_sliding_window", config.get("model_type") == "mistral"):
        return 0
    return int(config.get("sliding_window") or 0)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings, from ``rope_parameters`` or the older ``rope_theta`` and ``rope_scaling``."""
    given = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    given.setdefault("rope_type", given.get("type", "default"))
    given.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    given.setdefault("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    return given


def _rope_keys(rope: Mapping[str, Any], where: str) -> dict[str, Value]:
    keys: dict[str, Value] = {"rope.freq_base": float(rope["rope_theta"])}
    match rope["rope_type"]:
        case "default" | "llama3":  # llama3 is a tensor of factors
            return keys
        case "linear":
            return keys | {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
        case "yarn" if not any(rope.get(name) for name in ("mscale", "mscale_all_dim")) and rope.get("truncate", True):
            before = rope["original_max_position_embeddings"]
            if before:
                keys |= {
                    "rope.scaling.type": "yarn",
                    "rope.scaling.factor": float(rope["factor"]),
                    "rope.scaling.original_context_length": int(before),
                    "rope.scaling.yarn_beta_fast": float(rope.get("beta_fast") or 32.0),
                    "rope.scaling.yarn_beta_slow": float(rope.get("beta_slow") or 1.0),
                }
                expected = 0.1 * math.log(float(rope["factor"])) + 1.0
                if math.isclose(float(rope.get("attention_factor") or expected), expected, rel_tol=1e-4):
                    return keys
    raise InputError(
        f"its position scaling ({rope['rope_type']}, as it is set) cannot be written to a GGUF file",
        where=where,
        hint="known are: default, linear, llama3, and yarn with its usual attention factor",
    )


def _llama3_factors(rope: Mapping[str, Any], head_size: int) -> tuple[float, ...]:
    """Divisors of the frequencies, by which Llama 3.1 reaches a longer context (its ``apply_scaling``)."""
    factor, before = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    factors = []
    for pair in range(0, head_size, 2):
        turns = before / (2 * math.pi * float(rope["rope_theta"]) ** (pair / head_size))  # in the original context
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1.0 / ((1.0 - share) / factor + share))
    return tuple(factors)


def _number(config: Mapping[str, Any], name: str, where: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value <= 0:
        raise InputError(f"{name} should be a positive whole number, but is {value!r}", where=where)
    return value
