"""Small models with random weights, one of each family that can become a GGUF file, each with a tokenizer of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROSE = [
    "How many locks has the canal? It has 14 locks, and 3.14159 more.",
    "Größe, café, naïve façade; Быстрая лиса прыгает 25 раз. 敏捷的棕色狐狸",
    "def answer(x):\n    return x ** 2  # squared!\n\n",
    "camelCase HTTPServer isn't they'll DON'T 'tis  two  spaces",
] * 4
SPECIALS = ["<s>", "</s>", "<|user|>", "<|pad|>"]
TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + '</s>' }}{% else %}"
    "{{ '<|user|>\n' + m['content'] + '\n' }}{% endif %}{% endfor %}"
)
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(kind: str) -> Any:
    """A byte-level BPE tokenizer whose pre-tokenizer is built as the published model of that kind has it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    splits = {
        "llama-bpe": WORDS,
        "dbrx": WORDS,
        "qwen2": WORDS.replace("{1,3}", ""),
        "tekken": TEKKEN,
        "gpt-4o": GPT4O,
        "unknown": r"\p{L}+|\p{N}{2}|\s+|[^\s\p{L}\p{N}]+",
    }
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind in ("llama-bpe", "tekken")))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind not in splits)
    first: list[Any] = []
    if kind in splits:
        first = [pre_tokenizers.Split(Regex(splits[kind]), "isolated")]
    elif kind in ("refact", "smollm"):
        first = [pre_tokenizers.Digits(individual_digits=True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, level]) if first else level
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PROSE, trainer)
    tokenizer.add_tokens(["user_defined"])
    if kind == "llama-bpe":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def sentencepiece(scheme: str) -> Any:
    """A SentencePiece tokenizer as transformers converts it: every pair of pieces that makes a piece is a merge, in
    the order of the pieces' scores. ``scheme``: prepend (Llama 2), always, first (Mistral v3) or never."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    plain.train_from_iterator(PROSE, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    pieces = [text for text, _ in sorted(plain.get_vocab().items(), key=lambda entry: entry[1])]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {text: number for number, text in enumerate(dict.fromkeys(tokens))}
    merges = [
        (text[:at], text[at:])
        for text in pieces
        for at in range(1, len(text))
        if text[:at] in vocabulary and text[at:] in vocabulary
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if scheme == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False) for text in ("<s>", "</s>", "<unk>", *SPECIALS[2:])]
    )
    return tokenizer


CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama-bpe", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }}),
    "mistral": ("prepend", {"head_dim": 24, "sliding_window": None}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen2", {"head_dim": 32}),
    "granite": ("refact", {
        "attention_multiplier": 0.05, "embedding_multiplier": 6.0, "residual_multiplier": 0.3, "logits_scaling": 4.0,
        "tie_word_embeddings": True,
    }),
}  # fmt: skip


def build_model(folder: Path, family: str, tokenizer: str = "", **settings: Any) -> Path:
    """A model directory as transformers saves it. ``settings`` are of its config."""
    import torch
    import transformers

    kind, own = CONFIGS[family]
    kind = tokenizer or kind
    made = sentencepiece(kind) if kind in ("prepend", "always", "first", "never") else byte_level(kind)
    torch.manual_seed(7)
    torch.set_num_threads(1)
    name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "granite": "Granite"}[family]
    given = {
        "vocab_size": made.get_vocab_size() + 3,  # rows without a token, as published models have
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,  # large, so that a wrong rotation or scale shows
        "bos_token_id": made.token_to_id("<s>"),
        "eos_token_id": made.token_to_id("</s>"),
        **own,
        **settings,
    }
    config = getattr(transformers, f"{name}Config")(**given)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if "norm" in weight_name or weight_name.endswith("bias"):
                weight.copy_(1.0 + 0.2 * torch.randn_like(weight))
    model.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    settings_file = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": kind == "refact",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings_file))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def gguf_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a model once for each set of arguments; nobody may write into it."""
    made: dict[str, Path] = {}

    def build(family: str, tokenizer: str = "", **settings: Any) -> Path:
        key = json.dumps([family, tokenizer, settings], sort_keys=True)
        if key not in made:
            made[key] = build_model(tmp_path_factory.mktemp("gguf") / family, family, tokenizer, **settings)
        return made[key]

    return build
