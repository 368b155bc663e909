"""What a model is made of, from its ``config.json`` alone: no weight is loaded.

The families that InstructLab trains are counted in closed form, in microseconds and without PyTorch; any other one that
transformers knows is built without storage (the *meta* device) and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ilab.errors import InputError

FAMILIES = ("granite", "llama", "mistral", "qwen2", "qwen3")
LIMITS = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size")  # as in ilab.training.attention
STORED = {"float32": 4, "float16": 2, "bfloat16": 2}  # bytes of a weight in the model's own files


@dataclass(frozen=True)
class Linear:
    """A weight matrix [``outs``, ``ins``] that every layer has once."""

    name: str
    outs: int
    ins: int

    @property
    def size(self) -> int:
        return self.outs * self.ins


@dataclass(frozen=True)
class Architecture:
    """Counts are of numbers, not bytes.

    ``queries`` and ``keys`` are the widths of all query and of all key heads together. ``matrices`` are those of one
    layer, ``small`` the rest of a layer (norms, biases), ``last`` what stands behind the layers besides the output
    matrix. ``normed_heads``: queries and keys are normalised head by head (Qwen 3). ``masked``: the layers look back a
    limited way only, so packed rows need a mask (:mod:`ilab.training.attention`).
    """

    family: str
    layers: int
    width: int
    queries: int
    keys: int
    feed_forward: int
    vocabulary: int
    tied: bool
    matrices: tuple[Linear, ...]
    small: int
    last: int
    stored: int = 2
    normed_heads: bool = False
    masked: bool = False

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        return sum(matrix.size for matrix in self.matrices) + self.small

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.width

    @property
    def head(self) -> int:
        """Parameters of an output matrix of its own."""
        return 0 if self.tied else self.embedding

    @property
    def parameters(self) -> int:
        return self.embedding + self.head + self.layers * self.layer + self.last

    def targets(self, names: tuple[str, ...]) -> tuple[Linear, ...]:
        """The matrices of a layer that are called so; all of them where no name is given."""
        return tuple(matrix for matrix in self.matrices if not names or matrix.name in names)


def architecture(config: Mapping[str, Any]) -> Architecture:
    """Of a ``config.json``. Raises ``InputError`` for a model that transformers does not know."""
    family = str(config.get("model_type", ""))
    try:
        if family in FAMILIES:
            return _counted(family, config)
        return _built(family, config)
    except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise InputError(
            f"nothing can be said of a model of type {family or 'unknown'!r}: {error}",
            where="config.json",
            hint="it must be a causal language model that transformers knows, with its whole config.json",
        ) from error


def _counted(family: str, config: Mapping[str, Any]) -> Architecture:
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    heads = int(config["num_attention_heads"])
    key_heads = int(config.get("num_key_value_heads") or heads)
    size = int(config.get("head_dim") or (128 if family == "qwen3" else width // heads))
    queries, keys = heads * size, key_heads * size
    matrices = (
        Linear("q_proj", queries, width),
        Linear("k_proj", keys, width),
        Linear("v_proj", keys, width),
        Linear("o_proj", width, queries),
        Linear("gate_proj", inner, width),
        Linear("up_proj", inner, width),
        Linear("down_proj", width, inner),
    )
    biased = bool(config.get("attention_bias", False)) and family != "mistral"
    small = 2 * width
    small += queries + 2 * keys if biased or family == "qwen2" else 0
    small += width if biased else 0
    small += 2 * inner + width if config.get("mlp_bias") else 0
    small += 2 * size if family == "qwen3" else 0
    return Architecture(
        family=family,
        layers=int(config["num_hidden_layers"]),
        width=width,
        queries=queries,
        keys=keys,
        feed_forward=inner,
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        matrices=matrices,
        small=small,
        last=width,
        stored=_stored(config),
        normed_heads=family == "qwen3",
        masked=_limited(config),
    )


def _stored(config: Mapping[str, Any]) -> int:
    named = config.get("dtype") or config.get("torch_dtype") or "float32"
    return STORED.get(str(named).removeprefix("torch."), 4)


def _limited(config: Mapping[str, Any]) -> bool:
    return any(config.get(name) for name in LIMITS) and bool(config.get("use_sliding_window", True))


def _built(family: str, config: Mapping[str, Any]) -> Architecture:
    """Count a model that has no storage."""
    import torch

    from ilab.models.weights import BUILDING

    with BUILDING:
        from transformers import AutoConfig, AutoModelForCausalLM

        known = AutoConfig.for_model(family, **{key: value for key, value in config.items() if key != "model_type"})
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(known, trust_remote_code=False)
    text = known.get_text_config(decoder=True)
    layers = int(text.num_hidden_layers)
    blocks = next(
        list(part) for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == layers
    )
    found = [(name, part) for name, part in blocks[0].named_modules() if isinstance(part, torch.nn.Linear)]
    matrices = tuple(Linear(name.rpartition(".")[2], *part.weight.shape) for name, part in found)
    in_blocks = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    embedding = model.get_input_embeddings().weight
    tied = model.get_output_embeddings() is None or bool(text.tie_word_embeddings)
    total = sum(parameter.numel() for parameter in model.parameters())
    heads = int(text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    width = int(text.hidden_size)
    return Architecture(
        family=family,
        layers=layers,
        width=width,
        queries=heads * size,
        keys=int(getattr(text, "num_key_value_heads", None) or heads) * size,
        feed_forward=int(getattr(text, "intermediate_size", None) or 4 * width),
        vocabulary=int(embedding.shape[0]),
        tied=tied,
        matrices=matrices,
        small=in_blocks // layers - sum(matrix.size for matrix in matrices),
        last=total - in_blocks - embedding.numel() * (1 if tied else 2),
        stored=_stored(config),
        masked=_limited(config),
    )
