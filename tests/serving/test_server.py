"""The server over real sockets, spoken to as any OpenAI client would."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import ilab
from ilab.errors import InputError, SetupError
from ilab.models.local import LocalModel
from ilab.serving.server import serve

MESSAGES = [{"role": "user", "content": "How many locks has the canal?"}]


def call(url: str, body: Any = None) -> tuple[int, Any]:
    async def talk() -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session:
            data = None if body is None else io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
            async with session.request("GET" if data is None else "POST", url, data=data) as reply:
                return reply.status, await reply.json()

    return asyncio.run(talk())


def stream(url: str, body: Any) -> tuple[list[Any], bool]:
    """The events of a streamed answer, and whether it ended with [DONE]."""

    async def talk() -> list[str]:
        async with aiohttp.ClientSession() as session, session.post(url, json={**body, "stream": True}) as reply:
            assert reply.headers["Content-Type"] == "text/event-stream"
            return (await reply.text()).split("\n\n")

    events = [event.removeprefix("data: ") for event in asyncio.run(talk()) if event]
    done = events[-1] == "[DONE]"
    return [json.loads(event) for event in events[: -1 if done else None]], done


def test_health_and_models(base_url: str) -> None:
    assert call(base_url.removesuffix("/v1") + "/health") == (200, {"status": "ok"})
    status, body = call(f"{base_url}/models")
    assert status == 200
    assert [(model["id"], model["max_model_len"]) for model in body["data"]] == [("tiny", 256)]


def test_chat_is_the_models_own_answer(base_url: str, local: LocalModel) -> None:
    prompt = local.renderer.prompt_ids(MESSAGES)
    ids = list(local.generate(prompt, 16, stop_ids=local.renderer.stop_ids))
    request = {"model": "tiny", "messages": MESSAGES, "max_tokens": 16, "temperature": 0}
    status, body = call(f"{base_url}/chat/completions", request)
    assert status == 200
    [choice] = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": local.renderer.decode(ids)}
    assert choice["finish_reason"] == ("length" if len(ids) == 16 else "stop")
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids), "total_tokens": len(prompt) + len(ids)}
    assert body["usage"] == usage
    events, done = stream(f"{base_url}/chat/completions", {**request, "stream_options": {"include_usage": True}})
    assert done
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [choice for event in events for choice in event["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in deltas) == choice["message"]["content"]
    assert deltas[-1]["finish_reason"] == choice["finish_reason"]
    assert events[-1]["usage"] == usage
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1


def test_text_completion(base_url: str, local: LocalModel) -> None:
    ids = list(local.generate(local.renderer.encode_text("Note: "), 8, stop_ids=local.renderer.stop_ids))
    request = {"model": "tiny", "prompt": "Note: ", "max_tokens": 8, "temperature": 0}
    status, body = call(f"{base_url}/completions", request)
    assert (status, body["choices"][0]["text"]) == (200, local.renderer.decode(ids))
    events, done = stream(f"{base_url}/completions", request)
    assert done
    assert "".join(event["choices"][0]["text"] for event in events) == local.renderer.decode(ids)


def test_seed_and_text_parts(base_url: str) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "How many locks "}, {"type": "text", "text": "?"}]}]
    body = {"messages": parts, "max_completion_tokens": 12, "seed": 11, "temperature": 1.2}
    whole = {**body, "messages": [{"role": "user", "content": "How many locks ?"}]}
    answers = [call(f"{base_url}/chat/completions", b)[1]["choices"][0]["message"] for b in (body, body, whole)]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    ("body", "status", "field", "words"),
    [
        (b"{", 400, None, "JSON"),
        ({}, 400, "messages", "required"),
        ({"messages": []}, 400, "messages", "at least 1"),
        (
            {"messages": [{"role": "end|>", "content": "x"}]},
            400,
            "messages.0.role",
            "'system', 'user' or 'assistant'",
        ),
        ({"messages": MESSAGES, "temperature": 9}, 400, "temperature", "less than or equal to 2"),
        ({"messages": MESSAGES, "n": 99}, 400, "n", "16"),
        ({"messages": MESSAGES, "top_logprobs": 2}, 400, None, "needs logprobs"),
        ({"messages": MESSAGES, "tools": [{}]}, 400, "tools", "at most 0"),
        ({"messages": MESSAGES, "model": "gpt"}, 404, "model", "this server has 'tiny'"),
        ({"messages": [{"role": "user", "content": "x" * 999}]}, 400, None, "the context holds 256"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, None, ""),
        ({"messages": [{"role": "user", "content": "x" * (5 << 20)}]}, 413, None, "Too Large"),
    ],
)
def test_bad_requests(base_url: str, body: Any, status: int, field: str | None, words: str) -> None:
    found, answer = call(f"{base_url}/chat/completions", body)
    assert found == status, answer
    error = answer["error"]
    assert words in error["message"]
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"
    code = "context_length_exceeded" if "context" in words else "model_not_found" if status == 404 else None
    assert error["code"] == code


def test_unknown_addresses_are_errors_in_openais_form(base_url: str) -> None:
    assert call(f"{base_url}/embeddings", {})[1]["error"]["message"] == "POST /v1/embeddings: Not Found"
    assert call(f"{base_url}/chat/completions")[0] == 405


class Gate:
    """Stands in for generation: gives tokens while it is open, and tells when it was given up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.started, self.closed = threading.Event(), threading.Event()
        self.error = error
        monkeypatch.setattr(LocalModel, "generate", lambda model, *rest: self.tokens(model))

    def tokens(self, model: LocalModel) -> Iterator[int]:
        [number] = model.renderer.encode_text("a")
        try:
            for count in range(200):
                yield number
                self.started.set()
                if self.error and count == 3:
                    raise self.error
                self.closed.wait(0.02)
        finally:
            self.closed.set()


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_stops_its_answer(base_url: str, monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    gate = Gate(monkeypatch)

    async def leave() -> None:
        async with aiohttp.ClientSession() as session:
            body = {"messages": MESSAGES, "stream": streamed}
            task = asyncio.create_task(session.post(f"{base_url}/chat/completions", json=body).__aenter__())
            await asyncio.to_thread(gate.started.wait, 30)
            if streamed:
                (await task).close()
            else:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(leave())
    assert gate.closed.wait(30)
    monkeypatch.undo()
    assert call(f"{base_url}/chat/completions", {"messages": MESSAGES, "max_tokens": 2})[0] == 200


def test_an_error_in_the_middle_is_told(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Gate(monkeypatch, InputError("it diverged", hint="use an earlier checkpoint"))
    events, done = stream(f"{base_url}/chat/completions", {"messages": MESSAGES})
    assert not done
    assert "it diverged" in events[-1]["error"]["message"]
    assert call(f"{base_url}/chat/completions", {"messages": MESSAGES})[0] == 400


def test_a_bug_does_not_leave_a_client_waiting(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Gate(monkeypatch, ZeroDivisionError())

    async def status() -> int:
        url = f"{base_url}/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json={"messages": MESSAGES}) as reply:
            return reply.status

    assert asyncio.run(status()) == 500


def test_requests_wait_their_turn(base_url: str) -> None:
    body = {"messages": MESSAGES, "max_tokens": 10, "temperature": 0}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: call(f"{base_url}/chat/completions", body), range(4)))
    assert {status for status, _ in answers} == {200}
    assert len({answer["choices"][0]["message"]["content"] for _, answer in answers}) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_server(tiny_model: Path, number: signal.Signals) -> None:
    code = (
        "import sys; from pathlib import Path; from ilab.serving.server import serve\n"
        "print(serve(Path(sys.argv[1]), port=0, on_ready=lambda url: print(url, flush=True)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(ilab.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code, tiny_model], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert call(f"{url}/models")[1]["data"][0]["id"] == "tiny"
        process.send_signal(number)
        assert process.stdout.readline().strip() == str(int(number))
        assert process.wait(30) == 0


def test_a_port_that_is_taken(tiny_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} of 127.0.0.1 is taken") as caught:
            serve(tiny_model, port=port)
    assert "add --port " in caught.value.hint
    with pytest.raises(SetupError, match="is not known"):
        serve(tiny_model, host="no.such.host.invalid")
    with pytest.raises(InputError, match="no port 99999"):
        serve(tiny_model, port=99999)
