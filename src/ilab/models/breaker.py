"""A circuit breaker that waits out an outage instead of failing row after row.

Several failures in a row, with no success between them, open it. While it is open nobody sends anything; one small
probe goes out now and then, and the first that succeeds lets everybody go on. The probe is a request of its own,
not one of those that failed: a single request that the server cannot bear must not look like an outage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ilab.errors import ServiceError

IN_A_ROW = 5  # failures that open the breaker; by chance at 5 % of failing calls: 3 in ten million
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds between probes


class Breaker:
    """``probe`` sends one small request and says whether the server answered it; ``limit`` is in seconds."""

    def __init__(self, probe: Callable[[], Awaitable[bool]], limit: float, where: str) -> None:
        self._probe = probe
        self._limit = limit
        self._where = where
        self._failures = 0
        self._recovery: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        return self._recovery is not None

    async def healthy(self) -> None:
        """Return once requests may be sent. Raises ``ServiceError`` when the outage outlasts the limit."""
        if self._recovery is not None:
            await asyncio.shield(self._recovery)

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= IN_A_ROW and self._recovery is None:
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def close(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
            self._recovery = None
        self._failures = 0

    async def _recover(self) -> None:
        began, delay = time.monotonic(), FIRST_DELAY
        while True:
            await asyncio.sleep(delay)
            if await self._probe():
                self._failures = 0
                self._recovery = None
                return
            if time.monotonic() - began > self._limit:
                raise ServiceError(
                    f"the server has been failing for {self._limit:.0f} seconds",
                    where=self._where,
                    hint="every answer so far is kept: bring the server back and run the same command again",
                )
            delay = min(2 * delay, LONGEST_DELAY)
