"""What a model says, made harmless for a terminal: it may hold escape sequences that move, hide or overwrite text."""

from __future__ import annotations

import re

# Control characters of both sets but line ends and tabs, and the marks that turn the direction of what follows
# (Unicode Standard Annex 9), with which a text can look like another.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]")


def neutral(text: str) -> str:
    """``text`` with a replacement character for each that would steer the terminal. Piece by piece it gives the same
    as whole; lone surrogates, which cannot be written, are replaced too."""
    shown = _STEERING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r", ""))
    return shown.encode("utf-8", "replace").decode() if _has_surrogate(shown) else shown


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in text)
