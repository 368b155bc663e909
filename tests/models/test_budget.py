"""The adaptive budget of requests in flight."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from ilab.models.budget import Budget


def test_real_overload_halves_and_success_gives_back() -> None:
    async def run() -> list[int]:
        budget = Budget(64)
        limits = [budget.limit]
        for _ in range(3):
            tickets = [budget._epoch] * 64
            for ticket in tickets:  # one round trip in which everything is refused counts once
                budget.answered(ticket, overloaded=True)
            limits.append(budget.limit)
        for _ in range(10_000):
            budget.answered(budget._epoch, overloaded=False)
        limits.append(budget.limit)
        return limits

    assert asyncio.run(run()) == [64, 32, 16, 8, 64]


def test_stray_signals_leave_the_limit_where_it_is() -> None:
    budget = Budget(200)
    draw = random.Random(1)
    lowest = 200
    for _ in range(5000):
        budget.answered(0, overloaded=draw.random() < 0.05)
        lowest = min(lowest, budget.limit)
    assert lowest == 200


def test_limit_never_leaves_its_range() -> None:
    budget = Budget(3)
    for _ in range(50):
        budget.answered(budget._epoch, overloaded=True)
    assert budget.limit == 1


@given(st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=30))
def test_slots_are_neither_lost_nor_doubled_when_waiters_are_cancelled(ceiling: int, cancelled: list[bool]) -> None:
    async def run() -> tuple[int, int]:
        budget = Budget(ceiling)

        async def hold() -> None:
            await budget.acquire()
            try:
                await asyncio.sleep(0)
            finally:
                budget.release()

        tasks = [asyncio.create_task(hold()) for _ in cancelled]
        await asyncio.sleep(0)
        for task, stop in zip(tasks, cancelled, strict=True):
            if stop:
                task.cancel()
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        return budget.active, budget.peak

    active, peak = asyncio.run(run())
    assert active == 0
    assert peak <= ceiling
