"""Many questions under way at once, the results in the order of the questions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ilab.core.events import Emit
from ilab.errors import Stopped

T = TypeVar("T")
R = TypeVar("R")

PULSE = 0.25  # seconds between looks at whether to stop


async def each(
    items: Sequence[T],
    work: Callable[[T], Awaitable[R]],
    *,
    at_once: int,
    done: Callable[[int, R], None],
    stopping: Callable[[], bool],
    pulse: Callable[[], None] = lambda: None,
) -> list[R]:
    """``work`` on every item, ``at_once`` of them at a time; ``done`` gets how many are finished and the latest.

    The first error cancels what is under way and is raised. Raises ``Stopped`` when asked to stop, also while all wait
    for a server that is away. ``pulse`` is called four times a second.
    """
    results: dict[int, R] = {}
    waiting = iter(enumerate(items))

    def check() -> None:
        if stopping():
            raise Stopped("evaluation stopped", hint="the answers so far are kept; run the same command to go on")

    async def worker() -> None:
        for index, item in waiting:
            check()
            results[index] = await work(item)
            done(len(results), results[index])

    async def watch() -> None:
        while True:
            check()
            pulse()
            await asyncio.sleep(PULSE)

    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            workers = [group.create_task(worker()) for _ in range(min(at_once, len(items)))]
            if workers:
                await asyncio.wait(workers)
            watching.cancel()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [results[index] for index in range(len(items))]


def tell_outages(who: str, model: Any, emit: Emit) -> Callable[[], None]:
    """A ``pulse`` that says when the server behind ``model`` goes away and when it is back."""
    condition: Callable[[], dict[str, Any]] = getattr(model, "condition", dict)
    away = False

    def look() -> None:
        nonlocal away
        if bool(condition().get("waiting")) == away:
            return
        away = not away
        now = "does not answer: waiting for it (what was answered is kept)" if away else "answers again"
        emit.metric(note=f"the server of {who} {now}")

    return look
