"""Places in a file, the error about one, and the YAML parser's complaints in plain words at the exact place.

The parser tells where it could not go on (``problem_mark``) and where the thing it was reading began
(``context_mark``). The first is the place to look at, with two exceptions: what is never closed is told where it was
opened, and a line that is neither key nor text is told where it begins.
"""

from __future__ import annotations

import bisect
import json
import re
from typing import NamedTuple, Protocol

import yaml

from ilab.errors import InputError

_LINE_END = re.compile(r"\r\n|\n|\r")
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VALUE = re.compile(r"[ \t]*(?:- +)*([A-Za-z_]+): +([^\s\"'|>\[{&*!].*?)\s*")  # key, text without quotes
_MOST_SHOWN = 100
MOST_FAULTS = 100  # of one file; nobody reads more, and a hostile file may have a hundred thousand


class Placed(Protocol):
    """Anything with a place: a node of the tree, or a :class:`Mark`."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


class Mark(NamedTuple):
    """A line and a column, in characters from 1."""

    line: int
    column: int

    @classmethod
    def after(cls, text: str) -> Mark:
        """The place behind ``text``."""
        return cls.at(len(text), line_starts(text))

    @classmethod
    def at(cls, index: int, starts: list[int]) -> Mark:
        """The place of the character ``index`` in a text whose lines begin at ``starts``."""
        line = bisect.bisect_right(starts, index)
        return cls(line, index - starts[line - 1] + 1)


def line_starts(text: str) -> list[int]:
    """The index at which every line of ``text`` begins, as editors count lines."""
    return [0, *(found.end() for found in _LINE_END.finditer(text))]


def problem(file: str, at: Placed, message: str, hint: str = "") -> InputError:
    """The error about one place of one file."""
    return InputError(message, where=f"{file}:{at.line}:{at.column}", hint=hint)


def explain(error: yaml.YAMLError, text: str, file: str) -> InputError:
    """The parser's complaint about ``text`` in plain words, at its place."""
    unreadable = _UNREADABLE.search(text)
    if isinstance(error, yaml.reader.ReaderError) and unreadable:
        message = f"holds the control character U+{ord(unreadable[0]):04X}"
        hint = "remove it (an editor shows it as ^A or a box)"
        return problem(file, Mark.after(text[: unreadable.start()]), message, hint)
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return problem(file, Mark(1, 1), f"is not YAML: {error}", "check quotes and indentation")
    starts = line_starts(text)
    reason, end = error.problem or "", len(text.rstrip())
    index = min(error.problem_mark.index, end)
    begun = min(error.context_mark.index, end) if error.context_mark else index
    closed = begun >= end or index < end  # else the file ends inside the thing that begins there
    if not closed or reason == "could not find expected ':'":
        index = begun
    at, since = Mark.at(index, starts), Mark.at(begun, starts)
    message, hint = _reason(reason, text, index, closed)
    if since.line < at.line and reason in _ENCLOSED:
        message = f"{message} (begun at line {since.line})"
    return problem(file, at, message, hint)


def _reason(reason: str, text: str, index: int, closed: bool) -> tuple[str, str]:
    """What is wrong at ``index``, and what to do. ``closed`` is false where the file ends inside the thing there."""
    here, before = text[index : index + 1], text[:index].rstrip(" \t")
    if reason in _ENCLOSED and not closed:
        return f"a `{here}` is opened here and never closed", "close it, or put the whole text in quotes"
    if reason == "found character that cannot start any token" and here != "\t":
        return f"text may not begin with `{here}`", "put the text in quotes"
    if reason == "found unknown escape character":
        hint = "write a backslash twice inside double quotes, or use single quotes"
        return f"`{text[index : index + 2]}` means nothing inside double quotes", hint
    if reason == "mapping values are not allowed in this context":
        return "a `: ` stands where none can be", _quoted(text, index)
    if reason == "did not find expected key" and before[-1:] in ("'", '"') and not before[:-1].endswith("\n"):
        hint = "put the whole text in the other kind of quotation marks, or write `''` inside single ones"
        return "something follows the closing quotation mark", hint
    return _REASONS.get(reason, (f"is not YAML: {reason}", "check quotes and indentation"))


def _quoted(text: str, index: int) -> str:
    """The line that holds ``index`` with its value in quotes, ready to type."""
    start = max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1
    line = _LINE_END.split(text[start : start + 1000], 1)[0]
    value = _VALUE.fullmatch(line)
    if value is None or index < start + value.start(2) or len(value[2]) > _MOST_SHOWN:
        return "put the text in quotes, or check the indentation"
    return f"put the text in quotes: `{value[1]}: {json.dumps(value[2], ensure_ascii=False)}`"


_ENCLOSED = {
    "did not find expected ',' or ']'",
    "did not find expected ',' or '}'",
    "found unexpected end of stream",
}
_TAB = ("a tab stands in the indentation", "use spaces: YAML allows no tabs there")
_REASONS = {
    "did not find expected key": (
        "does not fit the indentation of the lines above",
        "line it up with its neighbours",
    ),
    "could not find expected ':'": (
        "is neither a `key: value` nor part of the text above",
        "add the `:`, or indent the line to make it part of the text above",
    ),
    "did not find expected '-' indicator": ("a list ends here without a new `- `", "check the indentation"),
    "did not find expected ',' or ']'": (
        "a `,` or the closing `]` is missing here",
        "add it, or put the whole text in quotes",
    ),
    "did not find expected ',' or '}'": (
        "a `,` or the closing `}` is missing here",
        "add it, or put the whole text in quotes",
    ),
    "did not find expected node content": ("a value is missing here, or a bracket is not closed", "complete it"),
    "found character that cannot start any token": _TAB,
    "found a tab character that violates indentation": _TAB,
    "found a tab character where an indentation space is expected": _TAB,
    "did not find expected alphabetic or numeric character": (
        "a text may not begin with `*` or `&`",
        "put the text in quotes",
    ),
    "did not find expected comment or line break": (
        "a `|` or `>` stands alone at the end of its line, and the text below it",
        "move the text to the next line, or put all of it in quotes",
    ),
    "did not find expected hexdecimal number": (
        "a code behind a backslash is not complete",
        "write a backslash twice inside double quotes, or use single quotes",
    ),
    "found unexpected document indicator": (
        "a `---` or `...` at the beginning of a line ends the text",
        "indent the line",
    ),
    "did not find expected <document start>": (
        "something follows the end of the document",
        "check the indentation",
    ),
    "block sequence entries are not allowed in this context": (
        "a list may not begin here",
        "begin the list on the next line, or put the text in quotes",
    ),
    "mapping keys are not allowed in this context": ("a `? ` may not stand here", "put the text in quotes"),
    "found undefined tag handle": ("a text may not begin with `!`", "put the text in quotes"),
}
