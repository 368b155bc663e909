"""Multiple choice and short answers asked in a conversation, for looking at items: with a passage and without.

Any model that answers will do, because only letters and short answers are read. It is told that it may say that it
does not know, so that a guess is not taken for knowledge. Options are asked in two orders, and an item counts as
answered when both hit: a model that always says "A" answers nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ilab.data import Item, Message
from ilab.evaluation.answers import plain, token_f1
from ilab.evaluation.prompts import LETTERS, lettered
from ilab.evaluation.subject import Subject
from ilab.evaluation.validate import Solve

LETTER_TOKENS, ANSWER_TOKENS = 8, 64
HIT = 0.5  # token F1 from which a free answer counts as the reference's
UNSURE = "?"
_LETTER = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z])")


def solver(subject: Subject) -> Solve:
    """``subject`` as somebody who answers items."""

    def solve(asked: Sequence[tuple[Item, str | None]]) -> list[bool | None]:
        choices = [(item, passage) for item, passage in asked if item.kind == "mcq"]
        straight = _letters(subject, choices, turned=False)
        turned = _letters(subject, choices, turned=True)
        hits = iter([_both(one, other) for one, other in zip(straight, turned, strict=True)])
        written = iter(_written(subject, [(item, passage) for item, passage in asked if item.kind != "mcq"]))
        return [next(hits) if item.kind == "mcq" else next(written) for item, _ in asked]

    return solve


def read_letter(answer: str, count: int) -> str | None:
    """The first letter that stands alone and names one of ``count`` options, ``None`` where there is none."""
    for match in _LETTER.finditer(answer):
        if match[1] in LETTERS[:count]:
            return match[1]
    return None


def _letters(subject: Subject, asked: Sequence[tuple[Item, str | None]], *, turned: bool) -> list[bool | None]:
    orders = [tuple(reversed(item.options)) if turned else item.options for item, _ in asked]
    conversations = []
    for (item, passage), options in zip(asked, orders, strict=True):
        rule = f"Answer with the letter alone. If you do not know, answer {UNSURE}"
        conversations.append(_conversation(lettered(_question(item), options), passage, rule))
    answers = subject.answer(conversations, max_tokens=LETTER_TOKENS)
    found: list[bool | None] = []
    for (item, _), options, answer in zip(asked, orders, answers, strict=True):
        letter = None if answer is None else read_letter(answer, len(options))
        found.append(None if answer is None else letter is not None and options[LETTERS.index(letter)] == item.gold)
    return found


def _written(subject: Subject, asked: Sequence[tuple[Item, str | None]]) -> list[bool | None]:
    rule = f"Answer in as few words as possible. If you do not know, answer {UNSURE}"
    conversations = [_conversation(_question(item), passage, rule) for item, passage in asked]
    answers = subject.answer(conversations, max_tokens=ANSWER_TOKENS)
    found: list[bool | None] = []
    for (item, _), answer in zip(asked, answers, strict=True):
        if answer is None:
            found.append(None)
        else:
            found.append(plain(answer) == plain(item.gold) or token_f1(answer, item.gold) >= HIT)
    return found


def _question(item: Item) -> str:
    return f"{item.question}\n{item.context}" if item.context else item.question


def _conversation(question: str, passage: str | None, rule: str) -> list[Message]:
    told = f"Text:\n{passage}\n\nAnswer from this text.\n\n" if passage else ""
    return [Message(role="user", content=f"{told}{question}\n\n{rule}.")]


def _both(one: bool | None, other: bool | None) -> bool | None:
    return None if one is None or other is None else one and other
