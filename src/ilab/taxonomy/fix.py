"""``ilab taxonomy fix``: formatting is never an error, so it is put right, on the text, with everything else as it was.

    bytes ──▶ UTF-8, LF ──▶ mend.py, where YAML cannot read it ──▶ trailing blanks, blank lines, final newline
                                                └── in between: texts cut at a ` #` are quoted

Two things hold before a file is written. What could be read says the same afterwards, but for blanks at the ends of
lines and for texts that were cut at a `` #``. What could not be read can be read afterwards; else it is left alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from ilab.errors import InputError
from ilab.taxonomy.mend import mend, quote_cut
from ilab.taxonomy.rewrite import BLANK_LINE, Change, Sign, Source, fault, find_sources, replace, signs
from ilab.taxonomy.yamlnodes import MAX_BYTES, decode

MOST_BLANK_LINES = 2  # in a row; yamllint's `relaxed` rules, which InstructLab's own checks use, allow no more
_LINE_END = re.compile(r"\r\n?")
_BLANKS = re.compile(r"(?m)[ \t]+$")
_BEGINNING = re.compile(r"\A(?:[ \t]*[\r\n]|\ufeff)+")  # before the first line with something on it


@dataclass(frozen=True)
class Fixed:
    """The file's new contents (the old ones where nothing is to do, or nothing can be done: then ``problem``)."""

    text: bytes
    changes: tuple[Change, ...] = ()
    problem: InputError | None = None


@dataclass(frozen=True)
class _Span:
    """A scalar of several lines, from the 0-based line ``first`` to ``last``."""

    first: int
    last: int
    sign: Sign


@dataclass(frozen=True)
class Fix:
    """What would be done to one file. ``rename`` is its new name (without folder), "" to keep the old one."""

    source: Source
    before: bytes
    fixed: Fixed
    rename: str = ""

    @property
    def needed(self) -> bool:
        return bool(self.rename) or self.fixed.text != self.before


def plan_fixes(path: Path) -> Iterator[Fix]:
    """What is to be done to each ``qna.yaml`` and ``eval.yaml`` at or below ``path``; nothing is written.

    Raises ``InputError`` where there is no such file.
    """
    for source in find_sources(path):
        try:
            before = source.read()
        except InputError as error:
            yield Fix(source, b"", Fixed(b"", problem=error))
            continue
        fixed = fix_text(before, source.name)
        rename, taken = _new_name(source)
        if taken is not None:
            fixed = Fixed(before, problem=taken)
        yield Fix(source, before, fixed, rename)


def apply(fix: Fix) -> None:
    """Write and rename what ``fix`` says. Raises ``InputError`` where the file may not be changed."""
    if fix.fixed.text != fix.before:
        replace(fix.source, fix.fixed.text.decode())
    if fix.rename:
        try:
            fix.source.path.rename(fix.source.path.with_name(fix.rename))
        except PermissionError as error:
            hint = "check the permissions of its folder"
            message = f"cannot be renamed: {error.strerror}"
            raise InputError(message, where=fix.source.name, hint=hint) from error


def _new_name(source: Source) -> tuple[str, InputError | None]:
    """The name to rename the file to, "" for none, and why that cannot be.

    Names are compared with those that the folder lists: where upper and lower case are one, ``QNA.yaml`` answers to
    ``qna.yaml`` too, and is no second file.
    """
    if source.path.name == source.wanted:
        return "", None
    listed = [path.name for path in source.path.parent.iterdir()]
    rivals = [name for name in listed if name.lower() in _spellings(source.wanted) and name != source.path.name]
    if rivals:
        message = f"cannot be renamed to {source.wanted}: {', '.join(sorted(rivals))} stands beside it"
        return "", InputError(message, where=source.name, hint="keep one of the two, and remove the other")
    return source.wanted, None


def _spellings(wanted: str) -> tuple[str, str]:
    return wanted, wanted.replace(".yaml", ".yml")


def fix_text(data: bytes, name: str) -> Fixed:
    """The contents ``data`` of the file ``name`` in good form. Never raises; fixing twice changes nothing more."""
    try:
        if len(data) > MAX_BYTES:
            message = f"has {len(data) / 2**20:.1f} MiB; at most {MAX_BYTES // 2**20} MiB are read"
            raise InputError(message, where=name, hint="divide the file into several leaves")
        read, changes = _decoded(data, name)
        text, mends = mend(_emptied(read, changes), name)
        whole, cuts = quote_cut(text)
        if whole != read and not mends and fault(read, name) is None:
            _hold(signs(read), signs(whole), name, cut=bool(cuts))
        tidied, tidying = _tidy(whole)
        if tidied != whole:
            _hold(signs(whole), signs(tidied), name)
    except InputError as error:
        return Fixed(data, problem=error)
    found = sorted([*changes, *mends, *cuts, *tidying], key=lambda change: change.line)
    fixed = tidied.encode()
    if len(fixed) > MAX_BYTES:  # of just the size that is read, without a last line end
        return Fixed(data)
    return Fixed(fixed, tuple(found))


def _decoded(data: bytes, name: str) -> tuple[str, list[Change]]:
    """The text, with LF at the ends of lines and no byte order mark."""
    changes = []
    bare = "utf-16-be" if data[:1] == b"\0" else "utf-16-le" if data[1:2] == b"\0" else ""  # ASCII comes first
    try:
        text = data.decode(bare) if bare else decode(data, name)
    except UnicodeDecodeError:
        text = decode(data, name)
    if bare or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        changes.append(Change(1, "saved as UTF-8 instead of UTF-16"))
    elif data[:3] == b"\xef\xbb\xbf":
        changes.append(Change(1, "removed the byte order mark"))
    # Some editors put a mark before every save; without the empty lines before it, it would be the file's own.
    text = _BEGINNING.sub(lambda found: found[0].replace("\ufeff", ""), text)
    found = _LINE_END.findall(text)
    if found:
        changes.append(Change(1, f"ended {len(found):,} line(s) with LF alone"))
    return _LINE_END.sub("\n", text), changes


def _emptied(text: str, changes: list[Change]) -> str:
    """``text`` with its lines of nothing but blanks made empty; that is added to ``changes``."""
    found = [match.start() for match in BLANK_LINE.finditer(text)]
    if found:
        line = text.count("\n", 0, found[0]) + 1
        changes.append(Change(line, f"removed the blanks of {len(found):,} empty line(s)"))
    return BLANK_LINE.sub("", text)


def _hold(before: Sequence[Sign], after: Sequence[Sign], name: str, *, cut: bool = False) -> None:
    """Raise where two texts do not say the same; with ``cut`` plain texts may have got longer by a `` #…``."""
    for old, new in zip(before, after, strict=False):
        was, now = _plain(old), _plain(new)
        grown = cut and not old.style and now.startswith(was) and now[len(was) :].lstrip().startswith("#")
        if old.event != new.event or (was != now and not grown):
            break
    else:
        if len(before) == len(after):
            return
    hint = "mend its formatting by hand, and tell the makers of ilab"
    raise InputError("is left alone: its texts would not stay what they are", where=name, hint=hint)


def _plain(sign: Sign) -> str:
    """A scalar's value without the blanks at the ends of its lines and the blank lines around it."""
    value = _BLANKS.sub("", sign.value).strip("\n")
    return re.sub(r"[ \t]+", " ", value).strip() if sign.style == ">" else value  # a line's end became a blank


def _tidy(text: str) -> tuple[str, list[Change]]:
    """``text`` without trailing blanks and needless blank lines, with a newline at its end."""
    changes = []
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    spans = [
        _Span(bisect_right(starts, sign.start) - 1, bisect_right(starts, sign.end) - 1, sign)
        for sign in signs(text)
        if sign.event.startswith("Scalar") and "\n" in text[sign.start : sign.end]
    ]
    stripped = _without_blanks(lines, spans)
    ended = [at for at, line in enumerate(lines) if line != stripped[at]]
    if ended:
        changes.append(Change(ended[0] + 1, f"removed the blanks at the end of {len(ended):,} line(s)"))
    needless = _needless(stripped, [text[starts[span.last] : span.sign.end].strip() for span in spans], spans)
    if needless:
        changes.append(Change(min(needless) + 1, f"removed {len(needless):,} blank line(s)"))
    kept = [line for at, line in enumerate(stripped) if at not in needless]
    if kept and kept[-1]:
        changes.append(Change(len(lines), "ended the last line"))
        kept.append("")
    return "\n".join(kept), changes


def _without_blanks(lines: list[str], spans: Sequence[_Span]) -> list[str]:
    """The lines without the blanks at their ends, but for those that a backslash in a quoted text makes part of it."""
    stripped = [line.rstrip(" \t") for line in lines]
    for span in spans:
        if span.sign.style == '"':
            for at in range(span.first, span.last):
                slashes = len(stripped[at]) - len(stripped[at].rstrip("\\"))
                if slashes % 2 and stripped[at] != lines[at]:
                    stripped[at] = lines[at]
    return stripped


def _needless(lines: list[str], rests: list[str], spans: Sequence[_Span]) -> set[int]:
    """The empty lines that may go: at the start, at the end, and of more than two in a row all but two.

    Inside a text they stay, unless nothing of it follows (``rests``: the last lines of ``spans``, up to their ends).
    """
    needless: set[int] = set()
    firsts = [span.first for span in spans]
    at = 0
    while at < len(lines):
        end = at
        while end < len(lines) and not lines[end]:
            end += 1
        if end == len(lines):
            needless.update(range(at, end - 1))  # the last one stands for the newline at the end
        elif at == 0:
            needless.update(range(end))
        elif end - at > MOST_BLANK_LINES:
            inside = bisect_right(firsts, at - 1) - 1
            span = spans[inside] if inside >= 0 and spans[inside].last >= end else None
            if span is None or (span.last == end and rests[inside] in ("", "'", '"')):
                needless.update(range(at + MOST_BLANK_LINES, end))
        at = max(end, at + 1)
    return needless
