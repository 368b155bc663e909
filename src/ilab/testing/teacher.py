"""An OpenAI-compatible server on loopback that answers by a script and fails on demand.

    with serve(faults=Faults(share=0.05, kinds=("500", "reset"))) as teacher:
        client = OpenAIModel(Endpoint(url=teacher.url))

It speaks ``/v1/models`` and ``/v1/chat/completions`` in a thread of its own, keeps what it was asked, and knows
how many requests it had at once. It is a real server: the tests of the client go through real sockets.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from ilab.data import digest_text, seed_from

Fault = Literal[
    "400",
    "500",
    "503",
    "429",
    "429-seconds",
    "429-date",
    "reset",
    "silent",
    "malformed",
    "empty",
    "truncated",
    "untagged",
]
Script = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Faults:
    """Which calls go wrong. Calls are counted from 0 as they come in.

    ``plan`` names them one by one; of the others a ``share`` is drawn by ``seed``, with ``kinds`` in turn. After
    call ``outage_after`` the server answers 503 to everything for ``outage`` seconds.
    """

    plan: Mapping[int, Fault] = field(default_factory=dict)
    share: float = 0.0
    kinds: tuple[Fault, ...] = ()
    seed: int = 0
    outage_after: int | None = None
    outage: float = 0.0

    def of(self, call: int) -> Fault | None:
        if call in self.plan:
            return self.plan[call]
        if self.kinds and seed_from(f"call {call}", self.seed) / 2**63 < self.share:
            return self.kinds[seed_from(f"kind {call}", self.seed) % len(self.kinds)]
        return None


class Teacher:
    """What a test sees of the server: its ``url``, the request bodies, the most requests it had at once."""

    def __init__(self, script: Script, faults: Faults, models: tuple[str, ...], latency: float, key: str) -> None:
        self.url = ""
        self.calls: list[dict[str, Any]] = []
        self.faulty: list[Fault] = []
        self.peak = 0
        self._script = script
        self._faults = faults
        self._models = models
        self._latency = latency
        self._key = key
        self._active = 0
        self._down_until: float | None = None

    async def list_models(self, request: web.Request) -> web.Response:
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            return _error(401, f"wrong key: {request.headers.get('Authorization')}")
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self._models]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = len(self.calls)
        self.calls.append(body)
        self._active += 1
        self.peak = max(self.peak, self._active)
        try:
            await asyncio.sleep(self._latency)
            if self._down(number):
                return _error(503, "the server is down")
            fault = self._faults.of(number)
            if fault is not None:
                self.faulty.append(fault)
            return await self._answer(request, body, fault)
        finally:
            self._active -= 1

    def _down(self, number: int) -> bool:
        after = self._faults.outage_after
        if after is None or number < after:
            return False
        if self._down_until is None:
            self._down_until = time.monotonic() + self._faults.outage
        return time.monotonic() < self._down_until

    async def _answer(self, request: web.Request, body: dict[str, Any], fault: Fault | None) -> web.StreamResponse:
        match fault:
            case "400":
                return _error(400, "this request is too long for the model")
            case "500" | "503" | "429":
                return _error(int(fault), "injected")
            case "429-seconds":
                return _error(429, "injected", {"Retry-After": "1"})
            case "429-date":
                return _error(429, "injected", {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)})
            case "reset":
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            case "silent":
                await asyncio.sleep(60)
                return web.Response()
            case "malformed":
                return web.Response(text='{"choices": [{"message"', content_type="application/json")
            case "empty":
                return web.json_response({"choices": []})
        text = self._script(body)
        if fault == "truncated":
            text = text[: len(text) // 2]
        elif fault == "untagged":
            text = "I am sorry, I would rather talk about something else."
        return web.json_response(_completion(body, text, "length" if fault == "truncated" else "stop"))


def answer_by_rule(body: dict[str, Any]) -> str:
    """Answers the prompts of the ``simple`` flow from their own text, alike for equal requests.

    Knowledge: a sentence of the last passage, chosen by the request's seed, is the answer to a question about its
    first words. Skills: the example with a number put behind question, context and answer.
    """
    prompt = body["messages"][-1]["content"]
    seed = int(body.get("seed") or int(digest_text(prompt)[:8], 16))
    passages = re.findall(r"\[PASSAGE\]\s*(.*?)\s*\[/PASSAGE\]", prompt, re.DOTALL)
    if passages:
        sentences = [found.strip() for found in re.split(r"(?<=[.!?])\s+", passages[-1]) if found.strip()]
        sentence = sentences[seed % len(sentences)]
        about = " ".join(sentence.split()[:5]).strip(".")
        return f"[QUESTION]\nWhat is known of {about}?\n[/QUESTION]\n[ANSWER]\n{sentence}\n[/ANSWER]"
    number = seed % 1_000_003
    parts = []
    for tag in ("CONTEXT", "QUESTION", "ANSWER"):
        found = re.search(rf"\[{tag}\]\s*(.*?)\s*\[/{tag}\]", prompt, re.DOTALL)
        if found:
            parts.append(f"[{tag}]\n{found.group(1)} {number}\n[/{tag}]")
    return "\n".join(parts) or f"I have nothing to say about it ({number})."


@contextmanager
def serve(
    script: Script = answer_by_rule,
    *,
    faults: Faults | None = None,
    models: tuple[str, ...] = ("teacher",),
    latency: float = 0.0,
    key: str = "",
) -> Iterator[Teacher]:
    """Serve on a free port of 127.0.0.1 while the block runs. ``latency`` in seconds; ``key`` is asked for."""
    teacher = Teacher(script, faults or Faults(), models, latency, key)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    runner = web.AppRunner(_application(teacher), shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        teacher.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, name="teacher", daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the test server did not start")
    try:
        yield teacher
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def _application(teacher: Teacher) -> web.Application:
    application = web.Application(client_max_size=2**26)
    application.router.add_get("/v1/models", teacher.list_models)
    application.router.add_post("/v1/chat/completions", teacher.complete)
    return application


def _completion(body: dict[str, Any], text: str, finish: str) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    asked = sum(len(message["content"].split()) for message in body["messages"])
    return {
        "object": "chat.completion",
        "model": body["model"],
        "system_fingerprint": "scripted",
        "choices": [{"index": index, **choice} for index in range(body.get("n", 1))],
        "usage": {"prompt_tokens": asked, "completion_tokens": len(text.split())},
    }


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = json.dumps({"error": {"message": message}})
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)
