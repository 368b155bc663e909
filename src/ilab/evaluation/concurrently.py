"""Many questions under way at once, the results in the order of the questions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ilab.errors import Stopped

T = TypeVar("T")
R = TypeVar("R")


async def each(
    items: Sequence[T],
    work: Callable[[T], Awaitable[R]],
    *,
    at_once: int,
    done: Callable[[int, R], None],
    stopping: Callable[[], bool],
) -> list[R]:
    """``work`` on every item, ``at_once`` of them at a time; ``done`` gets how many are finished and the latest.

    The first error cancels what is under way and is raised. Raises ``Stopped`` before the next item when asked to stop.
    """
    results: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for index, item in waiting:
            if stopping():
                raise Stopped("evaluation stopped", hint="the answers so far are kept; run the same command to go on")
            results[index] = await work(item)
            done(len(results), results[index])

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(items))):
                group.create_task(worker())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [results[index] for index in range(len(items))]
