"""Log-probabilities, several choices and answers of a form: against the model itself and a validator."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import jsonschema
import pytest
import torch

from ilab.models.local import LocalModel

MESSAGES = [{"role": "user", "content": "How many locks has the canal?"}]
SCHEMA = {
    "type": "object",
    "properties": {"locks": {"type": "integer"}, "open": {"type": "boolean"}, "of": {"enum": ["a", "b"]}},
    "required": ["locks", "open", "of"],
}


def ask(url: str, **body: Any) -> tuple[int, Any]:
    async def talk() -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as reply:
            if body.get("stream"):
                lines = (await reply.text()).split("\n\n")
                return reply.status, [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
            return reply.status, await reply.json()

    return asyncio.run(talk())


def reference(local: LocalModel, prompt: list[int], count: int) -> tuple[list[int], list[torch.Tensor]]:
    """The greedy answer, and the log-probabilities at each of its places, computed without a cache."""
    ids, logs = list(prompt), []
    for _ in range(count):
        logs.append(local.logits(torch.tensor([ids]))[0, -1].double().log_softmax(-1))
        ids.append(int(logs[-1].argmax()))
    return ids[len(prompt) :], logs


def test_chat_logprobs_are_the_models(base_url: str, local: LocalModel) -> None:
    body = {"messages": MESSAGES, "max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    _, answer = ask(f"{base_url}/chat/completions", **body)
    ids, logs = reference(local, local.renderer.prompt_ids(MESSAGES), 6)
    found = answer["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in found] == [local.renderer.decode([number], keep_special=True) for number in ids]
    for entry, number, log in zip(found, ids, logs, strict=True):
        assert entry["logprob"] == pytest.approx(log[number].item(), abs=1e-4)
        best = log.topk(3)
        assert [one["logprob"] for one in entry["top_logprobs"]] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert entry["bytes"] in (None, list(entry["token"].encode()))
    _, events = ask(f"{base_url}/chat/completions", **body, stream=True)
    streamed = [choice["logprobs"] for event in events for choice in event["choices"] if choice["logprobs"]]
    assert [entry for part in streamed for entry in part["content"]] == found


def test_text_logprobs_are_the_models(base_url: str, local: LocalModel) -> None:
    body = {"prompt": "Note: ", "max_tokens": 5, "temperature": 0, "logprobs": 2}
    _, answer = ask(f"{base_url}/completions", **body)
    ids, logs = reference(local, local.renderer.encode_text("Note: "), 5)
    found = answer["choices"][0]["logprobs"]
    own = [log[number].item() for log, number in zip(logs, ids, strict=True)]
    assert found["token_logprobs"] == pytest.approx(own, abs=1e-4)
    assert [max(top.values()) for top in found["top_logprobs"]] == pytest.approx(own, abs=1e-4)
    assert found["text_offset"] == [sum(map(len, found["tokens"][:at])) for at in range(5)]
    _, events = ask(f"{base_url}/completions", **body, stream=True)
    offsets = [at for event in events for c in event["choices"] if c["logprobs"] for at in c["logprobs"]["text_offset"]]
    assert offsets == found["text_offset"]


def test_several_choices(base_url: str) -> None:
    body = {"messages": MESSAGES, "max_tokens": 8, "temperature": 1.5, "seed": 3, "n": 3}
    status, answer = ask(f"{base_url}/chat/completions", **body)
    assert status == 200
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert ask(f"{base_url}/chat/completions", **body)[1]["choices"] == answer["choices"]
    alone = ask(f"{base_url}/chat/completions", **{**body, "n": 1})[1]
    assert alone["choices"][0]["message"]["content"] == texts[0]
    assert answer["usage"]["completion_tokens"] > alone["usage"]["completion_tokens"]
    _, events = ask(f"{base_url}/chat/completions", **body, stream=True)
    for index, text in enumerate(texts):
        parts = [choice["delta"] for event in events for choice in event["choices"] if choice["index"] == index]
        assert "".join(part.get("content", "") for part in parts) == text


@pytest.mark.parametrize("temperature", [0, 1.3])
def test_answers_of_a_schema(base_url: str, temperature: float) -> None:
    """A random model writes what it likes least, if it must."""
    wanted = {"type": "json_schema", "json_schema": {"name": "canal", "schema": SCHEMA, "strict": True}}
    body = {"messages": MESSAGES, "seed": 1, "temperature": temperature, "response_format": wanted, "max_tokens": 200}
    _, answer = ask(f"{base_url}/chat/completions", **body)
    choice = answer["choices"][0]
    if choice["finish_reason"] == "stop":
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    else:  # it never came to the end of a number
        assert choice["message"]["content"].startswith("{")
    _, events = ask(f"{base_url}/chat/completions", **body, stream=True)
    pieces = [c["delta"].get("content", "") for event in events for c in event["choices"]]
    assert "".join(pieces) == choice["message"]["content"]


def test_an_answer_that_is_an_object(base_url: str) -> None:
    schema = {"type": "object", "properties": {"ok": {"const": "größe 東"}}, "required": ["ok"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    _, answer = ask(f"{base_url}/chat/completions", messages=MESSAGES, temperature=0, response_format=wanted)
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"ok": "größe 東"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    _, free = ask(
        f"{base_url}/chat/completions",
        messages=MESSAGES,
        temperature=0,
        max_tokens=12,
        response_format={"type": "json_object"},
    )
    assert free["choices"][0]["message"]["content"].startswith("{")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"type": "json_schema"}, "needs json_schema.schema"),
        ({"type": "yaml"}, "'text', 'json_object' or 'json_schema'"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "string", "format": "date"}}}, "'format'"),
    ],
)
def test_forms_that_cannot_be_kept_are_refused(base_url: str, wanted: Any, words: str) -> None:
    status, answer = ask(f"{base_url}/chat/completions", messages=MESSAGES, response_format=wanted)
    assert status == 400
    assert words in answer["error"]["message"]
