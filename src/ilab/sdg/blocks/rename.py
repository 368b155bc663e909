"""Columns under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, model_validator

from ilab.sdg.block import Block, Context, Row


class Rename(Block):
    """``columns`` maps old names to new ones, all at once: ``{document: raw, summary: document}`` is meant as it looks.

    A column that already has a new name is replaced.
    """

    type: ClassVar[str] = "rename"

    columns: Mapping[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError("two columns get the same name")
        return self

    def needs(self) -> frozenset[str]:
        return frozenset(self.columns)

    def adds(self) -> frozenset[str]:
        return frozenset(self.columns.values())

    def drops(self) -> frozenset[str]:
        return frozenset(self.columns) - self.adds()

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        rest = {name: value for name, value in row.columns.items() if name not in self.columns}
        renamed = {new: row.columns[old] for old, new in self.columns.items()}
        return [row.holding({**rest, **renamed})]
