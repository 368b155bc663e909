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

    def copies(self, scale: int) -> int:
        return resolve_count(self.times, scale)

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        return [row.child(self.label(f"draw-{n}"), {}) for n in range(1, self.copies(context.scale) + 1)]
