"""How a benchmark asks: our own plain form, equal to lm-evaluation-harness 0.4 character by character.

    plain   system + description, then each shot as question, blank, answer, empty line, then the question; an option
            follows after a blank
    chat    the same as a conversation: system message, a turn for each shot, the question; the model's own template
            renders it, and an option follows as it is

A difference in one blank moves scores, so the strings are compared with the harness's own in the tests. Shots come
from a file of their own and never hold the question that is asked (:func:`shots_for`): the harness draws them from
the questions themselves where a task names no other split.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from ilab.data import Message

LETTERS = string.ascii_uppercase
ANSWER = "Answer:"
SHOT_END = "\n\n"  # behind each shot
BLANK = " "  # between a question and its answer, in plain text
MMLU = (
    "The following are multiple choice questions (with answers) about {}.\n\n"  # the wording that scores are known by
)


@dataclass(frozen=True)
class Shot:
    """A question with its answer, shown before the one that is asked."""

    asked: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """What stands before the answer. ``blank`` and ``shot_end`` are the delimiters of the plain form."""

    asked: str
    system: str = ""
    shots: tuple[Shot, ...] = ()
    chat: bool = False
    blank: str = BLANK
    shot_end: str = field(default=SHOT_END)

    @property
    def plain(self) -> str:
        """The whole as plain text. Nothing parts a system text from the question: the harness writes it so."""
        shown = "".join(f"{shot.asked}{self.blank}{shot.answer}{self.shot_end}" for shot in self.shots)
        return f"{self.system}{shown}{self.asked}"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole as a conversation that the model is to go on with."""
        told = [Message(role="system", content=self.system)] if self.system else []
        for shot in self.shots:
            told.append(Message(role="user", content=shot.asked))
            told.append(Message(role="assistant", content=shot.answer))
        return (*told, Message(role="user", content=self.asked))

    def continuation(self, option: str) -> str:
        """``option`` as it follows the prompt."""
        return option if self.chat else f"{self.blank}{option}"


def lettered(question: str, options: Sequence[str]) -> str:
    """A question with its options A, B, C …, asking for the letter. Raises ``ValueError`` beyond 26 options."""
    if len(options) > len(LETTERS):
        raise ValueError(f"{len(options)} options: there are {len(LETTERS)} letters")
    lines = [
        question.strip(),
        *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)),
        ANSWER,
    ]
    return "\n".join(lines)


def joined(system: str, description: str, delimiter: str = SHOT_END) -> str:
    """System text and description, with ``delimiter`` between where neither has white space at the seam."""
    if not system or not description or system[-1].isspace() or description[0].isspace():
        return f"{system}{description}"
    return f"{system}{delimiter}{description}"


def same_question(text: str) -> str:
    """What two wordings of one question share: NFKC, case-folded, words and numbers alone."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(sign if sign.isalnum() else " " for sign in folded).split()
    return " ".join(words) or folded.strip()


def shots_for(asked: str, pool: Sequence[tuple[str, Shot]], count: int) -> tuple[Shot, ...]:
    """The first ``count`` shots of ``pool`` (question, shot) whose question is not the one ``asked``."""
    own = same_question(asked)
    return tuple(shot for question, shot in pool if same_question(question) != own)[:count]
