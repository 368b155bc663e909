"""The same row several times, each under its own id: every later teacher call draws anew."""

from __future__ import annotations

from typing import ClassVar

from ilab.sdg.block import Block, Context, Count, Row, resolve_count


class Repeat(Block):
    """``times`` copies, named ``draw-<n>``."""

    type: ClassVar[str] = "repeat"

    times: Count = "scale"

    def needs(self) -> frozenset[str]:
        return frozenset()

    def adds(self) -> frozenset[str]:
        return frozenset()

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        times = resolve_count(self.times, context.scale)
        return [row.child(self.label(f"draw-{number}"), {}) for number in range(1, times + 1)]
