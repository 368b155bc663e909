"""Markdown and plain text: decoding, and what of a file is markup for tools and not text for readers.

Line ends become ``\\n``; control characters, invisible direction marks and lone surrogates go. In Markdown front matter
and HTML comments go too, except inside code blocks. Words are never changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ilab.documents.converted import Converted
from ilab.documents.markdown import closes, fence_mark
from ilab.errors import InputError

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")  # bytes that no text holds, but for a stray one
_LOOKED_AT = 1 << 16
_FRONT_MATTER_LINES = 200  # a longer one is a horizontal rule and text


def read_markdown(data: bytes) -> Converted:
    """The text of a Markdown file without front matter and comments. Raises ``InputError`` for what is no text."""
    return Converted(_without_comments(_without_front_matter(clean(decode(data)))))


def read_plain(data: bytes) -> Converted:
    """The text of a plain text file. Raises ``InputError`` for what is no text."""
    return Converted(clean(decode(data)))


def decode(data: bytes) -> str:
    """``data`` read as UTF-8. Raises ``InputError`` where it is another encoding or no text at all."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("is UTF-16 text", hint="save it as UTF-8, for example with: iconv -f UTF-16 -t UTF-8")
    head = data[:_LOOKED_AT]
    if len(_BINARY.findall(head)) * 20 > max(len(head), 200):
        raise InputError("holds binary data, not text", hint="give a text file, or name it by its format")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        hint = "save it as UTF-8, for example with: iconv -f LATIN1 -t UTF-8"
        raise InputError(f"is not UTF-8 text at byte {error.start}", hint=hint) from error


def clean(text: str) -> str:
    """``text`` with ``\\n`` as its only line end and without invisible characters."""
    return _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))


def _without_front_matter(text: str) -> str:
    """``text`` without a leading block between two ``---`` (YAML) or ``+++`` (TOML) lines."""
    head = text[:4]
    if head not in ("---\n", "+++\n"):
        return text
    end = 4
    for _ in range(_FRONT_MATTER_LINES):
        start, end = end, text.find("\n", end) + 1
        line = text[start : end - 1] if end else text[start:]
        if line.rstrip() == head.strip():
            return text[end:] if end else ""
        if not end or (start == 4 and not line.strip()):  # a rule and a blank line: not front matter
            return text
    return text


def _without_comments(text: str) -> str:
    """``text`` without HTML comments outside code blocks. A line that was only a comment leaves nothing."""
    if "<!--" not in text:
        return text
    kept: list[str] = []
    fence = ""
    rest = iter(text.split("\n"))
    for line in rest:
        if fence:
            kept.append(line)
            fence = "" if closes(line, fence) else fence
        elif "<!--" in line:
            shown = _shown(line, rest).rstrip()
            fence = fence_mark(shown)
            if shown:
                kept.append(shown)
        else:
            fence = fence_mark(line)
            kept.append(line)
    return "\n".join(kept)


def _shown(line: str, rest: Iterator[str]) -> str:
    """``line`` without comments, following one that goes on over the lines of ``rest``."""
    pieces = []
    while True:
        before, opened, after = line.partition("<!--")
        pieces.append(before)
        if not opened:
            return "".join(pieces)
        while "-->" not in after:
            following = next(rest, None)
            if following is None:
                return "".join(pieces)
            after = following
        line = after.partition("-->")[2]
