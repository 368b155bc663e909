"""One value for all rows of a leaf: the one that most of them have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from ilab.core.step import canonical
from ilab.sdg.block import Context, GatherBlock, Reject, Row


class Majority(GatherBlock):
    """``column`` becomes its most frequent value among the rows of the leaf; of equally frequent ones the first in
    the order of their text.
    """

    type: ClassVar[str] = "majority"

    column: str

    def needs(self) -> frozenset[str]:
        return frozenset({self.column})

    def adds(self) -> frozenset[str]:
        return frozenset()

    def gather(self, rows: Sequence[Row], context: Context) -> list[Row | Reject]:
        values = {canonical(row.columns[self.column]): row.columns[self.column] for row in rows}
        counted = Counter(canonical(row.columns[self.column]) for row in rows)
        winner = values[min(counted, key=lambda text: (-counted[text], text))]
        return [row.holding({**row.columns, self.column: winner}) for row in rows]
