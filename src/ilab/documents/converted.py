"""What every converter makes of a file: Markdown a reader would have seen, and what was hidden from that reader.

One module per format gives ``read(data: bytes) -> Converted``. Text that a person looking at the document does not
see (``display: none``, white on white, zero size, off the page, deleted by tracked changes) is never part of ``text``;
it is told in ``hidden``, so that a policy can refuse the document.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ilab.data import FlagKind


@dataclass(frozen=True)
class Hidden:
    """Text that was left out because nobody sees it. ``place`` is for people: ``line 12``, ``page 3``."""

    kind: FlagKind
    place: str
    text: str


@dataclass(frozen=True)
class Converted:
    """``text`` is Markdown; ``title`` "" where the file names none; ``pages`` the offsets in ``text`` where its pages
    begin, empty for formats without pages."""

    text: str
    title: str = ""
    pages: tuple[int, ...] = ()
    hidden: tuple[Hidden, ...] = ()


Reader = Callable[[bytes], Converted]
"""Raises ``InputError`` (without ``where``) for data that is damaged, encrypted, too large, or not of the format."""
