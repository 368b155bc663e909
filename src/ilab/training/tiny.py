"""A tiny base model made on the spot, for machines without a GPU, a key or a download.

It is *untrained*: a Llama of some 0.4 million randomly drawn weights and a 2,048-entry byte-level vocabulary learned
from ``primer.txt``, prose that belongs to this project. It knows nothing, which is what makes it a clean base to
measure learning against. The same specification gives the same bytes, so the store makes it once.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ilab.core.files import write_text
from ilab.models.renderer import TINY_SPECIAL_TOKENS, TINY_TEMPLATE
from ilab.models.weights import BUILDING, saving


class TinySpec(BaseModel):
    """Shape of the tiny model: ``width`` channels, ``layers`` blocks, ``heads`` of attention, ``context`` tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary: int = 2048
    width: int = 96
    layers: int = 2
    heads: int = 4
    feed_forward: int = 288
    context: int = 512
    seed: int = 0


def primer() -> str:
    """The text that the vocabulary is learned from."""
    return (resources.files("ilab.training") / "primer.txt").read_text(encoding="utf-8")


def make_tiny(out: Path, spec: TinySpec) -> int:
    """Write a Hugging Face model directory. Returns the number of parameters."""
    out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(out, spec)
    return _write_weights(out, spec)


def write_tokenizer(out: Path, spec: TinySpec) -> None:
    """Write tokenizer.json and tokenizer_config.json alone: all that rendering needs, without a weight."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocabulary,
        special_tokens=list(TINY_SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(primer().splitlines(keepends=True), trainer)
    # Not ``save``: it gives no OSError when the disk is full.
    write_text(out / "tokenizer.json", tokenizer.to_str(pretty=True))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.context,
        "pad_token": TINY_SPECIAL_TOKENS[0],
        "eos_token": TINY_SPECIAL_TOKENS[-1],
        "chat_template": TINY_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_weights(out: Path, spec: TinySpec) -> int:
    import torch
    from tokenizers import Tokenizer

    size = Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab_size()
    with BUILDING:
        model = _draw(spec, size).to(torch.float32)
    # Drawn from one generator in the order of the names: equal bytes wherever torch draws equal numbers.
    generator = torch.Generator().manual_seed(spec.seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if name.endswith("norm.weight") or "layernorm" in name:
                weight.fill_(1.0)
            else:
                weight.normal_(0.0, 0.02, generator=generator)
    with saving(out):
        model.save_pretrained(out)
    return sum(weight.numel() for weight in model.parameters())


def _draw(spec: TinySpec, vocabulary: int) -> Any:
    """The model's shape; the weights in it are drawn anew by the caller."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=spec.width,
        intermediate_size=spec.feed_forward,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=spec.context,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=len(TINY_SPECIAL_TOKENS) - 1,
    )
    return LlamaForCausalLM(config)
