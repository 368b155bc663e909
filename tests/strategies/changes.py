"""Changes to texts and bytes as three numbers each (which, where, how much), so that hypothesis can shrink them.

``changed(BASES, CHANGES)`` is a strategy of right inputs with a few changes: a failure shrinks to the fewest and
smallest changes that still show it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

Data = TypeVar("Data", str, bytes)
Change = Callable[[Data, int, int], Data]
TextChange = Callable[[str, int, int], str]
ByteChange = Callable[[bytes, int, int], bytes]

CHARACTERS = "\t \r\n\x0b\x0c\x00\x01\x1b\x7f\x80\x85\x9f\xa0\xad\u200b\u200e\u2028\u2029\u202e\ufeff\ufffd\ufffe"
CHARACTERS += "\U0001f600\U000e0041\u0301é東ß#:-?[]{},&*!|>'\"%@`\\~/=<"
ENCODINGS = (*["utf-8"] * 12, "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "utf-32", "cp037")
NUMBERS = st.integers(0, 2**12)
_ODD_NUMBERS = (b"0", b"-1", b"1", b"2", b"65536", b"2147483648", b"-2147483649", b"9" * 30, b"1e38", b".", b"nan")


def changed(bases: Sequence[Data], changes: Sequence[Change[Data]], most: int = 5) -> st.SearchStrategy[Data]:
    """One of ``bases`` with one to ``most`` changes, one after the other."""

    def change(base: int, steps: list[tuple[int, int, int]]) -> Data:
        data = bases[base]
        for which, where, much in steps:
            data = changes[which](data, where, much)
        return data

    step = st.tuples(st.integers(0, len(changes) - 1), NUMBERS, NUMBERS)
    return st.builds(change, st.integers(0, len(bases) - 1), st.lists(step, min_size=1, max_size=most))


def encoded(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """The texts as bytes in many encodings; some are cut, as often inside a character as not."""
    return st.builds(_encode, texts, st.sampled_from(ENCODINGS), NUMBERS)


def _encode(text: str, encoding: str, torn: int) -> bytes:
    data = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    return data if torn % 8 else data[: torn % (len(data) + 1)]


def on_lines(change: Callable[[list[str], int, int], None]) -> TextChange:
    """A change of a list of lines as one of the text."""

    def changed_text(text: str, where: int, much: int) -> str:
        lines = text.split("\n")
        change(lines, where % len(lines), much)
        return "\n".join(lines)

    return changed_text


def _drop(lines: list[str], at: int, much: int) -> None:
    del lines[at : at + 1 + much % 3]


def _repeat(lines: list[str], at: int, much: int) -> None:
    lines[at:at] = lines[at : at + 1 + much % 4]


def _move(lines: list[str], at: int, much: int) -> None:
    lines.insert(much % len(lines), lines.pop(at))


def _indent(lines: list[str], at: int, much: int) -> None:
    lines[at] = " " * (much % 6) + lines[at].lstrip()


def _tab(lines: list[str], at: int, much: int) -> None:
    lines[at] = lines[at][: much % 5] + "\t" + lines[at][much % 5 :]


def _misspell(lines: list[str], at: int, much: int) -> None:
    line = lines[at]
    place = much % (len(line) + 1)
    lines[at] = line[:place] + line[place + 1 : place + 2] + line[place : place + 1] + line[place + 2 :]


def _character(text: str, where: int, much: int) -> str:
    at = where % (len(text) + 1)
    return text[:at] + CHARACTERS[much % len(CHARACTERS)] + text[at:]


def _huge(text: str, where: int, much: int) -> str:
    at = where % (len(text) + 1)
    return text[:at] + CHARACTERS[much % len(CHARACTERS)] * (much * 8) + text[at:]


def _ends(text: str, where: int, much: int) -> str:
    return text.replace("\n", ("\r\n", "\r", "\x85", "\u2028", "\n\n\n", " \n", "\n\r")[much % 7])


def cut(data: Data, where: int, much: int) -> Data:
    """Take some of it out."""
    at = where % (len(data) + 1)
    return data[:at] + data[at + 1 + much % 40 :]


def end(data: Data, where: int, much: int) -> Data:
    """Take the end off."""
    return data[: where % (len(data) + 1)]


def insert(fragments: Sequence[Data]) -> Change[Data]:
    """Put one of ``fragments`` somewhere."""

    def inserted(data: Data, where: int, much: int) -> Data:
        at = where % (len(data) + 1)
        return data[:at] + fragments[much % len(fragments)] + data[at:]

    return inserted


def wrap(fragments: Sequence[tuple[str, str]]) -> TextChange:
    """Put a pair of ``fragments`` around a part of the text."""

    def wrapped(text: str, where: int, much: int) -> str:
        before, after = fragments[much % len(fragments)]
        at = where % (len(text) + 1)
        return text[:at] + before + text[at : at + much] + after + text[at + much :]

    return wrapped


def _byte(data: bytes, where: int, much: int) -> bytes:
    at = where * 7 % (len(data) + 1)
    return data[:at] + bytes([much % 256]) + data[at + 1 :]


def _again(data: bytes, where: int, much: int) -> bytes:
    at = where * 7 % (len(data) + 1)
    return data[:at] + data[at : at + much] * 3 + data[at + much :]


def _swap(data: bytes, where: int, much: int) -> bytes:
    at = where * 7 % (len(data) + 1)
    return data[at : at + much] + data[:at] + data[at + much :]


def number(data: bytes, where: int, much: int) -> bytes:
    """Put an odd number in the place of one that stands there."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not found:
        return data
    match = found[where % len(found)]
    return data[: match.start()] + _ODD_NUMBERS[much % len(_ODD_NUMBERS)] + data[match.end() :]


LINE_CHANGES: tuple[TextChange, ...] = tuple(map(on_lines, (_drop, _repeat, _move, _indent, _tab, _misspell)))
TEXT_CHANGES: tuple[TextChange, ...] = (*LINE_CHANGES, _character, _huge, _ends, cut, end)
BYTE_CHANGES: tuple[ByteChange, ...] = (_byte, _byte, _again, _swap, cut, end, number, number)
