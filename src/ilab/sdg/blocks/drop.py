"""Columns that are no longer wanted."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ilab.sdg.block import Block, Context, Row


class Drop(Block):
    """The row without ``columns``; those that it does not have are no fault."""

    type: ClassVar[str] = "drop"

    columns: tuple[str, ...] = Field(min_length=1)

    def needs(self) -> frozenset[str]:
        return frozenset()

    def adds(self) -> frozenset[str]:
        return frozenset()

    def drops(self) -> frozenset[str]:
        return frozenset(self.columns)

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        return [row.holding({name: value for name, value in row.columns.items() if name not in self.columns})]
