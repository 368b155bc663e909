"""One budget of requests in flight for an endpoint, adapted to what the server bears.

It starts at the configured ceiling and falls only on signals: when more than a fifth of the answers of one window
say "too much" (429, 503, time-out), the limit is halved; each window without that gives back a sixteenth of the
ceiling. A window is as many answers as the limit allows at once, so about one round trip. Stray signals (a few per
cent) change nothing: halving on each of them would leave a handful of requests in flight on a healthy server.
Signals of requests that were sent before the last halving are ignored, they say nothing about the new limit.
(Additive increase, multiplicative decrease: Chiu and Jain, 1989.)
"""

from __future__ import annotations

import asyncio
from collections import deque

SHARE = 0.2  # of a window's answers: above it the server is overloaded
SMALLEST_WINDOW = 10  # answers; fewer would make one stray signal a fifth


class Budget:
    """A fair semaphore whose ``limit`` moves between 1 and ``ceiling``. ``peak`` is the most that was in
    flight.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = ceiling
        self.active = 0
        self.peak = 0
        self._epoch = 0
        self._answers = 0
        self._signals = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> int:
        """Wait for a slot; returns a ticket for :meth:`answered`."""
        if self.active < self.limit and not self._waiters:
            self._take()
            return self._epoch
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # the slot had just been handed over
            raise
        return self._epoch

    def release(self) -> None:
        """Give a slot back."""
        self.active -= 1
        self._wake()

    def answered(self, ticket: int, overloaded: bool) -> None:
        """Tell what became of the request that got ``ticket``."""
        if ticket != self._epoch:
            return
        window = max(self.limit, SMALLEST_WINDOW)
        self._answers += 1
        self._signals += overloaded
        if self._signals > SHARE * window:
            self.limit = max(1, self.limit // 2)
            self._epoch += 1
        elif self._answers >= window:
            self.limit = min(self.ceiling, self.limit + max(1, self.ceiling // 16))
        else:
            return
        self._answers = self._signals = 0
        self._wake()

    def _take(self) -> None:
        self.active += 1
        self.peak = max(self.peak, self.active)

    def _wake(self) -> None:
        while self._waiters and self.active < self.limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._take()
                waiter.set_result(None)
