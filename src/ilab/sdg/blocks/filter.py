"""Keeps a row when one of its columns meets a condition; the verdict stays with the row either way."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from ilab.data import Verdict
from ilab.sdg.block import Block, Context, Reject, Row

Operation = Literal["eq", "ne", "gt", "ge", "lt", "le", "in", "contains"]
Scalar = str | int | float | bool
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Filter(Block):
    """``column operation value``; ``reason`` is counted when the condition does not hold.

    Models write judgements as they like, so a number is looked for in the text ("Score: 2"), and words are
    compared without case, spaces and marks around them ("**Yes.**" is YES).
    """

    type: ClassVar[str] = "filter"

    column: str
    operation: Operation
    value: Scalar | tuple[Scalar, ...]
    reason: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.operation == "in") != isinstance(self.value, tuple):
            raise ValueError("'in' takes a list of values, every other operation a single value")
        if self.operation in ("gt", "ge", "lt", "le") and not _is_number(self.value):
            raise ValueError(f"{self.operation} takes a number")
        return self

    def needs(self) -> frozenset[str]:
        return frozenset({self.column})

    def adds(self) -> frozenset[str]:
        return frozenset()

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        found = row.columns[self.column]
        reason = self.reason or f"{self.column} is not {self.operation} {self.value}"
        if not self._holds(found):
            raise Reject(reason, f"{self.column} = {str(found)[:80]!r}")
        number = _number(found)
        verdict = Verdict(block=self.name, accepted=True, reason=f"{self.column} = {str(found)[:80]}", score=number)
        return [row.same(replace(row.trace, verdicts=(*row.trace.verdicts, verdict)))]

    def _holds(self, found: Any) -> bool:
        if self.operation == "contains":
            return _plain(str(self.value)) in _plain(str(found))
        if isinstance(self.value, tuple):
            return any(_compare("eq", found, value) for value in self.value)
        return _compare(self.operation, found, self.value)


def _compare(operation: str, found: Any, value: Scalar) -> bool:
    if _is_number(value):
        number = _number(found)
        if number is None:
            raise Reject("unreadable", f"no number in {str(found)[:80]!r}")
        return ORDER[operation](number, value)
    return ORDER[operation](_plain(str(found)), _plain(str(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(found: Any) -> float | None:
    if _is_number(found):
        return float(found)
    match = NUMBER.search(str(found))
    return float(match.group()) if match else None


def _plain(text: str) -> str:
    return re.sub(r"^\W+|\W+$", "", text).casefold()
