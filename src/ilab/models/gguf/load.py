"""A GGUF file as a model that answers here, by transformers, where there is no llama.cpp.

Weights are widened to 32 bits, so it takes four bytes a weight and is slower than llama.cpp; the families are those
that are also exported. Its tokenizer becomes a tokenizer.json, so that the answers are those of the renderer.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from ilab.errors import InputError, SetupError
from ilab.models.chat_template import ChatTemplate
from ilab.models.device import pick_device
from ilab.models.gguf.header import CONTROL, UNKNOWN, USER_DEFINED, Header, read_header
from ilab.models.gguf.pretokenizers import KNOWN
from ilab.models.gguf.reader import ARCHITECTURES, SPACE, File, read_model
from ilab.models.local import LocalModel
from ilab.models.renderer import Renderer
from ilab.models.templates import choose_template

LLAMACPP = "pip install 'ilab[llamacpp]', which serves every family and needs less memory"
NAMED = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}  # GGUF's names -> transformers'
STOPS = ("eos", "eot", "eom")


def load_gguf(path: Path, device: str = "auto", threads: int = 1) -> LocalModel:
    """The model in ``path``. Raises ``InputError`` for a file that is torn or of another family, ``SetupError`` where
    the package gguf or the device is missing."""
    import torch

    header = read_header(path)
    need_known(header, path)
    chosen = pick_device(device)
    try:
        file = File(path)
        model = read_model(file)
        renderer = _renderer(file, str(path))
    except (ValueError, LookupError, TypeError, OverflowError, struct.error) as error:
        raise InputError(f"this GGUF file makes no sense: {error}", where=str(path), hint=LLAMACPP) from error
    torch.set_num_threads(threads)
    return LocalModel(model.to(chosen), renderer, chosen)


def need_known(header: Header, path: Path) -> None:
    """Raises ``SetupError`` for a file that only llama.cpp can serve, or where the package gguf is missing."""
    from importlib.util import find_spec

    if header.architecture not in ARCHITECTURES or header.parts > 1:
        kind = "in several parts" if header.parts > 1 else f"of architecture {header.architecture!r}"
        raise SetupError(f"a GGUF file {kind} needs llama.cpp, which is not here", where=str(path), hint=LLAMACPP)
    if find_spec("gguf") is None:
        raise SetupError("GGUF files need llama.cpp or the package gguf", where=str(path), hint=LLAMACPP)


def _renderer(file: File, where: str) -> Renderer:
    keys, tokens = file.keys, file.keys["tokenizer.ggml.tokens"]
    ids = {name: keys.get(f"tokenizer.ggml.{name}_token_id") for name in (*NAMED, *STOPS)}
    named = {f"{short}_token": tokens[ids[name]] for name, short in NAMED.items() if ids[name] is not None}
    template = ChatTemplate(keys.get("tokenizer.chat_template"), named, where, keys.get("tokenizer.ggml.add_bos_token"))
    stops = [int(number) for name in STOPS if (number := ids[name]) is not None]
    own = Renderer(tokenizer_json(file), template, stops)
    chosen = None if own.has_template else choose_template(own.special_tokens.values(), file.architecture)
    return own if chosen is None else own.with_template(chosen.source, f"{chosen.name}.jinja (built-in)")


def tokenizer_json(file: File) -> str:
    """The text of a tokenizer.json that cuts text as the file's own tokens, merges and scores say."""
    from tokenizers import AddedToken

    keys = file.keys
    tokenizer = _pieces(keys) if keys["tokenizer.ggml.model"] == "llama" else _byte_pairs(keys)
    for text, kind in zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True):
        if kind in (CONTROL, UNKNOWN):
            tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        elif kind == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(text, normalized=False)])
    return str(tokenizer.to_str())


def _byte_pairs(keys: dict[str, Any]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    known = next((one for one in KNOWN if one.name == keys.get("tokenizer.ggml.pre")), None)
    if known is None:
        raise ValueError(f"its way to cut text, {str(keys.get('tokenizer.ggml.pre'))[:40]!r}, is not known here")
    vocabulary = {text: number for number, text in enumerate(keys["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in keys.get("tokenizer.ggml.merges", ())]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=known.whole))
    splits = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in known.expressions]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pieces(keys: dict[str, Any]) -> Any:
    """SentencePiece BPE: the pair whose whole scores highest is joined first, so every pair is a merge, by score."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens, scores = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.scores"]
    vocabulary = {text: number for number, text in enumerate(tokens)}
    merges = [
        (text[:at], text[at:])
        for _, number, text in sorted((-scores[number], number, text) for text, number in vocabulary.items())
        for at in range(1, len(text))
        if text[:at] in vocabulary and text[at:] in vocabulary
    ]
    unknown = keys.get("tokenizer.ggml.unknown_token_id", 0)
    bpe = models.BPE(vocab=vocabulary, merges=merges, unk_token=tokens[unknown], fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    prefix = bool(keys.get("tokenizer.ggml.add_space_prefix", True))
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer
