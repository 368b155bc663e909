"""Where rows wait for each other before a block that must see all of a leaf (:class:`~ilab.sdg.block.GatherBlock`).

The rows of one leaf in one branch are counted: those that may still come, and those that wait. When all wait, they are
answered together, in the order of their ids. No time is involved, so the result depends on nothing but the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ilab.sdg.block import Context, GatherBlock, Reject, Row


class Gathering:
    """The rows of one leaf in one branch, ``coming`` at the beginning."""

    def __init__(self, coming: int, context: Context) -> None:
        self._coming = coming
        self._context = context
        self._waiting: dict[str, tuple[Row, asyncio.Future[Row | Reject]]] = {}
        self._block: GatherBlock | None = None

    def became(self, children: int) -> None:
        """A row on the way has become so many rows: 0 where it was refused."""
        self._coming += children - 1
        self._answer()

    async def meet(self, row: Row, block: GatherBlock) -> Row | Reject:
        """Wait for the others before ``block``; what becomes of ``row``."""
        future: asyncio.Future[Row | Reject] = asyncio.get_running_loop().create_future()
        if row.id in self._waiting:
            raise AssertionError(f"two rows of one branch have the id {row.id}")
        self._waiting[row.id] = (row, future)
        self._block = block
        self._answer()
        return await future

    def _answer(self) -> None:
        if self._block is None or not self._waiting or len(self._waiting) < self._coming:
            return
        met: Mapping[str, tuple[Row, asyncio.Future[Row | Reject]]] = dict(sorted(self._waiting.items()))
        self._waiting = {}
        answers = self._block.gather([row for row, _ in met.values()], self._context)
        for (_, future), answer in zip(met.values(), answers, strict=True):
            if not future.done():  # its row may have been cancelled
                future.set_result(answer)
