"""Columns from a file that is chosen by the value of another column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import yaml
from pydantic import Field, PrivateAttr, model_validator

from ilab.sdg.block import Block, Context, Reject, Row


class Populate(Block):
    """``values`` maps values of ``column`` to YAML files; the row gets the columns that its file holds.

    What all files hold is there for every row afterwards. A row with another value is refused.
    """

    type: ClassVar[str] = "populate"
    files: ClassVar[tuple[str, ...]] = ("values",)

    column: str
    values: Mapping[str, str] = Field(min_length=1)
    _columns: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _read(self) -> Self:
        for key, text in self.values.items():
            try:
                content = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(f"the file for {key!r} is not YAML: {error}") from error
            if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
                raise ValueError(f"the file for {key!r} is no mapping of columns to values")
            self._columns[key] = content
        return self

    def needs(self) -> frozenset[str]:
        return frozenset({self.column})

    def adds(self) -> frozenset[str]:
        return frozenset.intersection(*(frozenset(columns) for columns in self._columns.values()))

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        value = str(row.columns[self.column])
        if value not in self._columns:
            raise Reject("no columns for this row", f"{self.column} = {value[:80]!r}")
        return [row.holding({**row.columns, **self._columns[value]})]
