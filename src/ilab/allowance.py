"""A hard limit on what one command may spend on a teacher.

    answer in the memory?  yes: free
                           no: a call ──▶ within the allowance? made and counted : the row is given up
    at the end             any row given up? Stopped (exit 6), nothing published : published

What is not in the memory has to be asked for, so the memory is where calls are counted: the limit holds whatever the
flow does. Calls under way when the limit is reached are waited for, and every answer is kept, so the same command
goes on from there and pays nothing twice.

A limit in calls is exact. What a call costs is known when it is answered, so a limit in money sets aside, for every
call under way, ``MARGIN`` times the dearest so far, and a call that does not fit waits for the others. Before the first
answer no more than ``FIRST`` are under way: these alone, or calls far dearer than all before, can take it above the
limit. A call that failed stays set aside: the server may have counted it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ilab.config import Endpoint, Where
from ilab.core.memo import Memo
from ilab.core.pipeline import Plan
from ilab.core.run import Engine
from ilab.core.store import Partial, RecordFile, Store
from ilab.errors import InputError, ServiceError, Stopped

MEMO = "teacher"  # the memory that holds a teacher's answers
FIRST = 4  # calls under way before any cost is known
MARGIN = 4  # times as dear as the dearest so far a call under way may be


@dataclass
class Allowance:
    """``calls`` or ``cost`` that may be spent, and what was. Prices are those of a million tokens."""

    calls: int | None = None
    cost: float | None = None
    price_read: float = 0.0
    price_written: float = 0.0
    currency: str = ""
    made: int = 0
    spent: float = 0.0
    refused: int = 0
    _dearest: float = field(default=0.0, repr=False)
    _open: int = field(default=0, repr=False)
    _failed: int = field(default=0, repr=False)
    _known: bool = field(default=False, repr=False)  # what a call costs
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque, repr=False)

    @staticmethod
    def parse(text: str, endpoint: Endpoint | None) -> Allowance:
        """``500`` or ``500 calls`` are calls, ``2.50`` or ``2.50 USD`` money.

        Raises InputError for anything else, for money without an endpoint that has prices, or in another currency.
        """
        match = re.fullmatch(r"\s*(\d+)(\.\d+)?\s*([A-Za-z]*)\s*", text)
        if match is None:
            raise InputError(f"not a budget: {text!r}", hint="give calls (--budget 500) or money (--budget 2.50)")
        whole, part, unit = match.groups()
        if unit == "calls" or not (part or unit):
            if part:
                raise InputError(f"calls are counted in whole numbers, not {text!r}")
            return Allowance(calls=int(whole))
        if endpoint is None or endpoint.price_read is None or endpoint.price_written is None:
            raise InputError(
                "a budget in money needs the prices of the teacher",
                where="where.teacher",
                hint="add --set where.teacher.price_read=0.25 --set where.teacher.price_written=1 (of a million "
                "tokens), or give a number of calls",
            )
        if unit and unit.upper() != endpoint.currency.upper():
            raise InputError(f"the teacher's prices are in {endpoint.currency}, not in {unit}", where="where.teacher")
        prices = (endpoint.price_read, endpoint.price_written, endpoint.currency)
        return Allowance(None, float(f"{whole}{part or ''}"), *prices)

    def take(self) -> None:
        """Before a call. Raises a retryable ServiceError, which gives up one row, where it would go too far."""
        if (self.calls is not None and self.made >= self.calls) or self._over():
            self.refused += 1
            self._wake()
            raise ServiceError("the budget is spent", retryable=True)
        self.made += 1
        self._open += 1
        self._wake()

    async def room(self) -> None:
        """Wait while the calls under way decide whether another fits in a limit in money."""
        while self.cost is not None and self._open and not self.refused:
            if not (self._over(MARGIN) if self._known else self._open >= FIRST):
                return
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # the turn goes to the next
                    self._wake()
                raise

    def _over(self, margin: int = 1) -> bool:
        """Whether one more call would go too far, if all under way are ``margin`` times as dear as the dearest."""
        aside = (self._open + self._failed + 1) * margin * self._dearest
        return self.cost is not None and self.spent + aside > self.cost

    def _wake(self) -> None:
        """Let the next that waits look again; one that takes a call, or is refused, lets the next after it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def check(self) -> None:
        """Raises Stopped where a call was refused."""
        if self.refused:
            limit = f"{self.calls} calls" if self.cost is None else f"{self.cost:g} {self.currency}"
            raise Stopped(
                f"the budget of {limit} is spent: {self.told()}",
                hint="the answers are kept; the same command goes on with as much again, --preview N shows what "
                "comes of them",
            )

    def answered(self, usage: dict[str, int]) -> None:
        """After a call, with the tokens that the server counted."""
        read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        cost = (read * self.price_read + written * self.price_written) / 1e6
        self._open = max(0, self._open - 1)
        self.spent += cost
        self._dearest = max(self._dearest, cost)
        self._known = True
        self._wake()

    def failed(self) -> None:
        """After a call without an answer."""
        self._open = max(0, self._open - 1)
        self._failed += 1
        self._wake()

    def told(self) -> str:
        """What was spent, for people."""
        return f"{self.made} calls" + (f", {self.spent:.4g} {self.currency}" if self.cost is not None else "")


class CountedMemo(Memo):
    """A memory in front of which an allowance stands: what it does not have is counted."""

    def __init__(self, folder: Path, allowance: Allowance) -> None:
        super().__init__(folder)
        self._allowance = allowance

    def get(self, key: str) -> Any | None:
        found = super().get(key)
        if found is None:
            self._allowance.take()
        return found

    async def room(self) -> None:
        """See :meth:`Allowance.room`."""
        await self._allowance.room()

    def failed(self) -> None:
        """See :meth:`Allowance.failed`."""
        self._allowance.failed()

    def put(self, key: str, value: Any) -> None:
        super().put(key, value)
        self._allowance.answered(value.get("usage") or {})


class LimitedEngine(Engine):
    """An engine whose teacher calls are limited by ``allowance``. Raises Stopped where it was not enough."""

    def __init__(self, store: Store, where: Where, allowance: Allowance) -> None:
        super().__init__(store, where)
        self._allowance = allowance

    def memo(self, name: str) -> Memo:
        if name == MEMO:
            with self._lock:
                if name not in self._memos:
                    self._memos[name] = CountedMemo(self.store.memo(name), self._allowance)
        return super().memo(name)

    def publish(self, partial: Partial, record: RecordFile) -> RecordFile:
        """Nothing for which a call was refused: half a result would be taken for a whole one."""
        self._allowance.check()
        return super().publish(partial, record)

    def run_step(self, plan: Plan, name: str, force: bool = False, *, latest: bool = True) -> RecordFile:
        try:
            return super().run_step(plan, name, force, latest=latest)
        except ServiceError:  # that nothing was accepted is not the teacher's fault when it was not asked
            self._allowance.check()
            raise
