"""Mends of what stops YAML from reading a text that a person reads without trouble.

    question: What is this: a test?          a `: ` inside, or one of @ % & * ! | > { [ ` - " ' in front: quote it
    answer: | The first line                 a text that begins on the line of its `|`: move it to the next one
      and the second
    →answer: with a tab in front             a tab in the indentation: spaces
    answer: We are #1                        read as `We are`: quote it

The parser is asked where it stopped; the lines that can be to blame have one evident reading each; a mend stays only
if the parser gets further with it. What has no evident reading is left to the author, with the parser's complaint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from ilab.errors import InputError
from ilab.taxonomy.rewrite import Change, Sign, fault, place_of, signs

_TAB_WIDTHS = (2, 4, 8)
_MOST_CHARACTERS = 2**23  # that the parser is given in all for one file, so that no file can make this slow
_MOST_LINES_UP = 200  # between the place of an error and an unclosed quotation mark that caused it
_ENTRY = re.compile(r"(?P<lead> *(?:- +)*)(?:(?P<key>[A-Za-z_][\w-]*):(?=[ \t]|$)[ \t]*)?(?P<value>.*)", re.DOTALL)
_TABBED = re.compile(r"(?=.*\t)[ \t]*(?:-[ \t]+)*")
_HEADER = re.compile(r"[|>][-+0-9]{0,2}(?:[ \t]+#.*)?$")
_LISTS = {"seed_examples", "questions_and_answers", "document", "patterns", "items", "options"}
_TEXTS = {"question", "answer", "context", "task_description", "document_outline", "domain", "about"}
_KNOWN = re.compile(
    r" *(?:- +)*(?:question|answer|context|questions_and_answers|seed_examples|document|version|created_by|domain|"
    r"document_outline|task_description|repo|commit|patterns|path|url|text|split|kind|options|about|items|draft)"
    r":(?: |$)"
)
_ITEM = re.compile(r" *(?:[-*+] |\d{1,3}[.)] |\|)")  # of a list or table in the text
_REMARK = re.compile(r"(?:todo|fixme|xxx|hack|note|noqa|yamllint|type)\b", re.IGNORECASE)
_SPECIAL = tuple("@`%&*!|>{[")
_CLOSING = {"[": "]", "{": "}"}
_MARKED = re.compile(r"[&!]\S* *[\[{]")  # an anchor or tag of a list or mapping
_ODD = re.compile(r":(?:[ \t]|$)|[ \t]#", re.MULTILINE)
_CLOSED = re.compile(r"""(?:'(?:[^']|'')*'|"(?:[^"\\]|\\.)*")(?:[ \t]+#.*)?$""")


@dataclass(frozen=True)
class _Entry:
    """A line as ``- key: value``: ``at`` is where the value begins, ``parent`` the column its text must pass."""

    key: str
    value: str
    at: int
    parent: int


@dataclass(frozen=True)
class _Mend:
    """Put ``lines`` in place of ``count`` lines from the 0-based line ``at``."""

    at: int
    count: int
    lines: list[str]
    what: str
    tabs: bool = False


def mend(text: str, file: str) -> tuple[str, list[Change]]:
    """``text`` so that it can be read, with the changes that were needed; none where it can be read as it is.

    Raises the loader's ``InputError`` about ``text`` where there is no evident mend.
    """
    error = fault(text, file)
    if error is None:
        return text, []
    widths = _TAB_WIDTHS if "\t" in text else _TAB_WIDTHS[:1]
    mended = [_mended(text, file, error, width) for width in widths]
    readable = [found for found in mended if found is not None]
    if not readable or len({_shape(found[0]) for found in readable}) > 1:
        raise error
    return readable[0]


def quote_cut(text: str) -> tuple[str, list[Change]]:
    """Quote one-line texts that YAML would cut at a `` #``, where it cannot be meant as a comment.

    That is: one blank before the ``#``, a letter or digit behind it, and no usual remark (``#TODO``).
    """
    if "#" not in text:
        return text, []
    changes: list[Change] = []
    parts: list[str] = []
    done = 0
    for sign in signs(text):
        if not sign.event.startswith("Scalar") or sign.style:
            continue
        begin, end = text.rfind("\n", 0, sign.start) + 1, (text + "\n").index("\n", sign.end)
        entry = _entry(text[begin:end])
        if not _is_cut(text, sign, entry, begin, end):
            continue
        line = text.count("\n", 0, begin) + 1
        parts += [text[done : begin + entry.at], _in_quotes([entry.value])[0]]
        done = end
        changes.append(Change(line, f"quoted a text that YAML would cut at ` #`: {_shown(entry.value)}"))
    return "".join([*parts, text[done:]]), changes


def _is_cut(text: str, sign: Sign, entry: _Entry, begin: int, end: int) -> bool:
    """Whether the scalar ``sign`` is the value of ``entry`` (the line from ``begin`` to ``end``) but for a `` #…``."""
    if entry.key not in _TEXTS and (entry.key or entry.parent < 0):
        return False
    hidden = text[sign.end : end]
    match = re.match(r" #(\w.*)", hidden)
    if match is None or _REMARK.match(match[1]):
        return False
    if sign.start == sign.end:  # `answer: #1`: nothing is left, so nothing may follow below it either
        after = re.compile(r"\n*( *)").match(text, end)
        return bool(entry.key) and sign.end == begin + entry.at - 1 and (not after or len(after[1]) <= entry.parent)
    return sign.start == begin + entry.at and "\n" not in text[sign.start : sign.end]


def _mended(text: str, file: str, error: InputError, width: int) -> tuple[str, list[Change]] | None:
    """``text`` with one mend after the other, a tab being ``width`` columns wide; ``None`` where one is missing."""
    changes: list[Change] = []
    mended: set[int] = set()  # lines with a text that has been mended
    added = 0
    tries = 1 + _MOST_CHARACTERS // (len(text) + 1)
    now: InputError | None = error
    while now is not None:
        for mend in _proposals(text.split("\n"), now, width):
            change = Change(mend.at + 1 - added, mend.what)
            tries -= 1
            if tries < 0:
                return None
            if change.line in mended and not mend.tabs:  # more quotes would only move the fault to the right
                continue
            lines = text.split("\n")
            lines[mend.at : mend.at + mend.count] = mend.lines
            tried = "\n".join(lines)
            later = fault(tried, file)
            more = len(mend.lines) - mend.count
            line, column = place_of(later) if later is not None else (len(lines) + 1, 0)
            if (line - more, column) > place_of(now):
                changes.append(change)
                added += more
                mended |= set() if mend.tabs else {change.line}
                text, now = tried, later
                break
        else:
            return None
    return text, changes


def _proposals(lines: list[str], error: InputError, width: int) -> Iterator[_Mend]:
    """What may have stopped the parser at ``error``: its line, the text it stands in, what was begun above."""
    line = place_of(error)[0] - 1
    if not 0 <= line < len(lines):
        return
    if _spaced(lines[line], width) != lines[line]:
        # a line that begins with a tab is never right, so all of them are put right at once
        last = len(lines) if lines[line].startswith("\t") else line + 1
        spaced = [
            _spaced(text, width) if at == line or text.startswith("\t") else text
            for at, text in enumerate(lines[line:last], line)
        ]
        count = sum(old != new for old, new in zip(lines[line:last], spaced, strict=True))
        what = f"put spaces for tabs in the indentation of {count:,} line(s)"
        yield _Mend(line, last - line, spaced, what, tabs=True)
    begun = getattr(getattr(error.__cause__, "context_mark", None), "line", line)
    for at in dict.fromkeys((line, _owner(lines, line), begun)):
        if 0 <= at < len(lines):
            yield from _mends(lines, at)
    for at in range(line - 1, max(-1, line - _MOST_LINES_UP), -1):
        value = _entry(lines[at]).value
        if value[:1] in ("'", '"') and value.count(value[0]) % 2:
            yield from _mends(lines, at)


def _spaced(line: str, width: int) -> str:
    """``line`` without tabs in its indentation and between its dashes."""
    tabbed = _TABBED.match(line)
    return tabbed[0].expandtabs(width) + line[tabbed.end() :] if tabbed else line


def _owner(lines: list[str], line: int) -> int:
    """The line above with the ``- key: value`` whose text goes on in ``line``; -1 for none."""
    indent = _indent(lines[line])
    for at in range(line - 1, -1, -1):
        entry = _entry(lines[at])
        if lines[at].strip() and (entry.key or entry.parent >= 0) and entry.parent < indent:
            return at
    return -1


def _mends(lines: list[str], at: int) -> Iterator[_Mend]:
    """The evident mend, if any, of the text that begins in line ``at`` and goes on in the deeper lines below it."""
    entry = _entry(lines[at])
    value = entry.value.rstrip()
    if not value or entry.key in _LISTS or entry.parent < 0 or _HEADER.match(value):
        return
    end = at + 1
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > entry.parent):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    body = lines[at + 1 : end]
    if any(_KNOWN.match(line) for line in body):  # an entry of the leaf, wrongly indented: not part of this text
        return
    start = lines[at][: entry.at]
    if body and value[0] in "|>" and value[1:2].isspace() and not value.endswith("|"):
        first = " " * _indent(body[0]) + value[1:].lstrip()
        what = f"began the text below its `{value[0]}`: {_shown(first)}"
        yield _Mend(at, end - at, [start + value[0], first, *body], what)
        return
    quoted = _quoted_value(value, body)
    if quoted is not None:
        if value[0] not in "'\"" and any(_ITEM.match(line) for line in body):  # quotes would make one line of it
            block = [f"{start}|", " " * _indent(body[0]) + value, *body]
            yield _Mend(at, end - at, block, f"made a text of several lines a block: {_shown(value)}")
        yield _Mend(at, end - at, [start + quoted[0], *quoted[1:]], f"put a text in quotes: {_shown(value)}")


def _quoted_value(value: str, body: list[str]) -> list[str] | None:
    """The text that begins with ``value`` and goes on in the lines ``body``, in single quotes, a string a line.

    ``None`` where nothing in it calls for quotes, or where it is not evident which of its marks belong to the text.
    """
    if value[0] in "'\"":
        if _CLOSED.match(value):
            return None
        inner = value if body else _inner(value)
        return None if inner is None else _in_quotes([inner, *body])
    unclosed = value[0] in _CLOSING and _CLOSING[value[0]] not in value
    if unclosed or _MARKED.match(value):  # a list or mapping, or a text that begins like one?
        return None
    if not value.startswith((*_SPECIAL, "- ", "? ")) and not _ODD.search("\n".join([value, *body])):
        return None
    remark = re.search(r"[ \t]+#[ \t]", value) if not body else None
    if remark is None:
        return _in_quotes([value, *body])
    return [_in_quotes([value[: remark.start()]])[0] + value[remark.start() :]]


def _inner(value: str) -> str | None:
    """The text that is meant by a line that begins with a quotation mark and that YAML does not take for one text.

    ``'It's fine'`` is quoted around, ``"Foo" is not "bar"`` only inside; ``None`` where backslashes make it unclear.
    """
    mark, inner = value[0], value[1:-1]
    if len(value) < 2 or value[-1] != mark:
        return value
    first = inner.find(mark)
    if inner.count(mark) % 2 == 0 and not inner[:first][-1:].isspace() and not inner[first + 1 : first + 2].isalnum():
        return value
    if mark == "'":
        return inner.replace("''", "'")
    inner = inner.replace('\\"', '"')
    return None if "\\" in inner else inner


def _in_quotes(lines: list[str]) -> list[str]:
    doubled = "\n".join(lines).replace("'", "''")
    return f"'{doubled}'".split("\n")


def _entry(line: str) -> _Entry:
    match = cast("re.Match[str]", _ENTRY.match(line))  # every part of the pattern may be empty
    lead, key = match["lead"], match["key"] or ""
    parent = len(lead) if key else lead.rfind("-")
    return _Entry(key, match["value"], match.start("value"), parent)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _shape(text: str) -> tuple[tuple[str, str], ...]:
    """What a text says, but for blanks."""
    return tuple((sign.event, " ".join(sign.value.split())) for sign in signs(text))


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"
