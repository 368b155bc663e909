"""From a Markdown or plain text file to a Document whose text does not depend on accidents of formatting.

Line ends become ``\\n``; control characters and invisible direction marks go; in Markdown also front matter, HTML
comments, blanks at line ends and repeated blank lines, except inside code blocks. Words are never changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from ilab.data import Document, digest_text
from ilab.documents.markdown import blocks, closes, fence_mark

MARKDOWN = (".md", ".markdown")
KINDS = (*MARKDOWN, ".txt")

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_FRONT_MATTER_LINES = 200  # a longer one is a horizontal rule and text


def convert(text: str, leaf: str, source: str) -> Document:
    """The Document of a file's ``text``. ``source`` is ``repo@ref:path`` or ``path``.

    The title is the first heading of level 1, else the file's name. ``id`` is the hash of the converted text.
    """
    name = PurePosixPath(source.rpartition(":")[2])
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    if name.suffix.lower() in MARKDOWN:
        text = _tidy(_without_front_matter(text))
    text = text.strip("\n") + "\n" if text.strip() else ""
    title = next((block.title for block in blocks(text) if block.level == 1 and block.title), name.stem)
    return Document(id=digest_text(text), leaf=leaf, source=source, title=title, text=text)


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


def _tidy(text: str) -> str:
    """Drop HTML comments, trailing blanks and repeated blank lines outside code blocks."""
    kept: list[str] = []
    fence = ""
    rest = iter(text.split("\n"))
    for line in rest:
        if fence:
            kept.append(line)
            fence = "" if closes(line, fence) else fence
            continue
        shown = _without_comments(line, rest).rstrip() if "<!--" in line else line.rstrip()
        fence = fence_mark(shown)
        if shown or (kept and kept[-1] and not line.strip()):  # a line that was only a comment leaves nothing
            kept.append(shown)
    return "\n".join(kept)


def _without_comments(line: str, rest: Iterator[str]) -> str:
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
