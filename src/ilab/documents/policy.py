"""What becomes of text in a document that nobody sees, or that speaks to a model: one word for each source.

    warn                                                    flagged, the document is taken
    drop                                                    flagged, the passage is left out
    fail                                                    the document is refused
    https://*.example.org/*=fail, knowledge/press=drop, warn

A rule is ``PATTERN=WORD``; the pattern is a glob (``*`` also stands for slashes) over a document's source or over the
path of the leaf that wants it, and without ``*?[`` it stands for all that lies below it, too. The first rule that
fits decides; the bare word at the end is for all others.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from dataclasses import dataclass
from typing import Literal, get_args

from ilab.errors import InputError

Word = Literal["warn", "drop", "fail"]
PARAMETER = "document_policy"
_WORDS: tuple[Word, ...] = get_args(Word)
_HINT = f"for example: -p {PARAMETER}=warn, or -p {PARAMETER}='https://*=fail, knowledge/press=drop, warn'"


@dataclass(frozen=True)
class Policy:
    """``rules`` are pairs of pattern and word, the first that fits decides; ``default`` is for all others."""

    rules: tuple[tuple[str, Word], ...] = ()
    default: Word = "warn"

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy that ``text`` writes. Raises ``InputError`` with the position (1-based character) of a mistake."""
        rules: list[tuple[str, Word]] = []
        default: Word | None = None
        begins = 1
        for part in text.split(","):
            at, entry = begins + len(part) - len(part.lstrip()), part.strip()
            begins += len(part) + 1
            if default is not None:
                raise _wrong(f"`{entry}` stands behind the bare word `{default}`, which comes last", at)
            pattern, equals, word = entry.rpartition("=")
            if not equals:
                default = _word(word, at)
            elif not pattern.strip():
                raise _wrong("there is no pattern before the `=`", at)
            else:
                rules.append((pattern.strip(), _word(word.strip(), at + len(entry) - len(word.lstrip()))))
        return cls(tuple(rules), default or "warn")

    def of(self, source: str, leaf: str = "") -> Word:
        """The word for a document with this ``source`` that is wanted by this ``leaf``."""
        return next(
            (word for pattern, word in self.rules if _fits(pattern, source) or _fits(pattern, leaf)), self.default
        )

    def __str__(self) -> str:
        return ", ".join([*(f"{pattern}={word}" for pattern, word in self.rules), self.default])


def _fits(pattern: str, name: str) -> bool:
    if fnmatch.fnmatchcase(name, pattern):
        return True
    return not re.search(r"[*?\[]", pattern) and name.startswith(pattern.rstrip("/") + "/")


def _word(text: str, at: int) -> Word:
    for word in _WORDS:
        if text == word:
            return word
    near = difflib.get_close_matches(text.lower(), _WORDS, 1)
    if not text:
        raise _wrong("a word is missing", at)
    raise _wrong(f"`{text}` is none of {', '.join(_WORDS)}{f'; did you mean `{near[0]}`?' if near else ''}", at)


def _wrong(message: str, at: int) -> InputError:
    return InputError(f"{message} (character {at})", where=PARAMETER, hint=_HINT)
