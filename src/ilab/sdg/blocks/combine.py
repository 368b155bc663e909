"""Several columns joined into one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ilab.sdg.block import Block, Context, Row


class Combine(Block):
    """``output`` becomes the texts of ``columns``, in this order, with ``separator`` between them."""

    type: ClassVar[str] = "combine"

    columns: tuple[str, ...] = Field(min_length=1)
    output: str
    separator: str = "\n\n"

    def needs(self) -> frozenset[str]:
        return frozenset(self.columns)

    def adds(self) -> frozenset[str]:
        return frozenset({self.output})

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        parts = ["" if row.columns[name] is None else str(row.columns[name]) for name in self.columns]
        return [row.holding({**row.columns, self.output: self.separator.join(parts)})]
