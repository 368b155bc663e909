"""New columns from others by Jinja templates: no Python, no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from ilab.sdg.asking import filled
from ilab.sdg.block import Block, Context, Row
from ilab.sdg.prompt import variables


class Expression(Block):
    """Each of ``columns`` is a column to add or replace and the template of its text. They see the row as it came.

    A row for which a template fails is refused.
    """

    type: ClassVar[str] = "expression"

    columns: Mapping[str, str] = Field(min_length=1)

    def needs(self) -> frozenset[str]:
        return frozenset().union(*(variables(text, self.name) for text in self.columns.values()))

    def adds(self) -> frozenset[str]:
        return frozenset(self.columns)

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        made = {column: filled(text, row.columns, self.name) for column, text in self.columns.items()}
        return [row.holding({**row.columns, **made})]
