"""Multiple choice written as text by a teacher, read strictly: question, options, the right one by its *text*.

    What does the kiln burn?            What is it? A) oak B) coal C) gas D) oil
    A) oak                              ────────────────────────────────────────
    B) coal                             options on one line, ``(A)``, ``A.``, ``A:``, ``A)oak`` are read as well
    …

A mark counts as an option's when the marks run A, B, C … in order, at the beginning of a line or, where all stand on
one line, after white space. So "vitamin A)" inside a question is no option. What cannot be read is a reason, never a
guess: whoever reads counts them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ilab.evaluation.prompts import LETTERS

_MARK = r"(?P<open>\()?(?P<letter>[A-Za-z])(?:\)|(?(open)(?!)|[.:]))"
_AT_LINE = re.compile(rf"^[ \t>*-]*{_MARK}[ \t]*", re.MULTILINE)
_INLINE = re.compile(rf"(?:(?<=\s)|^){_MARK}[ \t]*")
_ANSWER = re.compile(
    r"^\W*(?:(?:the\s+)?(?:correct\s+|right\s+)?answer(?:\s+is)?\W*)?\(?(?P<letter>[A-Z])(?=[).:\s]|$)\W*", re.I
)


@dataclass(frozen=True)
class Read:
    """A question that could be read: ``gold`` is the position of the right option."""

    question: str
    options: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Unread:
    """Why a text is no multiple choice, in a few words that are the same for the same fault."""

    reason: str


def read_mcq(text: str, answer: str, wanted: int = 4) -> Read | Unread:
    """The multiple choice in ``text`` with ``wanted`` options (0: any number of at least two).

    ``answer`` is a letter, a letter with the option's text, or the text alone. Where both are there they must agree.
    """
    found = _options(text)
    if found is None:
        return Unread("no options A, B, … in order")
    question, options = found
    if not question:
        return Unread("no question before the options")
    if wanted and len(options) != wanted:
        return Unread(f"not {wanted} options")
    if not all(options):
        return Unread("an option is empty")
    return _with_gold(question, options, answer)


def find_gold(options: tuple[str, ...], answer: str) -> int | Unread:
    """The position of the option that ``answer`` names, by letter, by text, or by both where they agree."""
    said = answer.strip()
    texts = [_same(option) for option in options]
    by_text = [place for place, text in enumerate(texts) if text == _same(said)]
    if len(by_text) == 1:
        return by_text[0]
    match = _ANSWER.match(said)
    if match is None:
        return Unread("the answer is none of the options")
    place = LETTERS.index(match["letter"].upper())
    if place >= len(options):
        return Unread("the answer's letter is none of the options'")
    rest = _same(said[match.end() :])
    if rest and not (rest == texts[place] or rest.startswith(texts[place]) or texts[place].startswith(rest)):
        other = [text for text in texts if text == rest]
        return Unread("the answer's letter and text disagree" if other else "the answer's text is none of the options'")
    return place


def _with_gold(question: str, options: tuple[str, ...], answer: str) -> Read | Unread:
    gold = find_gold(options, answer)
    return gold if isinstance(gold, Unread) else Read(question, options, gold)


def _options(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Question and options, by marks at line beginnings, else by marks within the text."""
    for pattern in (_AT_LINE, _INLINE):
        run = _run(list(pattern.finditer(text)))
        if len(run) >= 2:
            ends = [mark.start() for mark in run[1:]] + [len(text)]
            options = tuple(" ".join(text[m.end() : end].split()) for m, end in zip(run, ends, strict=True))
            return text[: run[0].start()].strip(), options
    return None


def _run(marks: list[re.Match[str]]) -> list[re.Match[str]]:
    """The longest run of marks A, B, C … in order, the last one where several are as long."""
    best: list[re.Match[str]] = []
    for start, mark in enumerate(marks):
        if mark["letter"].upper() != "A":
            continue
        run = [mark]
        for later in marks[start + 1 :]:
            if len(run) < len(LETTERS) and later["letter"].upper() == LETTERS[len(run)]:
                run.append(later)
        if len(run) >= len(best):
            best = run
    return best


def _same(text: str) -> str:
    return " ".join(text.split()).strip(" .").casefold()
