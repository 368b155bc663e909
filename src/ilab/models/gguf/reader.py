"""A GGUF file read again by its own words, as llama.cpp would read it, and by none of the code that wrote it.

The tokenizer is built from the file's tokens, merges or scores and from llama.cpp's own expressions; the model from
the file's keys, with the inverse of each rearrangement. What the writer left out or misnamed is therefore missing
here too, and the parity checks see it. Others' files are looked at first (:mod:`ilab.models.gguf.header`); what they
get wrong beyond that raises whatever it raises.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ilab.errors import SetupError
from ilab.models.gguf.header import CONTROL, UNKNOWN, USER_DEFINED
from ilab.models.gguf.pretokenizers import KNOWN
from ilab.models.weights import BUILDING

SPACE = "▁"
_HALVED = ("llama", "granite")  # architectures whose query and key rows llama.cpp takes in neighbouring pairs
ARCHITECTURES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "granite": "Granite"}
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class File:
    """An open GGUF file: ``keys`` are its metadata as plain values."""

    def __init__(self, path: Path) -> None:
        import gguf

        self._reader = gguf.GGUFReader(path)
        self.keys: dict[str, Any] = {name: field.contents() for name, field in self._reader.fields.items()}
        self.architecture = str(self.keys["general.architecture"])

    def key(self, name: str, default: Any = None) -> Any:
        """A key of the architecture's."""
        return self.keys.get(f"{self.architecture}.{name}", default)

    def types(self) -> dict[str, str]:
        """Tensor name -> the name of its type."""
        return {tensor.name: tensor.tensor_type.name for tensor in self._reader.tensors}

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Every tensor, by transformers' name and in its order of rows, as a 32-bit array; one at a time. The
        divisors of the rotation frequencies come under their own name."""
        import gguf
        import numpy as np

        for tensor in self._reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            array = np.require(values, dtype=np.float32, requirements="W")  # a copy of what is only mapped
            array = array.reshape(tuple(int(n) for n in tensor.shape)[::-1])
            head, _, kind = tensor.name.rpartition(".")
            *block, name = head.split(".")
            if self.architecture in _HALVED and name in ("attn_q", "attn_k"):
                heads = self.key("attention.head_count" if name == "attn_q" else "attention.head_count_kv")
                array = _halves(array, int(heads))
            if name in _NAMES:
                layer = f"model.layers.{block[1]}." if block else ""
                yield f"{layer}{_NAMES[name]}.{kind}", array
            else:
                yield head, array


def _halves(array: Any, heads: int) -> Any:
    """Rows of each head from neighbouring pairs to halves: first all even ones, then all odd ones."""
    import numpy as np

    per_head = array.reshape(heads, -1, *array.shape[1:])
    return np.concatenate([per_head[:, 0::2], per_head[:, 1::2]], axis=1).reshape(array.shape)


def read_model(file: File) -> Any:
    """The model of the file in transformers, in 32 bits, ready for evaluation."""
    import torch

    with BUILDING:
        import transformers

        name = ARCHITECTURES[file.architecture]
        config = getattr(transformers, f"{name}Config")(**_config(file))
        with torch.device("meta"):
            model = getattr(transformers, f"{name}ForCausalLM")(config)
        model = model.to_empty(device="cpu")
        # Its frequencies are no weights: to_empty has lost them.
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for tensor, array in file.tensors():
            values = torch.from_numpy(array)
            if tensor == "rope_freqs":
                model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq / values
            elif own[tensor].shape != values.shape:
                raise SetupError(f"the file holds {tensor} as {tuple(values.shape)}")
            else:
                own.pop(tensor).copy_(values)
    model.tie_weights()
    if own.keys() - {"lm_head.weight"}:
        raise SetupError(f"the file lacks {min(own)}")
    return model.eval()


def _config(file: File) -> dict[str, Any]:
    """The settings of the transformers model, from the file's keys alone."""
    rope: dict[str, Any] = {"rope_type": file.key("rope.scaling.type", "default")}
    rope["rope_theta"] = file.key("rope.freq_base", 10000.0)
    if rope["rope_type"] != "default":
        rope["factor"] = file.key("rope.scaling.factor")
    if rope["rope_type"] == "yarn":
        rope["original_max_position_embeddings"] = file.key("rope.scaling.original_context_length")
        rope["beta_fast"] = file.key("rope.scaling.yarn_beta_fast", 32.0)
        rope["beta_slow"] = file.key("rope.scaling.yarn_beta_slow", 1.0)
    types = file.types()
    config = {
        "vocab_size": file.key("vocab_size") or len(file.keys["tokenizer.ggml.tokens"]),
        "hidden_size": file.key("embedding_length"),
        "intermediate_size": file.key("feed_forward_length"),
        "num_hidden_layers": file.key("block_count"),
        "num_attention_heads": file.key("attention.head_count"),
        "num_key_value_heads": file.key("attention.head_count_kv"),
        "head_dim": file.key("attention.key_length"),
        "max_position_embeddings": file.key("context_length"),
        "rms_norm_eps": file.key("attention.layer_norm_rms_epsilon"),
        "rope_parameters": rope,
        "tie_word_embeddings": "output.weight" not in types,
        "attention_bias": "blk.0.attn_output.bias" in types,
        "mlp_bias": "blk.0.ffn_up.bias" in types,
    }
    if file.architecture == "granite":
        config |= {
            "attention_multiplier": file.key("attention.scale"),
            "embedding_multiplier": file.key("embedding_scale"),
            "residual_multiplier": file.key("residual_scale"),
            "logits_scaling": file.key("logit_scale"),
        }
    return config


def read_tokenizer(file: File) -> Callable[[str], list[int]]:
    """Text to token ids by the file alone: special tokens are found in the text, none are added around it."""
    keys = file.keys
    tokens: list[str] = keys["tokenizer.ggml.tokens"]
    types: list[int] = keys["tokenizer.ggml.token_type"]
    found = {text: number for number, text in enumerate(tokens) if types[number] in (CONTROL, USER_DEFINED, UNKNOWN)}
    bare = _pieces(keys, tokens) if keys["tokenizer.ggml.model"] == "llama" else _byte_pairs(keys, tokens)

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        start = at = 0
        while at < len(text):
            match = _longest(found, text, at)
            if match is None:
                at += 1
                continue
            ids += bare(text[start:at]) if at > start else []
            ids.append(found[match])
            start = at = at + len(match)
        return ids + (bare(text[start:]) if start < len(text) else [])

    return encode


def _longest(found: dict[str, int], text: str, at: int) -> str | None:
    return max((special for special in found if text.startswith(special, at)), key=len, default=None)


def _byte_pairs(keys: dict[str, Any], tokens: list[str]) -> Callable[[str], list[int]]:
    """Byte-level BPE as llama.cpp does it: its expressions for the named pre-tokenizer, then the merges."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    known = next(entry for entry in KNOWN if entry.name == keys["tokenizer.ggml.pre"])
    merges = [tuple(merge.split(" ", 1)) for merge in keys.get("tokenizer.ggml.merges", ())]
    vocabulary = {text: number for number, text in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=known.whole))
    splits = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in known.expressions]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def _pieces(keys: dict[str, Any], tokens: list[str]) -> Callable[[str], list[int]]:
    """SentencePiece BPE as llama.cpp does it (``llm_tokenizer_spm_session``): of all neighbours that make a token,
    the pair with the highest score is joined first, the leftmost of equals; what is left unknown becomes bytes."""
    ids = {text: number for number, text in enumerate(tokens)}
    scores: list[float] = keys["tokenizer.ggml.scores"]
    prefix = " " if keys["tokenizer.ggml.add_space_prefix"] else ""

    def encode(text: str) -> list[int]:
        symbols: list[str | None] = list((prefix + text).replace(" ", SPACE))
        after = [*range(1, len(symbols)), -1]
        before = list(range(-1, len(symbols) - 1))
        queue: list[tuple[float, int, int, str]] = []

        def consider(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                whole = f"{symbols[left]}{symbols[right]}"
                if whole in ids:
                    heapq.heappush(queue, (-scores[ids[whole]], left, right, whole))

        for at in range(len(symbols) - 1):
            consider(at, at + 1)
        while queue:
            _, left, right, whole = heapq.heappop(queue)
            if symbols[left] is None or symbols[right] is None or f"{symbols[left]}{symbols[right]}" != whole:
                continue
            symbols[left], symbols[right] = whole, None
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            consider(before[left], left)
            consider(left, after[left])
        found: list[int] = []
        for symbol in filter(None, symbols):
            found += [ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
        return found

    return encode
