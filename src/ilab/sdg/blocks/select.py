"""One of several columns, chosen by the value of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from ilab.sdg.block import Block, Context, Reject, Row


class Select(Block):
    """``choices`` maps values of ``column`` to columns; ``output`` becomes the value of the one that is named."""

    type: ClassVar[str] = "select"

    column: str
    choices: Mapping[str, str] = Field(min_length=1)
    output: str

    def needs(self) -> frozenset[str]:
        return frozenset({self.column, *self.choices.values()})

    def adds(self) -> frozenset[str]:
        return frozenset({self.output})

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        value = str(row.columns[self.column]).strip()
        if value not in self.choices:
            raise Reject("no such choice", f"{self.column} = {value[:80]!r}")
        return [row.holding({**row.columns, self.output: row.columns[self.choices[value]]})]
