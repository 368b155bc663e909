"""Columns under further names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from ilab.sdg.block import Block, Context, Row


class Duplicate(Block):
    """``columns`` maps columns to the names under which they are there a second time."""

    type: ClassVar[str] = "duplicate"

    columns: Mapping[str, str] = Field(min_length=1)

    def needs(self) -> frozenset[str]:
        return frozenset(self.columns)

    def adds(self) -> frozenset[str]:
        return frozenset(self.columns.values())

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        copies = {new: row.columns[old] for old, new in self.columns.items()}
        return [row.holding({**row.columns, **copies})]
