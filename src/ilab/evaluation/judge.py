"""The judge: a model that marks answers by a rubric, or says which of two is better.

    Asked ──▶ pass 1: reference, answer ──▶ mark ┐
          ──▶ pass 2: answer, reference ──▶ mark ┴─▶ mean, scaled to 0..1 ──▶ Judgment

Any OpenAI-compatible server will do (``where.judge``). It is asked at temperature 0, several questions under way at
once, and every reply is kept in the memo ``judge`` by model and request, so that nothing is asked twice after a kill
and a rerun is free. A reply without a readable mark is asked for once more in other words; what then has no mark is
unscored, with the reason, and never a low mark. A model that gave no answer at all is not judged; an empty answer has
the lowest mark without a question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from ilab.config import Where, cache_home
from ilab.core.events import Emit
from ilab.core.memo import Memo
from ilab.data import Judgment, Record
from ilab.errors import InputError, ServiceError
from ilab.evaluation.concurrently import each, tell_outages
from ilab.evaluation.marks import Better, own_words, read_better, read_mark
from ilab.evaluation.rubric import QUALITY, Asked, Pair, Prompt, Rubric, mark_prompt, preference_prompt
from ilab.models.chat import Refused, Request, Sampling

if TYPE_CHECKING:
    from ilab.models.chat import ChatModel

AT_ONCE = 64  # requests under way where the endpoint's settings say nothing
REPLY_TOKENS = 1024
NO_ANSWER = "the model gave no answer"
EMPTY = "empty answer: lowest mark without asking"
UNREADABLE = "the judge gave no readable mark"
REFUSED = "the judge's server refused the question"
FAILED = "the judge's server failed"

T = TypeVar("T")
R = TypeVar("R")


class Preference(Record):
    """Which of two answers a judge finds better. ``tie`` also where the verdict hung on their order.

    ``winner`` is None, with a ``note``, where a pass had no readable verdict.
    """

    item: str
    leaf: str
    judge: str
    winner: Literal["first", "second", "tie"] | None = None
    replies: tuple[str, ...] = ()
    note: str = ""


class Judge(Protocol):
    """Marks answers. ``by_rule`` says that it is no model and judges words, not meaning."""

    @property
    def name(self) -> str: ...

    @property
    def by_rule(self) -> bool: ...

    def mark(self, asked: Sequence[Asked], rubric: Rubric = QUALITY) -> list[Judgment]:
        """A judgment of each answer, in order. ``Judgment.marks`` are on the rubric's scale, ``mark`` in 0..1.

        Raises ``ServiceError`` when no further question can succeed, ``Stopped`` when asked to stop.
        """

    def prefer(self, pairs: Sequence[Pair]) -> list[Preference]:
        """A preference for each pair, in order; raises as :meth:`mark` does."""


def open_judge(
    where: Where, name: str, *, memo: Memo, emit: Emit, stopping: Callable[[], bool] = lambda: False
) -> ModelJudge | None:
    """The judge at ``where.judge``, served as ``name``; None where no endpoint is configured. Nothing is sent yet.

    ``memo`` is the site's ``judge``. Raises ``InputError`` without a name, or for an endpoint that cannot be one.
    """
    if where.judge is None:
        return None
    if not name:
        raise InputError(
            "a judge is configured, but not the name of the model that judges",
            where="where.judge",
            hint=f"see which names it serves: ilab endpoint check {where.judge.url}",
        )
    from pathlib import Path

    from ilab.models.admission import Admission
    from ilab.models.openai import OpenAIModel

    cache = Path(where.cache) if where.cache else cache_home()
    admission = Admission(where.judge, cache=cache, tell=lambda line: emit.metric(note=line))
    model = OpenAIModel(where.judge, in_flight=AT_ONCE, admission=admission)
    return ModelJudge(name, model, memo, emit=emit, stopping=stopping, at_once=where.judge.in_flight or AT_ONCE)


@dataclass(frozen=True)
class _Reading(Generic[T]):
    """What came of one pass: the value read, the reply that it stands in, or the reason why there is none."""

    value: T | None
    reply: str
    note: str = ""


class ModelJudge:
    """A :class:`Judge` that asks a chat model. ``calls``, ``tokens`` and ``from_memo`` count what was asked so far."""

    by_rule = False

    def __init__(
        self,
        name: str,
        model: ChatModel,
        memo: Memo,
        *,
        emit: Emit,
        stopping: Callable[[], bool] = lambda: False,
        at_once: int = AT_ONCE,
    ) -> None:
        from ilab.models.cached import Cached

        self.name = name
        self._model = Cached(model, memo)
        self._emit = emit
        self._stopping = stopping
        self._at_once = at_once

    @property
    def calls(self) -> int:
        return self._model.calls

    @property
    def from_memo(self) -> int:
        return self._model.from_memo

    @property
    def tokens(self) -> int:
        """Tokens read and written by the calls made."""
        return self._model.tokens

    def mark(self, asked: Sequence[Asked], rubric: Rubric = QUALITY) -> list[Judgment]:
        """See :meth:`Judge.mark`."""
        return self._run(asked, lambda one: self._mark(one, rubric), lambda found: found.note or f"{found.mark:.2f}")

    def prefer(self, pairs: Sequence[Pair]) -> list[Preference]:
        """See :meth:`Judge.prefer`."""
        return self._run(pairs, self._prefer, lambda found: found.note or str(found.winner))

    def _run(self, items: Sequence[T], work: Callable[[T], Awaitable[R]], told: Callable[[R], str]) -> list[R]:
        """All of ``items`` on a loop of its own, as every stage runs its own."""

        def done(count: int, latest: R) -> None:
            self._emit.progress(count, len(items), "judgments", note=f"{self.name}: {told(latest)}")

        async def run() -> list[R]:
            try:
                stopping, pulse = self._stopping, tell_outages(f"the judge {self.name}", self._model, self._emit)
                return await each(items, work, at_once=self._at_once, done=done, stopping=stopping, pulse=pulse)
            finally:
                await self._model.close()

        return asyncio.run(run())

    async def _mark(self, asked: Asked, rubric: Rubric) -> Judgment:
        blank = settled(asked, self.name, rubric)
        if blank is not None:
            return blank
        readings: list[_Reading[float]] = []
        for swapped in (False, True) if asked.reference else (False,):
            prompts = [mark_prompt(asked, rubric, swapped=swapped, brief=brief) for brief in (False, True)]
            readings.append(await self._ask(prompts, lambda text: read_mark(text, rubric.low, rubric.high)))
            if readings[-1].value is None:  # half a judgment would hang on the order: the other pass is spared
                break
        marks = tuple(reading.value for reading in readings)
        known = [mark for mark in marks if mark is not None]
        whole = len(known) == len(marks)
        return judgment(
            asked,
            self.name,
            mark=rubric.share(sum(known) / len(known)) if whole else None,
            marks=marks,
            replies=tuple(reading.reply for reading in readings),
            note=readings[-1].note,
        )

    async def _prefer(self, pair: Pair) -> Preference:
        readings: list[_Reading[Better]] = []
        for swapped in (False, True):
            prompts = [preference_prompt(pair, swapped=swapped, brief=brief) for brief in (False, True)]
            readings.append(await self._ask(prompts, read_better))
            if readings[-1].value is None:
                break
        return Preference(
            item=pair.item,
            leaf=pair.leaf,
            judge=self.name,
            winner=_winner([reading.value for reading in readings]),
            replies=tuple(reading.reply for reading in readings),
            note=readings[-1].note,
        )

    async def _ask(self, prompts: Sequence[Prompt], read: Callable[[str], T | None]) -> _Reading[T]:
        """Put the question in one wording after the other, until a reply can be read."""
        reply = ""
        for prompt in prompts:
            try:
                answer = await self._model.complete(
                    Request(self.name, (prompt.message,), Sampling(temperature=0.0, max_tokens=REPLY_TOKENS))
                )
            except Refused as error:
                return _Reading(None, reply, f"{REFUSED}: {error.message}")
            except ServiceError as error:
                if not error.retryable:
                    raise
                return _Reading(None, reply, f"{FAILED}: {error.message}")
            reply = answer.text
            if answer.finish_reason == "length":  # a mark in there was weighed, not given
                continue
            value = read(own_words(reply, prompt.material, prompt.sign))
            if value is not None:
                return _Reading(value, reply)
        return _Reading(None, reply, UNREADABLE)


def settled(asked: Asked, judge: str, rubric: Rubric) -> Judgment | None:
    """The judgment of an answer that nobody need be asked about: none at all is unscored, an empty one is lowest."""
    if asked.answer is None:
        return judgment(asked, judge, note=NO_ANSWER)
    if not asked.answer.strip():
        return judgment(asked, judge, mark=0.0, marks=(float(rubric.low),), note=EMPTY)
    return None


def judgment(asked: Asked, judge: str, **found: Any) -> Judgment:
    """The judgment of ``asked`` with what was ``found``."""
    return Judgment(item=asked.item, leaf=asked.leaf, model=asked.model, judge=judge, **found)


def reason(judgment: Judgment) -> str:
    """Why a judgment has no mark, in the few words that failures are counted by."""
    return judgment.note.partition(":")[0]


def disagreement(judgments: Sequence[Judgment]) -> float | None:
    """Mean distance between the marks of the two passes, on the judge's scale; None where none had two.

    It is what the order of reference and answer alone does to a mark.
    """
    gaps = [abs(first - second) for first, second in map(_two, judgments) if first is not None and second is not None]
    return sum(gaps) / len(gaps) if gaps else None


def _two(judgment: Judgment) -> tuple[float | None, float | None]:
    return (judgment.marks[0], judgment.marks[1]) if len(judgment.marks) == 2 else (None, None)


def _winner(verdicts: Sequence[Better | None]) -> Literal["first", "second", "tie"] | None:
    """Of two passes, the second with the answers swapped. A verdict that stays with the place is a tie."""
    if None in verdicts:
        return None
    match tuple(verdicts):
        case ("A", "B"):
            return "first"
        case ("B", "A"):
            return "second"
    return "tie"
