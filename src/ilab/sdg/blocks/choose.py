"""A value drawn for each row, by its id: variety without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import model_validator

from ilab.data import seed_from
from ilab.sdg.block import Block, Context, Reject, Row

Values = tuple[str, ...]


class Choose(Block):
    """``output`` becomes one of ``values``, all equally likely. With ``column``, ``values`` maps its values to lists.

    The draw derives from the row's id and the run's seed.
    """

    type: ClassVar[str] = "choose"

    output: str
    values: Values | Mapping[str, Values]
    column: str | None = None

    @model_validator(mode="after")
    def _has_choices(self) -> Self:
        if isinstance(self.values, Mapping) != (self.column is not None):
            raise ValueError("values is a list, or with column a mapping of its values to lists")
        if not self.values or not all(self.values.values() if isinstance(self.values, Mapping) else self.values):
            raise ValueError("there is nothing to choose from")
        return self

    def needs(self) -> frozenset[str]:
        return frozenset({self.column} if self.column else ())

    def adds(self) -> frozenset[str]:
        return frozenset({self.output})

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        values = self.values
        if isinstance(values, Mapping):
            key = str(row.columns[str(self.column)])
            if key not in values:
                raise Reject("nothing to choose from", f"{self.column} = {key[:80]!r}")
            values = values[key]
        drawn = values[seed_from(f"{row.id}/{self.name}", context.seed) % len(values)]
        return [row.holding({**row.columns, self.output: drawn})]
