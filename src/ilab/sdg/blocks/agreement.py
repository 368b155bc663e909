"""A second teacher answers the same question; a row goes on when the two agree.

One model's mistakes are seldom another's. The verifier (``where.verifier``, ``sdg_verifier_model``) sees the question
and the passage, never the answer. Answers agree when they are the same in normal form, or have enough words in common
and the same numbers. Where that does not decide, the verifier may be asked whether the two say the same.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from ilab.data import Verdict
from ilab.models.cached import Cached
from ilab.sdg.asking import ASKS, PromptingBlock
from ilab.sdg.block import Context, Reject, Row
from ilab.sdg.blocks.judge import Judge
from ilab.sdg.prompt import variables
from ilab.sdg.text import normal, words

SHOWN = 200  # characters of an answer in a reason
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
NEGATIONS = ("no", "not", "never", "none", "neither", "nor", "cannot", "without", "t")  # can, t
OTHER = "verifier_answer"  # the variable of the comparing prompt


class Agreement(PromptingBlock):
    """Asks the second teacher with ``prompt`` and compares what it says with the column ``answer``.

    The answer is read as in ``llm``, into one column. ``overlap`` is the least F1 of words (Rajpurkar et al., 2016)
    from which answers with the same numbers and negations count as the same. ``compare`` is a prompt with
    ``verifier_answer`` among its variables that the second teacher answers with YES or NO; without it, other answers do
    not agree. The row goes on unchanged, with the verdict. A refused row shows both answers.
    """

    type: ClassVar[str] = "agreement"
    calls_verifier: ClassVar[bool] = True
    asks: ClassVar[int] = 2 * ASKS
    files: ClassVar[tuple[str, ...]] = ("prompt", "compare")

    compare: str | None = None
    answer: str = "answer"
    overlap: float = Field(0.8, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _reads_one_answer(self) -> Self:
        if len(self.read_columns()) != 1:
            raise ValueError("one column is read: the second teacher's answer")
        if self.model is not None:
            raise ValueError("the second teacher is that of the run: -p sdg_verifier_model=NAME")
        return self

    def needs(self) -> frozenset[str]:
        compared = variables(self.compare, self.name) - {OTHER} if self.compare else frozenset()
        return super().needs() | compared | {self.answer}

    def adds(self) -> frozenset[str]:
        return frozenset()

    def own_text(self) -> int:
        return max(len(self.prompt), len(self.compare or ""))

    def endpoint(self, context: Context) -> tuple[Cached, str]:
        return second_teacher(context)

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        records, trace = await self.prompted(row, context)
        [column] = self.read_columns()
        own, other = str(row.columns[self.answer]), str(records[0][column])
        score = alike(own, other)
        agreed, how = score >= self.overlap, f"{score:.2f} alike"
        if not agreed and self.compare is not None:
            comparison = Comparison(name=f"{self.name}-compare", prompt=self.compare, output="verdict", seed=self.seed)
            shown = row.same(trace).holding({**row.columns, OTHER: other})
            answers, trace = await comparison.prompted(shown, context)
            score = comparison.score(str(answers[0]["verdict"])) or 0.0
            agreed, how = score == 1.0, "said to mean the same" if score == 1.0 else "said to mean something else"
        told = f"{_brief(own)!r} | {context.verifier_model}: {_brief(other)!r} ({how})"
        if not agreed:
            raise Reject("a second teacher answers otherwise", told, verifier_answer=other, score=score)
        verdict = Verdict(block=self.name, accepted=True, reason=told, score=score)
        return [row.same(replace(trace, verdicts=(*trace.verdicts, verdict)))]


class Comparison(Judge):
    """The second teacher as judge of whether two answers say the same."""

    type: ClassVar[str] = "agreement-compare"

    verdict: str = "verdict"

    def endpoint(self, context: Context) -> tuple[Cached, str]:
        return second_teacher(context)


def second_teacher(context: Context) -> tuple[Cached, str]:
    """The verifier and its served name."""
    if context.verifier is None:
        raise AssertionError("a flow that asks a second teacher was started without one")
    return context.verifier, context.verifier_model


def alike(one: str, other: str) -> float:
    """From 0 to 1, how far two answers say the same: 1 in normal form, the F1 of their words (each as often as it
    stands there), 0 where their numbers or their negations differ.
    """
    if normal(one) == normal(other):
        return 1.0
    first, second = Counter(words(one)), Counter(words(other))
    shared = (first & second).total()
    if not shared or numbers(one) != numbers(other) or _negated(first) != _negated(second):
        return 0.0
    return 2 * shared / (first.total() + second.total())


def numbers(text: str) -> frozenset[str]:
    """The numbers in ``text``, without the marks between their digits."""
    return frozenset(re.sub(r"[.,]", "", number) for number in NUMBER.findall(text))


def _negated(counted: Counter[str]) -> bool:
    return sum(counted[word] for word in NEGATIONS) % 2 == 1


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
