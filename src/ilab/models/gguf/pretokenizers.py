"""How text is cut before byte-pair merging: which of llama.cpp's ways a tokenizer.json means.

llama.cpp has its own program for each known way and picks it by a name in the file; a wrong name gives slightly wrong
tokens and no error. So a way is recognised by what tokenizer.json *says* — its normaliser, its pre-tokenizer and
whether merges are ignored for whole tokens — and anything that is not in ``KNOWN`` is refused. ``expressions`` are
those that llama.cpp runs for that name (``llm_tokenizer_bpe`` in src/llama-vocab.cpp, one after the other, each on
what the former left whole), from which ``reader`` builds a tokenizer to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CASES = "llama.cpp tells capitals from small letters in ASCII alone: words in accented capitals give other tokens"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(digits: str) -> str:
    """Llama 3's expression, of which others differ in how many digits stay together."""
    return _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _TAIL


def _cased(digits: str, contractions: str, ascii_only: bool) -> str:
    """Tekken's and GPT-4o's expression: a word ends where small letters are followed by capitals. llama.cpp tells
    the two apart in ASCII alone."""
    upper, lower = (r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])") if ascii_only else (_UPPER, _LOWER)
    lead = r"[^\r\n\p{L}\p{N}]?"
    end = f"{contractions}?" if contractions else ""
    words = f"{lead}{upper}*{lower}+{end}|{lead}{upper}+{lower}*{end}"
    return f"{words}|{digits}" + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _TAIL


@dataclass(frozen=True)
class PreTokenizer:
    """``split`` is the expression in tokenizer.json, empty for the one built into ByteLevel; ``digits`` whether
    each digit is cut off before it; ``whole`` whether a known token is taken without merging. ``cleaned`` is the
    value of ``clean_up_tokenization_spaces`` that the name goes with, None for either."""

    name: str
    split: str
    whole: bool
    expressions: tuple[str, ...]
    digits: bool = False
    composed: bool = False  # whether an NFC normaliser may stand in front
    cleaned: bool | None = None
    limit: str = ""  # what llama.cpp is known to cut otherwise


KNOWN = (
    PreTokenizer("gpt-2", "", False, (GPT2,)),
    PreTokenizer("refact", "", False, (r"\p{N}", GPT2), digits=True, cleaned=True),
    PreTokenizer("smollm", "", False, (r"\p{N}", GPT2), digits=True, cleaned=False),
    PreTokenizer("llama-bpe", _words(r"\p{N}{1,3}"), True, (_words(r"\p{N}{1,3}"),)),
    PreTokenizer("dbrx", _words(r"\p{N}{1,3}"), False, (_words(r"\p{N}{1,3}"),)),
    PreTokenizer(
        "qwen2",
        _words(r"\p{N}"),
        False,
        (_words(r"\p{N}"),),
        composed=True,
        limit="llama.cpp does not compose characters (NFC): text with separate accents gives other tokens",
    ),
    PreTokenizer("tekken", _cased(r"\p{N}", "", False), True, (_cased(r"\p{N}", "", True),), limit=_CASES),
    PreTokenizer(
        "gpt-4o",
        _cased(r"\p{N}{1,3}", _CONTRACTIONS, False),
        False,
        (_cased(r"\p{N}{1,3}", _CONTRACTIONS, True),),
        limit=_CASES,
    ),
)


def recognise(tokenizer: Mapping[str, Any], cleaned: bool) -> PreTokenizer | None:
    """The way of cutting that a byte-level BPE tokenizer.json means, None for an unknown one."""
    normaliser = tokenizer.get("normalizer")
    composed = normaliser == {"type": "NFC"}
    if normaliser not in (None, {"type": "Sequence", "normalizers": []}) and not composed:
        return None
    cut = _read(tokenizer.get("pre_tokenizer"))
    if cut is None:
        return None
    split, digits = cut
    whole = bool(tokenizer["model"].get("ignore_merges", False))
    for known in KNOWN:
        if (known.split, known.digits, known.whole) != (split, digits, whole):
            continue
        if known.cleaned in (None, cleaned) and (known.composed or not composed):
            return known
    return None


def _read(part: Any) -> tuple[str, bool] | None:
    """The split expression and whether single digits are cut off; None for any other construction."""
    parts = part.get("pretokenizers", [part]) if isinstance(part, Mapping) else []
    if not parts or not _is_byte_level(parts[-1]):
        return None
    own = bool(parts[-1].get("use_regex", True))
    match parts[:-1]:
        case [] if own:
            return "", False
        case [{"type": "Digits", "individual_digits": True}] if own:
            return "", True
        case [{"type": "Split", "pattern": {"Regex": str(split)}, "behavior": "Isolated", **rest}] if not own:
            return None if rest.get("invert") else (split, False)
    return None


def _is_byte_level(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "ByteLevel" and not part.get("add_prefix_space", True)
