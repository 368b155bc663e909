"""A hard limit on what one command may spend on a teacher.

    answer in the memory?  yes: free
                           no: a call ──▶ within the allowance? made and counted : the row is given up
    at the end             any row given up? Stopped (exit 6), nothing published : published

What is not in the memory has to be asked for, so the memory is where calls are counted: the limit holds whatever the
flow does. Calls under way when the limit is reached are waited for, and every answer is kept, so the same command
goes on from there and pays nothing twice.

A limit in calls is exact. What a call costs is known when it is answered, so a limit in money sets aside, for every
call under way, as much as the dearest so far: only the first calls, before any answer, can take it above the limit. A
call that failed stays set aside: the server may have counted it.
"""

from __future__ import annotations

import re
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
        over = self.calls is not None and self.made >= self.calls
        if self.cost is not None:
            over = self.spent + (self._open + 1) * self._dearest > self.cost
        if over:
            self.refused += 1
            raise ServiceError("the budget is spent", retryable=True)
        self.made += 1
        self._open += 1

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

    def put(self, key: str, value: Any) -> None:
        super().put(key, value)
        self._allowance.answered(value.get("usage") or {})


class LimitedStore(Store):
    """A store that publishes nothing for which a call was refused: half a result would be taken for a whole one."""

    def __init__(self, root: Path, allowance: Allowance) -> None:
        super().__init__(root)
        self._allowance = allowance

    def publish(self, partial: Partial, record: RecordFile) -> RecordFile:
        self._allowance.check()
        return super().publish(partial, record)


class LimitedEngine(Engine):
    """An engine whose teacher calls are limited by ``allowance``. Raises Stopped where it was not enough."""

    def __init__(self, root: Path, where: Where, allowance: Allowance) -> None:
        super().__init__(LimitedStore(root, allowance), where)
        self._allowance = allowance

    def memo(self, name: str) -> Memo:
        if name == MEMO:
            with self._lock:
                if name not in self._memos:
                    self._memos[name] = CountedMemo(self.store.root / "memo" / name, self._allowance)
        return super().memo(name)

    def run_step(self, plan: Plan, name: str, force: bool = False, *, latest: bool = True) -> RecordFile:
        try:
            return super().run_step(plan, name, force, latest=latest)
        except ServiceError:  # that nothing was accepted is not the teacher's fault when it was not asked
            self._allowance.check()
            raise
