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
    compared without case, spaces and marks around them ("**Yes.**" is YES). ``in`` takes a list of values and
    ``contains`` may: any of them will do. Where there is no number to compare, ``default`` stands in for it; without
    one the row is refused as unreadable.
    """

    type: ClassVar[str] = "filter"

    column: str
    operation: Operation
    value: Scalar | tuple[Scalar, ...]
    reason: str = ""
    default: float | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.operation != "contains" and (self.operation == "in") != isinstance(self.value, tuple):
            raise ValueError("'in' takes a list of values, other operations than 'contains' a single value")
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
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        if self.operation == "contains":
            return any(_plain(str(value)) in _plain(str(found)) for value in values)
        operation = "eq" if self.operation == "in" else self.operation
        return any(self._compare(operation, found, value) for value in values)

    def _compare(self, operation: str, found: Any, value: Scalar) -> bool:
        if not _is_number(value):
            return ORDER[operation](_plain(str(found)), _plain(str(value)))
        number = _number(found)
        if number is None and self.default is None:
            raise Reject("unreadable", f"no number in {str(found)[:80]!r}")
        return ORDER[operation](self.default if number is None else number, value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(found: Any) -> float | None:
    if _is_number(found):
        return float(found)
    match = NUMBER.search(str(found))
    return float(match.group()) if match else None


def _plain(text: str) -> str:
    return re.sub(r"^\W+|\W+$", "", text).casefold()
