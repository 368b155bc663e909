"""tokenizer.json in the words of GGUF: tokens, merges or scores, special tokens, chat template.

Two kinds of tokenizer are known. *Byte-level BPE* (GPT-2's, llama.cpp's ``gpt2``) keeps its merges. *SentencePiece
BPE* as transformers writes it (byte fallback, ``▁`` for a space, llama.cpp's ``llama``) has merges too, where llama.cpp
wants a score for each token: the pair whose whole scores highest is joined first. The rank of the first merge that
makes a token, negated, is such a score if and only if all merges that make one token stand together, which is checked.

tokenizer.json alone decides, as it does for this project's own renderer; tokenizer.model is not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.errors import InputError
from ilab.models.chat_template import ChatTemplate, json_object
from ilab.models.gguf.header import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from ilab.models.gguf.pretokenizers import KNOWN, recognise
from ilab.models.renderer import Renderer

SPACE = "▁"
_STOPS = ("eos", "eot", "eom")  # the keys under which llama.cpp looks for tokens that end an answer


@dataclass(frozen=True)
class Vocabulary:
    """``keys`` go into the file as they are (``tokenizer.…``). ``opening``: text that has to stand before any other
    for the two sides to agree, empty for most models."""

    keys: dict[str, Any]
    opening: str = ""
    notes: tuple[str, ...] = ()


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The vocabulary of a Hugging Face directory, ``size`` rows as in the embedding.

    Raises ``InputError`` where llama.cpp has no tokenizer that does the same.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            "this folder has no tokenizer.json",
            where=str(folder),
            hint="write one with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
    tokenizer, settings = json_object(path), json_object(folder / "tokenizer_config.json")
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        kind = model.get("type") if isinstance(model, dict) else None
        raise InputError(
            f"its tokenizer ({kind}) is not byte-pair encoding", where=str(path), hint="no other kind can be converted"
        )
    tokens, types = _tokens(tokenizer, size, str(path))
    if model.get("byte_fallback"):
        keys, bare = _sentencepiece(tokenizer, tokens, types, str(path))
        notes = [] if bare else ["llama.cpp puts no ▁ before the first word of a bare text; chats are equal"]
    else:
        bare = True
        cleaned = bool(settings.get("clean_up_tokenization_spaces", False))
        keys, notes = _byte_level(tokenizer, cleaned, tokens, str(path))
    keys |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    more, problems = _specials(folder, tokenizer, size)
    keys |= more
    opening = "" if bare else tokens[keys.get("tokenizer.ggml.bos_token_id", 0)]
    return Vocabulary(keys, opening, (*notes, *problems))


def _tokens(tokenizer: Mapping[str, Any], size: int, where: str) -> tuple[list[str], list[int]]:
    """Text and type of every id below ``size``; rows without a token are unused."""
    texts: dict[int, str] = {}
    for text, number in tokenizer["model"]["vocab"].items():
        texts[number] = text
    types = dict.fromkeys(texts, NORMAL)
    for added in tokenizer.get("added_tokens") or ():
        if any(added.get(flag) for flag in ("lstrip", "rstrip", "single_word")):
            raise InputError(
                f"its added token {added['content']!r} takes blanks with it, which llama.cpp does not",
                where=where,
                hint="set lstrip, rstrip and single_word of this token to false, if the model can do without",
            )
        texts[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added.get("special") else USER_DEFINED
    if texts and max(texts) >= size:
        raise InputError(
            f"the tokenizer has {max(texts) + 1:,} tokens, the embedding {size:,} rows",
            where=where,
            hint="the folder mixes two models, or the embedding was never resized",
        )
    if len(set(texts.values())) != len(texts):
        raise InputError("two ids of the tokenizer have the same text", where=where)
    return (
        [texts.get(number, f"[PAD{number}]") for number in range(size)],
        [types.get(number, UNUSED) for number in range(size)],
    )


def _byte_level(
    tokenizer: Mapping[str, Any], cleaned: bool, tokens: Sequence[str], where: str
) -> tuple[dict[str, Any], list[str]]:
    found = recognise(tokenizer, cleaned)
    model = tokenizer["model"]
    if found is None or any(model.get(n) for n in ("continuing_subword_prefix", "end_of_word_suffix", "dropout")):
        cut = json.dumps(
            {"normalizer": tokenizer.get("normalizer"), "pre_tokenizer": tokenizer.get("pre_tokenizer")},
            ensure_ascii=False,
        )
        raise InputError(
            f"its way to cut text is unknown here, and llama.cpp would cut it otherwise without a word: {cut[:300]}",
            where=where,
            hint=f"known are: {', '.join(known.name for known in KNOWN)}, and SentencePiece with byte fallback",
        )
    if absent := sorted(set(_byte_letters()) - set(tokens)):
        raise InputError(f"its vocabulary lacks the byte {absent[0]!r}", where=where)
    merges = [" ".join(pair) for pair in _merges(model)]
    keys: dict[str, Any] = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": found.name}
    if merges:
        keys["tokenizer.ggml.merges"] = merges
    return keys, [found.limit] if found.limit else []


def _sentencepiece(
    tokenizer: Mapping[str, Any], tokens: Sequence[str], types: list[int], where: str
) -> tuple[dict[str, Any], bool]:
    """The keys, and whether they hold for bare texts. ``types`` is filled in: bytes and the unknown token."""
    model = tokenizer["model"]
    for number, text in enumerate(tokens):
        if types[number] == NORMAL and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            types[number] = BYTE
        elif text == model.get("unk_token"):
            types[number] = UNKNOWN
    if types.count(BYTE) != 256:
        raise InputError("its vocabulary lacks some of the 256 bytes", where=where)
    prefix = _space_prefix(tokenizer)
    normal = [text for text, kind in zip(tokens, types, strict=True) if kind == NORMAL]
    ranks = _ranks(_merges(model), normal)
    if prefix is None or ranks is None:
        what = "normaliser or pre-tokenizer" if prefix is None else "the merges"
        raise InputError(
            f"its tokenizer is not SentencePiece as llama.cpp knows it ({what})",
            where=where,
            hint="known are: ▁ for every space, and one in front always, never, or at the start of a text alone; "
            "merges in the order of the tokens they make",
        )
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": [-float(ranks.get(text, len(ranks))) for text in tokens],
        "tokenizer.ggml.add_space_prefix": prefix == "always",
        "tokenizer.ggml.remove_extra_whitespaces": False,
    }
    return keys, prefix != "first"


def _ranks(merges: Sequence[tuple[str, str]], normal: Sequence[str]) -> dict[str, int] | None:
    """Each token's place in the order of joining. None where no order of tokens says what the merges say: where a
    token is joined early by one pair and late by another, or two tokens that make a third are never joined."""
    ranks: dict[str, int] = {}
    before = ""
    for left, right in merges:
        whole = left + right
        if whole in ranks and whole != before:
            return None
        ranks.setdefault(whole, len(ranks))
        before = whole
    known, joined = set(normal), set(merges)
    for text in normal:
        for at in range(1, len(text)):
            pair = text[:at], text[at:]
            if pair[0] in known and pair[1] in known and pair not in joined:
                return None
    return ranks


def _space_prefix(tokenizer: Mapping[str, Any]) -> str | None:
    """When ``▁`` is put in front: ``always`` (after every special token), ``first`` (of the text) or ``never``."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    match tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer"):
        case {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, last]}, None if last == replace:
            return "always"
        case only, None if only in (replace, {"type": "Sequence", "normalizers": [replace]}):
            return "never"
        # Metaspace's own "always" is another thing: it leaves out the ▁ where a text begins with a blank.
        case None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": str(scheme), "split": False}:
            return scheme if scheme in ("first", "never") else None
    return None


def _specials(folder: Path, tokenizer: Mapping[str, Any], size: int) -> tuple[dict[str, Any], list[str]]:
    """Ids of the special tokens, which are added to a text, the chat template; and what cannot be said."""
    from tokenizers import Tokenizer

    template = ChatTemplate.load(folder)
    ids = dict(tokenizer["model"]["vocab"])
    ids |= {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens") or ()}
    named = {name.removesuffix("_token"): ids.get(text) for name, text in template.named.items()}
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bare = loaded.encode("a", add_special_tokens=False).ids
    full = loaded.encode("a", add_special_tokens=True).ids
    at = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
    before, after = full[:at], full[at + len(bare) :]
    if len(before) > 1 or len(after) > 1:
        raise InputError(
            "its tokenizer adds several tokens around a text", where=str(folder / "tokenizer.json"),
            hint="llama.cpp adds one at most on each side",
        )  # fmt: skip
    stops = _stops(folder, named.get("eos"), size)
    keys: dict[str, Any] = {f"tokenizer.ggml.{name}_token_id": n for name, n in zip(_STOPS, stops, strict=False)}
    bos = before[0] if before else named.get("bos")
    for name, number in (("bos", bos), ("unknown", named.get("unk")), ("padding", named.get("pad"))):
        if number is not None:
            keys[f"tokenizer.ggml.{name}_token_id"] = number
    keys |= {"tokenizer.ggml.add_bos_token": bool(before), "tokenizer.ggml.add_eos_token": bool(after)}
    if template.source is not None:
        keys["tokenizer.chat_template"] = template.source
    notes = [f"{len(stops) - 3} more tokens end an answer than GGUF can name"] if len(stops) > 3 else []
    if after and after != stops[:1]:
        raise InputError("its tokenizer ends a text with another token than eos_token", where=str(folder))
    return keys, notes


def _stops(folder: Path, eos: int | None, size: int) -> list[int]:
    """The tokens that end an answer, ``eos_token`` first. Raises ``InputError`` for ids without a row."""
    found = sorted(Renderer.load(folder).stop_ids - {eos})
    stops = found if eos is None else [eos, *found]
    if wrong := [number for number in stops if not 0 <= number < size]:
        raise InputError(f"eos_token_id {wrong[0]} has no row in the embedding", where=str(folder / "config.json"))
    return stops


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges, which newer files hold as pairs and older ones as ``left right``."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model.get("merges") or ())
    return [(str(left), str(right)) for left, right in pairs]


def _byte_letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return list(ByteLevel.alphabet())
