"""A cache around any chat model: an answer is journalled before it is used, and asked for once.

The key is the content of the request (model, messages, sampling with its seed), not where it was sent: the same
command after a kill repeats only the calls that were in flight. Equal requests that run at once share one call.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from ilab.core.memo import Memo
from ilab.core.step import fingerprint
from ilab.models.chat import ChatModel, Choice, Reply, Request


class Cached:
    """A :class:`ChatModel`. ``calls``, ``from_memo`` and ``tokens`` (of calls made) count since it was made."""

    def __init__(self, model: ChatModel, memo: Memo) -> None:
        self.calls = 0
        self.from_memo = 0
        self.tokens = 0
        self._model = model
        self._memo = memo
        self._in_flight: dict[str, asyncio.Task[Reply]] = {}

    async def complete(self, request: Request) -> Reply:
        key = fingerprint("chat", request.fields())
        task = self._in_flight.get(key)
        if task is None:
            stored = self._memo.get(key)
            if stored is not None:
                self.from_memo += 1
                return _from_json(stored)
            task = asyncio.get_running_loop().create_task(self._ask(key, request))
            task.add_done_callback(_look)
            self._in_flight[key] = task
        # Shielded: one caller that is cancelled must not take the answer from the others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        for task in list(self._in_flight.values()):
            task.cancel()
        await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        self._memo.flush()
        await self._model.close()

    async def _ask(self, key: str, request: Request) -> Reply:
        try:
            self.calls += 1
            reply = await self._model.complete(request)
            self.tokens += sum(reply.usage.values())
            self._memo.put(key, _to_json(reply))
            return reply
        finally:
            del self._in_flight[key]


def _look(task: asyncio.Task[Reply]) -> None:
    """Look at a task's error, so that asyncio does not complain when every caller was cancelled before it came."""
    if not task.cancelled():
        task.exception()


def _to_json(reply: Reply) -> dict[str, Any]:
    stored = asdict(reply)
    del stored["cached"]
    return stored


def _from_json(stored: dict[str, Any]) -> Reply:
    choices = tuple(Choice(**choice) for choice in stored["choices"])
    return Reply(choices, stored["usage"], stored["reported"], cached=True)
