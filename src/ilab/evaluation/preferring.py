"""Which of several models answers better: a judge looks at each two of them, question by question, in both orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ilab.data import TrainingRow
from ilab.evaluation.judge import NO_ANSWER, Judge
from ilab.evaluation.rubric import Pair
from ilab.evaluation.subject import Answered

TIE = "tie"
ALIKE = "both answer the same"
EMPTY = "the other answer is empty"
GROUP = "compare"


@dataclass(frozen=True)
class Duel:
    """Two models on one question. ``winner`` is ``first``, ``second`` or ``tie``; None, with a ``note``: unread."""

    question: int
    first: str
    second: str
    winner: str | None
    note: str = ""

    @property
    def better(self) -> str | None:
        """The winner's name."""
        return {"first": self.first, "second": self.second}.get(self.winner or "")


def duels(answers: Mapping[str, Sequence[Answered]], rows: Sequence[TrainingRow], judge: Judge) -> list[Duel]:
    """Every two models on every question, by question. ``answers`` are by model, in the order of ``rows``.

    The judge is not asked where it is plain: the same answer twice, one that is empty, one that is missing. Raises as
    :meth:`ilab.evaluation.judge.Judge.prefer` does.
    """
    found: dict[tuple[int, str, str], Duel] = {}
    asked: dict[tuple[int, str, str], Pair] = {}
    for number, row in enumerate(rows):
        for first, second in combinations(answers, 2):
            place = (number, first, second)
            texts = (answers[first][number].text, answers[second][number].text)
            settled = _settled(*texts)
            if settled is not None:
                found[place] = Duel(*place, *settled)
            else:
                asked[place] = _pair(number, row, (texts[0] or "", texts[1] or ""))
    preferences = judge.prefer(list(asked.values())) if asked else []
    for place, preference in zip(asked, preferences, strict=True):
        found[place] = Duel(*place, preference.winner, preference.note)
    return [found[place] for place in sorted(found, key=lambda place: place[0])]


def tally(found: Sequence[Duel]) -> list[dict[str, Any]]:
    """For each two models how often either won, ``ties``, and ``unread`` by reason."""
    pairs = dict.fromkeys((duel.first, duel.second) for duel in found)
    return [_count(pair, [duel for duel in found if (duel.first, duel.second) == pair]) for pair in pairs]


def _count(pair: tuple[str, str], own: Sequence[Duel]) -> dict[str, Any]:
    unread = Counter(duel.note.partition(":")[0] for duel in own if duel.winner is None)
    return {
        "first": pair[0],
        "second": pair[1],
        "wins": {name: sum(duel.better == name for duel in own) for name in pair},
        "ties": sum(duel.winner == TIE for duel in own),
        "unread": dict(sorted(unread.items())),
    }


def _settled(first: str | None, second: str | None) -> tuple[str | None, str] | None:
    if first is None or second is None:
        return None, NO_ANSWER
    if first.strip() == second.strip():
        return TIE, ALIKE
    if not first.strip() or not second.strip():
        return ("second" if second.strip() else "first"), EMPTY
    return None


def _pair(number: int, row: TrainingRow, texts: tuple[str, str]) -> Pair:
    """What the judge sees: the question in its latest words, and what was expected, where that is known."""
    question = next((one.content for one in reversed(row.messages) if one.role == "user"), "")
    expected = row.messages[-1].content.strip() if row.messages[-1].role == "assistant" else ""
    return Pair(f"{GROUP}/{number}", GROUP, question, *texts, reference=expected or None)
