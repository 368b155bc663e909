"""Gives the text of an older ``qna.yaml`` the form of version 3, by edits that leave all other characters alone.

The lines of a pair are moved whole, with the comments above and inside them. An unfinished seed example or pair gets
``draft: true`` and, behind it, a comment that says what to do.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ilab.errors import InputError
from ilab.taxonomy.rewrite import Part, dashes, outline

_PLAIN = re.compile(r"(?!(?:null|true|false|yes|no|on|off|y|n)$)[A-Za-z][\w ]*", re.IGNORECASE)  # needs no quotes
_NO_TITLE = re.compile(r"[^\w+#.,()' -]+")
Edit = tuple[int, int, str]  # put the text in place of the characters from … to …


@dataclass(frozen=True)
class Seed:
    """A seed example of version 3: old pairs by their index, under one context.

    ``unsure``: a person has to look at the context, or to find one where it is "". ``more``: pairs that are missing.
    """

    context: str
    pairs: tuple[int, ...]
    unsure: bool = False
    more: int = 0


def title_from(folder: str) -> str:
    """The name of a folder in words, as a proposal for an empty ``task_description``."""
    return " ".join(_NO_TITLE.sub(" ", folder.replace("_", " ")).split()) or "untitled"


class Form:
    """The text of a file that the loader has read, and the edits that are to be made in it.

    Raises ``InputError`` where the file is written in a form (brackets) in which lines cannot be moved.
    """

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        root = outline(text)
        if root is None or not root.keys or text[root.start : root.start + 1] == "{":
            raise self._brackets("the file stands", root)
        self._root = root
        self._lines = text.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]
        self._edits: list[Edit] = []

    def set_version(self) -> None:
        """``version: 3``, in place of the old number or as the first line."""
        written = self._root.entry("version")
        if written is not None:
            self._edits.append((written[1].start, written[1].end, "3"))
            return
        start = self._starts[self._line(self._root.start)]
        indent = self._text[start : self._root.start]
        if indent.strip():
            raise self._brackets("the first line stands", self._root)
        self._edits.append((start, start, f"{indent}version: 3\n"))

    def rename(self, old: str, new: str) -> None:
        """The key ``old``, which the file has, becomes ``new``."""
        key = self._entry(old)[0]
        self._edits.append((key.start, key.end, new))

    def set_text(self, key: str, text: str) -> None:
        """``text``, of one line, becomes the value of ``key``, which has none."""
        value = self._entry(key)[1]
        old = self._text[value.start : value.end]
        before = "" if self._text[value.start - 1].isspace() else " "
        quoted = text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "''") + "'"
        self._edits.append((value.start, value.end, before + quoted + "\n" * old.endswith("\n")))

    def add_skill_form(self, more: int, *, grounded: bool) -> None:
        """An empty seed example behind the last one, where ``more`` are missing."""
        column, items = self._items()
        pad = " " * column
        lines = [f"{pad}- draft: true  # {_to_write(more, 'example')}"]
        lines += [f"{pad}  {key}: ''" for key in (*(("context",) if grounded else ()), "question", "answer")]
        end = self._starts[items[-1][1]] - 1  # in front of the newline, if there is one
        self._edits.append((end, end, "\n".join(["", *lines])))

    def group(self, seeds: Sequence[Seed], more: int) -> None:
        """The pairs stand in ``seeds``, and in that order; an empty one follows where ``more`` are missing."""
        column, items = self._items()
        key = self._entry("seed_examples")[0]
        key_column = key.start - self._starts[self._line(key.start)]
        inner = column + 2 + (column - key_column)  # where pairs have their dashes: lists are indented as they were
        lines: list[str] = []
        for seed in seeds:
            lines += _seed(seed, column, inner)
            for at in seed.pairs:
                first, end = items[at]
                lines += [" " * (inner - column) + line if line else "" for line in self._lines[first:end]]
            if seed.more:
                while not lines[-1]:
                    lines.pop()
                lines += _pair_form(inner, _to_write(seed.more, "question", " about this passage"))
        if more:
            empty = Seed("", (), unsure=True, more=3)
            note = f"{more} more passage(s) are needed: give one here with 3 questions, then remove this line"
            lines += [*_seed(empty, column, inner, note), *_pair_form(inner, "remove this line when it is written")]
        first, end = items[0][0], items[-1][1]
        while lines and not lines[-1]:
            lines.pop()
        self._edits.append((self._starts[first], self._starts[end] - 1, "\n".join(lines)))

    def text(self) -> str:
        """The text with all edits made."""
        parts, done = [], 0
        for start, end, new in sorted(self._edits):
            parts += [self._text[done:start], new]
            done = end
        return "".join([*parts, self._text[done:]])

    def _items(self) -> tuple[int, list[tuple[int, int]]]:
        """The column of the seed examples' dashes, and the lines of each: the first, and the one behind its last."""
        key, seeds = self._entry("seed_examples")
        column = seeds.start - self._starts[self._line(seeds.start)]
        own = [at for at in dashes(self._text) if seeds.start <= at < seeds.end]
        own = [at for at in own if at - self._starts[self._line(at)] == column]
        if len(own) != len(seeds.parts) or self._line(key.start) == self._line(seeds.start):
            raise self._brackets("the seed examples stand", seeds)
        firsts: list[int] = []
        for number, at in enumerate(own):
            first = self._line(at)
            least = self._line(seeds.parts[number - 1].end - 1) + 1 if number else first
            while first > least and self._is_comment(first - 1, 0, column):
                first -= 1
            firsts.append(first)
        end = self._line(max(seeds.parts[-1].end - 1, own[-1])) + 1
        while not self._lines[end - 1].strip():
            end -= 1
        while end < len(self._lines) and self._is_comment(end, column + 1):
            end += 1
        return column, list(zip(firsts, [*firsts[1:], end], strict=True))

    def _is_comment(self, line: int, least: int, most: int = 10**6) -> bool:
        """Whether a line outside of texts is a comment that begins at a column from ``least`` to ``most``."""
        text = self._lines[line]
        return text.lstrip(" ").startswith("#") and least <= len(text) - len(text.lstrip(" ")) <= most

    def _entry(self, key: str) -> tuple[Part, Part]:
        found = self._root.entry(key)
        if found is None:
            raise InputError(f"has no `{key}`", where=f"{self._name}:1:1", hint=f"add a line `{key}: …`")
        return found

    def _line(self, offset: int) -> int:
        """The 0-based line of the character at ``offset``."""
        return bisect_right(self._starts, offset) - 1

    def _brackets(self, what: str, part: Part | None) -> InputError:
        at = part.start if part else 0
        start = self._text.rfind("\n", 0, at) + 1
        where = f"{self._name}:{self._text.count(chr(10), 0, at) + 1}:{at - start + 1}"
        hint = "write `key: value` lines and lists with `- ` lines, without brackets"
        return InputError(f"{what} in a form that cannot be rewritten", where=where, hint=hint)


def _seed(seed: Seed, column: int, inner: int, note: str = "") -> list[str]:
    """The lines of a seed example down to its pairs, whose dashes stand at the column ``inner``."""
    pad = " " * column
    if seed.unsure and not note:
        what = "check that this passage answers the questions" if seed.context else "give the passage that answers them"
        note = f"{what}, then remove this line"
    head = [f"- draft: true  # {note}"] if seed.unsure else []
    if seed.context:
        indicator = "2" if seed.context[0].isspace() else ""
        lines = [f"{pad}    {line}" if line else "" for line in seed.context.split("\n")]
        body = [f"context: |{indicator}", *lines]
    else:
        body = ["context: ''"]
    body[0] = f"  {body[0]}" if head else f"- {body[0]}"
    return [f"{pad}{line}" for line in [*head, body[0]]] + body[1:] + [f"{pad}  questions_and_answers:"]


def _pair_form(column: int, note: str) -> list[str]:
    """The lines of a pair that a person has yet to write."""
    pad = " " * column
    return [f"{pad}- draft: true  # {note}", f"{pad}  question: ''", f"{pad}  answer: ''"]


def _to_write(number: int, what: str, about: str = "") -> str:
    wanted = f"1 more {what}{about} is needed" if number == 1 else f"{number} more {what}s{about} are needed"
    return f"{wanted}: write {'it' if number == 1 else 'them'} here, then remove this line"
