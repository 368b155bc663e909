"""The cache around a chat model."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ilab.core.memo import Memo
from ilab.data import Message
from ilab.errors import ServiceError
from ilab.models.cached import Cached
from ilab.models.chat import Reply, Request, Sampling
from ilab.testing.scripted import ScriptedModel


def request(text: str, seed: int | None = None, model: str = "m") -> Request:
    return Request(model, (Message(role="user", content=text),), Sampling(seed=seed))


@pytest.fixture
def memos(tmp_path: Path) -> Iterator[Callable[[], Memo]]:
    """Opens the same memo again and again, as later processes would."""
    opened: list[Memo] = []

    def memo() -> Memo:
        opened.append(Memo(tmp_path))
        return opened[-1]

    yield memo
    for found in opened:
        found.close()


class Slow(ScriptedModel):
    """Answers after a turn of the loop, so that requests overlap; sees what the memo held when it was asked."""

    async def complete(self, request: Request) -> Reply:
        await asyncio.sleep(0.01)
        return await super().complete(request)


def test_equal_requests_at_once_are_one_call(memos: Callable[[], Memo]) -> None:
    model = Slow(lambda request: request.messages[0].content.upper())

    async def run() -> list[Reply]:
        cached = Cached(model, memos())
        replies = await asyncio.gather(*(cached.complete(request(t)) for t in "abaab"))
        await cached.close()
        assert (cached.calls, cached.from_memo, cached.tokens) == (2, 0, 4)
        return replies

    assert [reply.text for reply in asyncio.run(run())] == list("ABAAB")
    assert len(model.requests) == 2


def test_answers_are_journalled_before_use_and_survive(memos: Callable[[], Memo]) -> None:
    model = ScriptedModel(lambda request: "answer")

    async def first() -> Reply:
        return await Cached(model, memos()).complete(request("a"))  # neither closed nor flushed

    async def second() -> Reply:
        return await Cached(model, memos()).complete(request("a"))

    made, found = asyncio.run(first()), asyncio.run(second())
    assert found == made
    assert (made.cached, found.cached) == (False, True)
    assert len(model.requests) == 1


def test_what_differs_in_the_request_is_another_call(memos: Callable[[], Memo]) -> None:
    model = ScriptedModel(lambda request: "answer")

    async def run() -> None:
        cached = Cached(model, memos())
        for one in (
            request("a"),
            request("a", seed=1),
            request("a", seed=2),
            request("a", model="n"),
            request("a"),
        ):
            await cached.complete(one)

    asyncio.run(run())
    assert len(model.requests) == 4


def test_failures_are_not_remembered_and_a_cancelled_caller_takes_nothing_from_others(
    memos: Callable[[], Memo],
) -> None:
    class Failing(Slow):
        async def complete(self, request: Request) -> Reply:
            reply = await super().complete(request)
            if len(self.requests) == 1:
                raise ServiceError("once", retryable=True)
            return reply

    async def run() -> None:
        cached = Cached(Failing(lambda request: "answer"), memos())
        with pytest.raises(ServiceError):
            await cached.complete(request("a"))
        leaving, staying = (asyncio.create_task(cached.complete(request("a"))) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).text == "answer"
        assert cached.calls == 3  # the one that failed, the one given up, and the one that was asked again

    asyncio.run(run())


class Full(Memo):
    """A memo on a disk that takes three answers and no more."""

    def put(self, key: str, value: object) -> None:
        if self.writes == 3:
            raise OSError(errno.ENOSPC, "the disk is full")
        super().put(key, value)


def test_once_an_answer_cannot_be_kept_nobody_asks_any_more(tmp_path: Path) -> None:
    """Two may ask at a time; who waits for a turn, and who comes later, would pay for nothing."""
    model = ScriptedModel(lambda request: "answer")
    turn = asyncio.Semaphore(2)

    class InTurn(Slow):
        async def complete(self, request: Request) -> Reply:
            async with turn:
                await asyncio.sleep(0.01)
                return await model.complete(request)

    async def run() -> list[Reply | BaseException]:
        memo = Full(tmp_path)
        cached = Cached(InTurn(lambda request: ""), memo)
        asked = await asyncio.gather(*(cached.complete(request(t)) for t in "abcdefgh"), return_exceptions=True)
        later = await asyncio.gather(cached.complete(request("i")), return_exceptions=True)
        memo.close()
        return [*asked, *later]

    kept, full, *others = asyncio.run(run())[2:]
    assert isinstance(kept, Reply)
    assert isinstance(full, OSError)
    assert all(isinstance(other, (OSError, asyncio.CancelledError)) for other in others)
    assert len(model.requests) == 4
