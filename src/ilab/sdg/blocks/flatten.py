"""Wide to long: a row for each of several columns."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ilab.sdg.block import Block, Context, Row


class Flatten(Block):
    """A row for each of ``columns``, named after it: ``value`` holds its text, ``variable`` its name.

    The columns themselves are gone afterwards. Also known as melt.
    """

    type: ClassVar[str] = "flatten"

    columns: tuple[str, ...] = Field(min_length=1)
    value: str
    variable: str

    def needs(self) -> frozenset[str]:
        return frozenset(self.columns)

    def adds(self) -> frozenset[str]:
        return frozenset({self.value, self.variable})

    def drops(self) -> frozenset[str]:
        return frozenset(self.columns) - self.adds()

    def copies(self, scale: int) -> int:
        return len(self.columns)

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        rest = {name: value for name, value in row.columns.items() if name not in self.columns}
        return [
            row.child(self.label(name), {}).holding({**rest, self.value: row.columns[name], self.variable: name})
            for name in self.columns
        ]
