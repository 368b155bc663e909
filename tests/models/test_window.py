"""Prompts are measured before they are sent, and what does not fit costs nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.allowance import Allowance, CountedMemo
from ilab.config import Endpoint
from ilab.data import Message
from ilab.models.cached import Cached
from ilab.models.chat import Request, Sampling
from ilab.models.openai import OpenAIModel
from ilab.models.tokens import counter
from ilab.models.window import LEAST_ANSWER, TooLong, fit, too_long
from ilab.testing.teacher import Features, Teacher, serve


def echo(body: dict[str, Any]) -> str:
    return "an answer"


def request(text: str, **sampling: Any) -> Request:
    return Request("teacher", (Message(role="user", content=text),), Sampling(**sampling))


class Asked:
    """One request through cache and client: what came back, and what it cost."""

    def __init__(self, teacher: Teacher, one: Request, folder: Path, **endpoint: Any) -> None:
        self.allowance = Allowance(calls=5)
        memo = CountedMemo(folder, self.allowance)
        self.cached = Cached(OpenAIModel(Endpoint(url=teacher.url, **endpoint), backoff=0.02), memo)
        self.error: TooLong | None = None
        try:
            self.reply = asyncio.run(self._run(one))
        except TooLong as error:
            self.error = error
        memo.close()

    async def _run(self, one: Request) -> Any:
        try:
            return await self.cached.complete(one)
        finally:
            await self.cached.close()


def test_a_prompt_that_cannot_fit_costs_nothing(tmp_path: Path) -> None:
    with serve(echo, features=Features(context_length=200)) as teacher:
        asked = Asked(teacher, request("word " * 180, max_tokens=100), tmp_path)
    assert asked.error is not None
    assert asked.error.message == (
        "225 tokens (estimated, one for 4 bytes) and an answer of at least 64 do not fit into 200"
    )
    assert teacher.calls == [] and (asked.cached.calls, asked.allowance.made) == (0, 0)


def test_the_answer_is_limited_to_what_fits_and_that_is_recorded(tmp_path: Path) -> None:
    one = request("word " * 80, max_tokens=300)  # 100 tokens by the estimate
    with serve(echo, features=Features(context_length=250)) as teacher:
        first = Asked(teacher, one, tmp_path)
        again = Asked(teacher, one, tmp_path)
    assert [call["max_tokens"] for call in teacher.calls] == [150]
    assert first.reply.reported["max_tokens"] == "150"
    assert again.reply == first.reply and again.reply.cached


def test_what_surely_fits_is_not_measured(tmp_path: Path) -> None:
    with serve(echo, features=Features(context_length=1000, tokenize=True)) as teacher:
        asked = Asked(teacher, request("word", max_tokens=900), tmp_path)
    assert teacher.counted == [] and "max_tokens" not in asked.reply.reported
    assert asked.allowance.made == 1


def test_the_servers_own_count_is_better_than_an_estimate(tmp_path: Path) -> None:
    one = request("word " * 180, max_tokens=100)  # 180 tokens for the server, 225 by the estimate
    with serve(echo, features=Features(context_length=290, tokenize=True)) as teacher:
        asked = Asked(teacher, one, tmp_path)
    assert [sorted(body) for body in teacher.counted] == [["messages", "model"]]
    assert "max_tokens" not in asked.reply.reported and teacher.calls[0]["max_tokens"] == 100


def test_a_tokenizer_at_hand_counts(tmp_path: Path, tiny_model: Path) -> None:
    text = "How many locks has the canal? It has 14 locks. " * 4
    tokens = counter(tiny_model)(text) + 16  # what a template puts around it
    with serve(echo, features=Features(context_length=tokens + 70, tokenize=True)) as teacher:
        asked = Asked(teacher, request(text, max_tokens=80), tmp_path, tokenizer=str(tiny_model))
    assert asked.reply.reported["max_tokens"] == "70" and teacher.counted == []


def test_a_served_name_that_is_a_folder_has_its_tokenizer_there(tmp_path: Path, tiny_model: Path) -> None:
    name = str(tiny_model)
    one = Request(name, (Message(role="user", content="How many locks? " * 9),), Sampling(max_tokens=80))
    tokens = counter(tiny_model)(one.messages[0].content) + 16
    with serve(echo, features=Features(context_length=tokens + 70), models=(name,)) as teacher:
        asked = Asked(teacher, one, tmp_path)
    assert asked.reply.reported["max_tokens"] == "70"


def test_the_window_that_is_set_counts_before_the_servers(tmp_path: Path) -> None:
    with serve(echo) as teacher:
        asked = Asked(teacher, request("word " * 100, max_tokens=100), tmp_path, context=120)
    assert asked.error is not None and teacher.calls == []


def test_numbers_in_a_refusal_count_where_the_estimate_was_too_low(tmp_path: Path) -> None:
    short = "a " * 100  # 100 tokens for the server, 50 by the estimate
    with serve(echo, features=Features(context_length=180, strict=True)) as teacher:
        asked = Asked(teacher, request(short, max_tokens=120), tmp_path / "a")
        refused = Asked(teacher, request("b " * 150, max_tokens=100), tmp_path / "b")
    assert [call["max_tokens"] for call in teacher.calls] == [120, 80, 100]
    assert asked.reply.reported["max_tokens"] == "80"
    assert refused.error is not None and refused.error.prompt == 150


def test_several_choices_of_what_is_too_long_are_refused_once(tmp_path: Path) -> None:
    with serve(echo, features=Features(context_length=180, strict=True)) as teacher:
        asked = Asked(teacher, request("b " * 150, max_tokens=100, n=5), tmp_path)
    assert asked.error is not None and len(teacher.calls) == 1


def test_who_has_the_answer_needs_no_server(tmp_path: Path) -> None:
    one = request("word", max_tokens=9)
    with serve(echo) as teacher:
        first = Asked(teacher, one, tmp_path)
    again = Asked(teacher, one, tmp_path)  # the server is gone
    assert again.reply == first.reply and again.cached.from_memo == 1 and again.allowance.made == 0


SAID = {
    "vLLM": (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4500 in the messages, "
        "500 in the completion). Please reduce the length of the messages or completion.",
        (4500, 4096),
    ),
    "vLLM, newer": (
        "'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum context length is 2048 tokens "
        "and your request has 512 input tokens (2048 > 2048 - 512).",
        (512, 2048),
    ),
    "OpenAI": (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. Please "
        "reduce the length of the messages.",
        (None, 8192),
    ),
    "this project's server": ("the prompt has 600 tokens; the context holds 512, answer included", (600, 512)),
}


@pytest.mark.parametrize("server", SAID)
def test_what_servers_say_of_their_window(server: str) -> None:
    said, numbers = SAID[server]
    raw = json.dumps({"error": {"message": said, "code": "context_length_exceeded"}}).encode()
    refusal = too_long(400, said, raw, "here")
    assert refusal is not None and (refusal.prompt, refusal.window) == numbers


def test_llama_cpp_gives_its_numbers_beside_the_message() -> None:
    said = "the request exceeds the available context size, try increasing it"
    told = {"message": said, "type": "exceed_context_size_error", "n_prompt_tokens": 700, "n_ctx": 512}
    refusal = too_long(400, said, json.dumps({"error": told}).encode(), "here")
    assert refusal is not None and (refusal.prompt, refusal.window) == (700, 512)


@pytest.mark.parametrize(
    "said", ["this model does not like the word context", "temperature is too large", "max_tokens must be at least 1"]
)
def test_other_refusals_are_no_matter_of_length(said: str) -> None:
    assert too_long(400, said, json.dumps({"error": {"message": said}}).encode(), "here") is None
    assert too_long(500, "maximum context length is 5", b"", "here") is None


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.none() | st.integers(1, 10_000))
def test_an_answer_is_never_longer_than_asked_nor_than_fits(prompt: int, window: int, wanted: int | None) -> None:
    one = request("x", max_tokens=wanted)
    try:
        fitted = fit(one, prompt, window)
    except TooLong:
        assert window - prompt < (LEAST_ANSWER if wanted is None else min(wanted, max(LEAST_ANSWER, wanted / 4)))
        return
    limit = fitted.sampling.max_tokens
    assert wanted is None or (limit is not None and 1 <= limit <= wanted and prompt + limit <= window)
    assert (fitted is one) == (limit == wanted)
