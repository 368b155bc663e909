"""Characters in a text that no reader sees, found so that they can be told and removed.

    control-character      C0 and C1 controls other than line ends and tabs (Unicode category Cc)
    invisible-character    direction overrides and isolates (UAX #9), tag characters and runs of variation selectors
                           (both can carry a whole hidden text), zero-width characters inside a word or in runs

What writing needs stays: joiners in Arabic, Indic scripts and emoji, the flags of England, Scotland and Wales (made of
tag characters, UTS #51), single variation selectors, soft hyphens, zero-width spaces between words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ilab.data import FlagKind

_LETTERS = "A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f"  # Latin, Greek, Cyrillic: no joiner has a use there
_ZERO_WIDTH = "\u034f\u115f\u1160\u180e\u200b-\u200d\u2060-\u2064\u206a-\u206f\u3164\ufeff\uffa0"
_DIRECTION = "\u202a-\u202e\u2066-\u2069"
_TAGS = "\U000e0000-\U000e007f"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_CONTROL = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_ALL = f"{_CONTROL}{_DIRECTION}{_TAGS}{_SELECTORS}{_ZERO_WIDTH}"
_ANY = re.compile(f"[{_ALL}]")
_CONTROLS = re.compile(f"[{_CONTROL}]+")
_UNSEEN = re.compile(  # whole runs, so that what is left makes no new ones
    "(?P<emoji>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,8}\U000e007f"
    f"|[\ufe0e\ufe0f]\u200d(?![{_ALL}]))"
    f"|[{_ALL}]{{2,}}"
    f"|[{_CONTROL}{_DIRECTION}{_TAGS}]"
    f"|(?<=[{_LETTERS}])[{_ZERO_WIDTH}](?=[{_LETTERS}])"
)


@dataclass(frozen=True)
class Unseen:
    """The characters ``text[start:end]`` are not seen by a reader."""

    kind: FlagKind
    start: int
    end: int


def unseen(text: str) -> Iterator[Unseen]:
    """The invisible characters of ``text`` in order. Linear in its length; a leading byte order mark is no matter."""
    first = _ANY.search(text, 1 if text.startswith("\ufeff") else 0)
    begin = max(first.start() - 1, 0) if first else len(text)  # a flag begins one character before its tags
    for match in _UNSEEN.finditer(text, begin):
        if match.lastgroup != "emoji":
            kind: FlagKind = "control-character" if _CONTROLS.fullmatch(match[0]) else "invisible-character"
            yield Unseen(kind, match.start(), match.end())


def described(characters: str) -> str:
    """``characters`` for people: their numbers, or the text that tags and variation selectors spell in secret."""
    tags = "".join(chr(ord(char) - 0xE0000) for char in characters if 0xE0020 <= ord(char) <= 0xE007E)
    selectors = bytes(
        ord(char) - (0xFE00 if ord(char) < 0xE0000 else 0xE0100 - 16)
        for char in characters
        if "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
    ).decode("utf-8", "replace")
    for secret in (tags, selectors):
        if len(secret) > 1 and secret.isprintable():
            return f"spells “{secret}”"
    counts = Counter(characters)
    return ", ".join(f"{f'{times} × ' if times > 1 else ''}U+{ord(char):04X}" for char, times in sorted(counts.items()))
