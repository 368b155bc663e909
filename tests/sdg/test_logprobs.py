"""The block that keeps log probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from ilab.core.memo import Memo
from ilab.models.cached import Cached
from ilab.models.chat import Choice, Reply, Request
from ilab.sdg.block import Context, Reject, Row
from ilab.sdg.blocks.logprobs import Logprobs
from ilab.testing.scripted import ScriptedModel

TOKENS = ({"token": "Yes", "logprob": -0.1, "top": {"Yes": -0.1, "No": -2.4}},)


class Server:
    """Answers with log probabilities from its third call on."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        return Reply((Choice("Yes", logprobs=TOKENS if len(self.requests) > 2 else None),))

    async def close(self) -> None:
        """Nothing is held open."""


def test_tokens_come_with_their_log_probabilities(memos: Callable[[str], Memo]) -> None:
    server = Server()
    context = Context(memos("rows"), 42, 1, Cached(server, memos("teacher")), "m")
    block = Logprobs(name="sure", prompt="Is it? {{ q }}", output="said", logprobs="how", top=5)
    assert block.adds() == {"said", "how"}
    [row] = asyncio.run(block(Row("k#1", "k", {"q": "x"}), context))
    assert row.columns == {"q": "x", "said": "Yes", "how": [dict(TOKENS[0])]}
    assert len(server.requests) == 3  # without log probabilities an answer cannot be read
    assert {request.sampling.fields()["top_logprobs"] for request in server.requests} == {5}
    again = asyncio.run(block(Row("k#1", "k", {"q": "x"}), context))
    assert [found.columns for found in again] == [row.columns]  # the same from the memo


def test_a_server_without_them_costs_a_row_not_a_run(memos: Callable[[str], Memo]) -> None:
    silent = ScriptedModel(lambda request: "Yes")
    context = Context(memos("rows"), 42, 1, Cached(silent, memos("teacher")), "m")
    with pytest.raises(Reject, match="the answer cannot be read"):
        asyncio.run(Logprobs(name="sure", prompt="Is it?")(Row("k#2", "k", {}), context))
    assert len(silent.requests) == 3


def test_the_answer_is_kept_whole() -> None:
    with pytest.raises(ValidationError, match="name only output"):
        Logprobs(name="sure", prompt="?", tags={"a": "A"})
