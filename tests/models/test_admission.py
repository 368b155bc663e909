"""What a flow needs of an endpoint is compared with what it can do, before anything is paid."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ilab.config import Endpoint
from ilab.data import Message
from ilab.errors import ServiceError
from ilab.models.ability import INSTEAD, WORDS, Ability, Need
from ilab.models.admission import Admission
from ilab.models.chat import Reply, Request, Sampling
from ilab.models.openai import OpenAIModel
from ilab.testing.teacher import Features, Teacher, serve

NONE = Features(n="refused", logprobs="refused", json="ignored", choice="refused", completions=False)


def echo(body: dict[str, Any]) -> str:
    return "an answer"


def need(ability: Ability | None, block: str = "likely", line: int = 12) -> Need:
    return Need(ability, block, f"flow.yaml:{line}")


def admit(
    teacher: Teacher,
    needs: Mapping[str, Sequence[Need]],
    cache: Path | None = None,
    models: Sequence[str] = ("teacher",),
) -> tuple[list[Reply], list[str]]:
    """Four requests to each of ``models`` at once, and the lines that were told."""
    told: list[str] = []
    endpoint = Endpoint(url=teacher.url)

    async def run() -> list[Reply]:
        model = OpenAIModel(endpoint, admission=Admission(endpoint, needs, cache=cache, tell=told.append))

        async def one(name: str, number: int) -> Reply:
            asked = Request(name, (Message(role="user", content=f"say {number}"),), Sampling(max_tokens=5))
            return await model.complete(await model.admit(asked))

        try:
            return await asyncio.gather(*(one(name, number) for number in range(4) for name in models))
        finally:
            await model.close()

    return asyncio.run(run()), told


def test_without_needs_nothing_is_probed() -> None:
    with serve(echo) as teacher:
        replies, told = admit(teacher, {})
    assert len(replies) == len(teacher.calls) == 4 and told == []


def test_what_cannot_be_replaced_is_refused_with_block_line_and_the_servers_words() -> None:
    with serve(echo, features=NONE) as teacher, pytest.raises(ServiceError) as caught:
        admit(teacher, {"teacher": [need("logprobs"), need("n", "draws", 30), need("logprobs", "other", 40)]})
    assert caught.value.message == (
        "the flow needs what 'teacher' cannot do here:"
        "\n  flow.yaml:12: block 'likely' needs log probabilities: HTTP 400: logprobs are not supported by this model"
        "\n  flow.yaml:40: block 'other' needs log probabilities: HTTP 400: logprobs are not supported by this model"
    )
    assert caught.value.where == teacher.url
    assert caught.value.hint.endswith(f"ilab endpoint check {teacher.url} --model teacher")
    assert all(call["messages"][0]["content"] == "ping" for call in teacher.calls)  # no request of the flow's
    assert not caught.value.retryable


def test_a_substitute_is_told_once_for_all_blocks() -> None:
    needs = [need("n", "draws"), need("n", "more"), need("json_schema"), need("choice", "pick"), need("completions")]
    with serve(echo, features=NONE) as teacher:
        replies, told = admit(teacher, {"teacher": needs})
    assert len(replies) == 4
    assert told == [
        f"teacher does not give {WORDS['n']} (for 'draws', 'more'): {INSTEAD['n']}",
        f"teacher does not give {WORDS['json_schema']} (for 'likely'): {INSTEAD['json_schema']}",
        f"teacher does not give {WORDS['choice']} (for 'pick'): {INSTEAD['choice']}",
        f"teacher does not give {WORDS['completions']} (for 'likely'): {INSTEAD['completions']}",
    ]


def test_only_what_is_needed_is_probed_and_once_for_all_runs(tmp_path: Path) -> None:
    with serve(echo) as teacher:
        for _ in range(3):
            admit(teacher, {"teacher": [need("logprobs")]}, tmp_path)
        probes = [call for call in teacher.calls if call["messages"][0]["content"] == "ping"]
    assert len(probes) == 2  # that it chats, and that it gives log probabilities


def test_a_name_that_is_not_served_is_refused_with_those_that_are_and_who_asks_for_it() -> None:
    with serve(echo, models=("granite", "mixtral")) as teacher:
        with pytest.raises(ServiceError) as caught:
            admit(teacher, {"granite": [], "granit": [need(None, "score", 7)]}, models=("granite",))
        assert "does not serve a model named 'granit'; asked for by 'score' (flow.yaml:7)" in caught.value.message
        assert "it serves: granite, mixtral" in caught.value.hint
        assert teacher.calls == []  # although the first request is for a model that is there
        with pytest.raises(ServiceError) as caught:
            admit(teacher, {})
        assert caught.value.message == "this server does not serve a model named 'teacher'"


def test_models_beside_those_of_the_flow_are_met_too() -> None:
    with serve(echo, models=("one", "two")) as teacher:
        replies, _ = admit(teacher, {"one": []}, models=("one", "two"))
    assert len(replies) == 8
