"""A judge by rule: words and numbers shared with the reference, no model. For tests, and where there is no server.

    mark = overlap (token F1 with the reference); at most a quarter of the scale where a number of it is missing

It judges wording, not meaning: a right answer in other words gets a low mark, and without a reference there is none.
Every judgment, result and report that it makes names the judge ``rule``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ilab.data import Judgment
from ilab.evaluation.answers import token_f1
from ilab.evaluation.judge import Preference, judgment, settled
from ilab.evaluation.rubric import QUALITY, Asked, Pair, Rubric

RULE = "rule"
BY_RULE = "marked by rule (words and numbers shared with the reference), not by a language model"
NO_REFERENCE = "no reference: the judge by rule has nothing to compare with"
WRONG_NUMBER = 0.25  # the most that an answer gets which lacks a number of the reference
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class RuleJudge:
    """A :class:`~ilab.evaluation.judge.Judge` named ``rule``."""

    name = RULE
    by_rule = True

    def mark(self, asked: Sequence[Asked], rubric: Rubric = QUALITY) -> list[Judgment]:
        """See :meth:`ilab.evaluation.judge.Judge.mark`. Marks are whole, as people give them."""
        return [settled(one, RULE, rubric) or _judge(one, rubric) for one in asked]

    def prefer(self, pairs: Sequence[Pair]) -> list[Preference]:
        """See :meth:`ilab.evaluation.judge.Judge.prefer`: the greater overlap with the reference."""
        return [_prefer(pair) for pair in pairs]


def _judge(asked: Asked, rubric: Rubric) -> Judgment:
    if not asked.reference:
        return judgment(asked, RULE, note=NO_REFERENCE)
    overlap = _overlap(asked.answer or "", asked.reference)
    mark = float(round(rubric.mark(overlap)))
    said = f"{BY_RULE}: overlap {overlap:.2f}"
    return judgment(asked, RULE, mark=rubric.share(mark), marks=(mark,), replies=(said,))


def _prefer(pair: Pair) -> Preference:
    if not pair.reference:
        return Preference(item=pair.item, leaf=pair.leaf, judge=RULE, note=NO_REFERENCE)
    first, second = _overlap(pair.first, pair.reference), _overlap(pair.second, pair.reference)
    winner: Literal["first", "second", "tie"] = "tie" if first == second else "first" if first > second else "second"
    said = f"{BY_RULE}: overlap {first:.2f} and {second:.2f}"
    return Preference(item=pair.item, leaf=pair.leaf, judge=RULE, winner=winner, replies=(said,))


def _overlap(answer: str, reference: str) -> float:
    """Token F1 in 0..1, capped where the answer lacks a number of the reference."""
    overlap = token_f1(answer, reference)
    lacking = set(_NUMBER.findall(reference)) - set(_NUMBER.findall(answer))
    return min(overlap, WRONG_NUMBER) if lacking else overlap
