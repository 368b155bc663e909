"""A cache around any chat model: an answer is journalled before it is used, and asked for once.

The key is the content of the request (model, messages, sampling with its seed), not where it was sent: the same
command after a kill repeats only the calls that were in flight. Equal requests that run at once share one call. What
the memo does not have is shown to the model before it counts as a call: what cannot fit costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from ilab.core.memo import Memo
from ilab.models.chat import ChatModel, Choice, Reply, Request
from ilab.models.window import told_limit


@runtime_checkable
class Admitting(Protocol):
    """A model that looks at a request before it costs anything."""

    async def admit(self, request: Request) -> Request:
        """``request`` as it may be sent. Raises ``ServiceError`` for one that may not."""


@runtime_checkable
class Metered(Protocol):
    """A memo in front of which calls are counted."""

    async def room(self) -> None:
        """Wait while the calls under way decide whether another may be made. Then ``get`` counts it."""

    def failed(self) -> None:
        """A call that was counted gave no answer."""


class Cached:
    """A :class:`ChatModel`. ``calls``, ``from_memo`` and ``tokens`` (of calls made) count since it was made.

    With a ``family`` conversations are put into its format first (:mod:`ilab.models.family`).
    """

    def __init__(self, model: ChatModel, memo: Memo, family: str = "") -> None:
        self._family = family
        self.calls = 0
        self.from_memo = 0
        self.tokens = 0
        self._model = model
        self._memo = memo
        self._admit = model.admit if isinstance(model, Admitting) else None
        self._meter = memo if isinstance(memo, Metered) else None
        self._in_flight: dict[str, asyncio.Future[Reply]] = {}
        self._asking: set[asyncio.Task[Any] | None] = set()
        self._unkept: OSError | None = None

    async def complete(self, request: Request) -> Reply:
        """See :meth:`ChatModel.complete`. Who asks first makes the call; others who ask meanwhile share its outcome.

        When the first is cancelled, the next in turn asks again.
        """
        if self._family:
            from ilab.models.family import in_family

            request = in_family(request, self._family)
        key = request.key()
        while (running := self._in_flight.get(key)) is not None:
            await asyncio.wait([running])  # which, unlike awaiting it, passes no cancellation on
            if not running.cancelled():
                return running.result()
        self._in_flight[key] = running = asyncio.get_running_loop().create_future()
        try:
            asked = request if self._admit is None or key in self._memo else await self._admit(request)
            if self._meter is not None and key not in self._memo:
                await self._meter.room()
            stored = self._memo.get(key)
            if stored is not None:
                self.from_memo += 1
                reply = _from_json(stored)
            else:
                reply = await self._ask(key, request, asked)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                running.cancel()
            else:
                running.set_exception(error)
                running.exception()  # looked at, so that asyncio does not complain where nobody else waits
            raise
        finally:
            del self._in_flight[key]
        running.set_result(reply)
        return reply

    async def _ask(self, key: str, request: Request, asked: Request) -> Reply:
        """Ask for ``request`` as it was admitted, and keep the answer under ``key``; tell the meter if that fails."""
        try:
            return await self._answered(key, request, asked)
        except BaseException:
            if self._meter is not None:
                self._meter.failed()
            raise

    async def _answered(self, key: str, request: Request, asked: Request) -> Reply:
        if self._unkept is not None:
            raise self._unkept
        self.calls += 1
        task = asyncio.current_task()
        self._asking.add(task)
        try:
            reply = await self._model.complete(asked)
        finally:
            self._asking.discard(task)
        if asked is not request and "max_tokens" not in reply.reported:
            reply = told_limit(reply, asked)
        self.tokens += sum(reply.usage.values())
        try:
            self._memo.put(key, _to_json(reply))
        except OSError as error:
            self._unkept = error  # answers that cannot be kept would be paid for nothing: nobody asks any more
            for other in filter(None, self._asking):
                other.cancel()
            raise
        return reply

    def condition(self) -> dict[str, Any]:
        """What the model says of itself (:meth:`ilab.models.openai.OpenAIModel.condition`); empty where it does not."""
        asked: Callable[[], dict[str, Any]] | None = getattr(self._model, "condition", None)
        return asked() if asked is not None else {}

    async def close(self) -> None:
        self._memo.flush()
        await self._model.close()


def _to_json(reply: Reply) -> dict[str, Any]:
    return {"choices": [_choice(choice) for choice in reply.choices], "usage": reply.usage, "reported": reply.reported}


def _choice(choice: Choice) -> dict[str, Any]:
    stored: dict[str, Any] = {"text": choice.text, "finish_reason": choice.finish_reason}
    if choice.reasoning:
        stored["reasoning"] = choice.reasoning
    if choice.logprobs is not None:
        stored["logprobs"] = choice.logprobs
    return stored


def _from_json(stored: dict[str, Any]) -> Reply:
    choices = tuple(
        Choice(told["text"], told["finish_reason"], told.get("reasoning", ""), _tuple(told.get("logprobs")))
        for told in stored["choices"]
    )
    return Reply(choices, stored["usage"], stored["reported"], cached=True)


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
