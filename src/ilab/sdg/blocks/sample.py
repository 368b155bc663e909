"""Some of the values of a list column, drawn for each row by its id."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ilab.data import seed_from
from ilab.sdg.block import Block, Context, Count, Reject, Row, resolve_count


class Sample(Block):
    """``output`` becomes a list of at most ``count`` different places of the list in ``column``, in drawn order.

    Where the column holds a mapping of values to weights, a value is drawn in proportion to its weight (Efraimidis
    and Spirakis, 2006). The draw derives from the row's id and the run's seed, or ``seed`` where it is given.
    """

    type: ClassVar[str] = "sample"

    column: str
    output: str
    count: Count = 5
    seed: int | None = None

    def needs(self) -> frozenset[str]:
        return frozenset({self.column})

    def adds(self) -> frozenset[str]:
        return frozenset({self.output})

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        count = resolve_count(self.count, context.scale)
        run = context.seed if self.seed is None else self.seed
        drawn = _drawn(row.columns[self.column], count, random.Random(seed_from(f"{row.id}/{self.name}", run)))
        if not drawn:
            raise Reject("nothing to draw from", f"{self.column} = {str(row.columns[self.column])[:80]!r}")
        return [row.holding({**row.columns, self.output: drawn})]


def _drawn(values: Any, count: int, random_: random.Random) -> list[Any]:
    if isinstance(values, Mapping):
        weighed = [
            (value, weight) for value, weight in values.items() if isinstance(weight, (int, float)) and weight > 0
        ]
        keys = {value: math.log(1.0 - random_.random()) / weight for value, weight in weighed}
        return sorted(keys, key=lambda value: -keys[value])[:count]
    if isinstance(values, Sequence) and not isinstance(values, str):
        return random_.sample(list(values), min(count, len(values)))
    return []
