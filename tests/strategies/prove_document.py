"""What must hold of any file that is given as a document.

It is converted, or refused in plain words; nothing else is raised, nothing outside is touched, and the text and the
chunks of it are what every later part relies on. Run by :mod:`sandbox` in a process whose current folder is its own.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from pathlib import PurePosixPath

import baits

from ilab.data import Chunk, Document
from ilab.documents.chunk import chunk_documents
from ilab.documents.convert import BINARY, HTML, document, read
from ilab.documents.converted import Converted
from ilab.documents.policy import Word
from ilab.documents.untrusted import inspect
from ilab.errors import InputError

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_LONGEST = 1000  # characters of one message
_POLICIES: tuple[Word, ...] = ("warn", "drop", "fail")


def prove(data: bytes, name: bytes) -> str:
    """Convert, inspect and chunk a file; what became of it in one word."""
    file = name.decode()
    try:
        converted = read(data, file)
    except InputError as error:
        _is_told_well(error)
        return "refused"
    _is_sound(converted)
    for hidden in converted.hidden:
        assert hidden.place and hidden.text.strip()
        assert baits.SECRET not in hidden.text
    if len(converted.text) < 20_000:
        assert read(data, file) == converted
    raw = "" if PurePosixPath(file).suffix in (*HTML, *BINARY) else data.decode()
    for policy in _POLICIES:
        try:
            seen, flags = inspect(converted, file, policy, raw)
        except InputError as error:
            assert policy == "fail"
            _is_told_well(error)
            continue
        _is_sound(seen)
        assert all(flag.place and len(flag.excerpt) <= 80 for flag in flags)
        made = document(seen, "knowledge/a", file, flags=flags)
        assert Document.model_validate_json(made.model_dump_json()) == made
        for budget in (7, 200):
            _are_sound(chunk_documents([made], budget), made, budget)
    return "read" if converted.text else "empty"


def _is_told_well(error: InputError) -> None:
    assert error.message.strip() and len(error.message) + len(error.hint) <= _LONGEST, error
    assert baits.SECRET not in str(error)


def _is_sound(converted: Converted) -> None:
    """The text and the title are clean, and pages begin in order inside the text."""
    text = converted.text
    assert not _UNSEEN.search(text), ascii(text[max(_UNSEEN.search(text).start() - 30, 0) :][:90])  # type: ignore[union-attr]
    assert not _UNSEEN.search(converted.title) and "\n" not in converted.title, ascii(converted.title)
    assert text == "" or (text.strip() and text.endswith("\n") and not text.startswith("\n"))
    assert baits.SECRET not in text and baits.SECRET not in converted.title
    assert list(converted.pages) == sorted(converted.pages)
    assert all(0 <= page <= len(text) for page in converted.pages)


def _are_sound(chunks: list[Chunk], made: Document, budget: int) -> None:
    """Verbatim spans in order, within the budget, each with a name of its own and the page on which it begins."""
    end = 0
    for part in chunks:
        assert end <= part.span[0] < part.span[1], part
        end = part.span[1]
        assert made.text[part.span[0] : end] == part.text and part.text.strip()
        assert part.tokens <= budget or len(part.text) == 1, (part.tokens, budget)
        page = max(bisect_right(made.pages, part.span[0]), 1) if made.pages else None
        assert part.page == page, (part.page, page, part.span, made.pages)
    assert len({part.id for part in chunks}) == len(chunks)
