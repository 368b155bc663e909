"""An OpenAI-compatible server on loopback that answers by a script and fails on demand.

    with serve(faults=Faults(share=0.05, kinds=("500", "reset"))) as teacher:
        client = OpenAIModel(Endpoint(url=teacher.url))

It speaks ``/v1/models``, ``/v1/chat/completions`` and ``/v1/completions`` in a thread of its own, keeps what it was
asked, and knows how many requests it had at once. :class:`Features` says what it can do, as servers differ. It is a
real server: the tests of the client go through real sockets, with TLS where a context is given.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import ssl
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
    "wrong-n",
]
Script = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Features:
    """What the server can do. What it cannot is refused with 400, a missing path with 404; ``ignored`` says nothing.

    ``reasoning`` is told beside every answer; ``seed`` off draws another answer each time. ``limit`` is the name that
    it takes for the most tokens of an answer. A word counts as a token: with ``strict`` no prompt may pass the
    context length together with its answer, and with ``tokenize`` prompts are counted at ``/tokenize``, as in vLLM.
    A streamed answer waits ``pause`` seconds before each word.
    """

    chat: bool = True
    completions: bool = True
    n: Literal["yes", "ignored", "refused"] = "yes"
    logprobs: Literal["yes", "ignored", "refused"] = "yes"
    json: Literal["yes", "ignored", "refused"] = "yes"
    seed: bool = True
    reasoning: str = ""
    choice: Literal["yes", "ignored", "refused"] = "yes"
    context_length: int | None = 32768
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    strict: bool = False
    tokenize: bool = False
    pause: float = 0.0


@dataclass(frozen=True)
class Faults:
    """Which calls go wrong. Calls are counted from 0 as they come in.

    ``plan`` names them one by one; of the others a ``share`` is drawn by ``seed``, with ``kinds`` in turn. After
    call ``outage_after`` the server answers 503 to everything for ``outage`` seconds. With ``once`` no prompt is hit
    twice: which of the calls are repeats depends on the machine, and three in a row would cost a row.
    """

    plan: Mapping[int, Fault] = field(default_factory=dict)
    share: float = 0.0
    kinds: tuple[Fault, ...] = ()
    seed: int = 0
    outage_after: int | None = None
    outage: float = 0.0
    once: bool = False

    def of(self, call: int) -> Fault | None:
        if call in self.plan:
            return self.plan[call]
        if self.kinds and seed_from(f"call {call}", self.seed) / 2**63 < self.share:
            return self.kinds[seed_from(f"kind {call}", self.seed) % len(self.kinds)]
        return None


class Teacher:
    """What a test sees of the server: its ``url``, the request bodies, the most requests it had at once."""

    def __init__(
        self, script: Script, faults: Faults, features: Features, models: tuple[str, ...], latency: float, key: str
    ) -> None:
        self.url = ""
        self.calls: list[dict[str, Any]] = []
        self.faulty: list[Fault] = []
        self.counted: list[dict[str, Any]] = []
        self.peak = 0
        self.left = 0  # clients that went away while they were answered
        self._script = script
        self._faults = faults
        self._features = features
        self._models = models
        self._latency = latency
        self._key = key
        self._active = 0
        self._down_until: float | None = None
        self._hit: set[str] = set()  # prompts that something went wrong with

    async def list_models(self, request: web.Request) -> web.Response:
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            return _error(401, f"wrong key: {request.headers.get('Authorization')}")
        more = {"max_model_len": self._features.context_length} if self._features.context_length else {}
        return web.json_response(
            {"object": "list", "data": [{"id": name, "object": "model", **more} for name in self._models]}
        )

    async def tokenize(self, request: web.Request) -> web.Response:
        if not self._features.tokenize:
            return _error(404, "Not Found")
        body = await request.json()
        self.counted.append(body)
        return web.json_response({"count": _tokens(body), "max_model_len": self._features.context_length})

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
            if fault is not None and self._faults.once:
                prompt = json.dumps(body.get("messages", body.get("prompt")))
                fault = None if prompt in self._hit else fault
                self._hit.add(prompt)
            if fault is not None:
                self.faulty.append(fault)
            return self._lacking(request.path, body) or await self._answer(request, body, fault)
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
        features = self._features
        wanted = body.get("n", 1) if features.n == "yes" else 1
        if fault == "wrong-n":
            wanted = wanted - 1 or 2
        if not features.seed:
            body = {**body, "seed": len(self.calls)}
        texts = [self._script({**body, "choice": index} if index else body) for index in range(wanted)]
        if body.get("response_format") and features.json == "yes":
            texts = [json.dumps({"text": text}) for text in texts]
        if "structured_outputs" in body and features.choice == "yes":
            choices = body["structured_outputs"]["choice"]
            texts = [text if text in choices else choices[0] for text in texts]
        if fault == "truncated":
            texts = [text[: len(text) // 2] for text in texts]
        elif fault == "untagged":
            texts = ["I am sorry, I would rather talk about something else."] * wanted
        finish = "length" if fault == "truncated" else "stop"
        if body.get("stream"):
            return await self._stream(request, _completion(body, texts[:1], finish, features))
        return web.json_response(_completion(body, texts, finish, features))

    async def _stream(self, request: web.Request, whole: dict[str, Any]) -> web.StreamResponse:
        """The completion ``whole`` word by word, as server-sent events; the usage comes last."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        choice = whole["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        try:
            for word in re.findall(r"\s*\S+\s*$|\s*\S+", text):
                await asyncio.sleep(self._features.pause)
                said = {"delta": {"content": word}} if "message" in choice else {"text": word}
                await _send(response, {"choices": [{"index": 0, **said, "finish_reason": None}]})
            await _send(response, {"choices": [], "usage": whole["usage"]})
            await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:  # the client has left
            self.left += 1
        return response

    def _lacking(self, path: str, body: dict[str, Any]) -> web.Response | None:
        features = self._features
        if not (features.chat if path.endswith("/chat/completions") else features.completions):
            return _error(404, "Not Found")
        if body.get("n", 1) > 1 and features.n == "refused":
            return _error(400, "n: only 1 is supported")
        if body.get("logprobs") is not None and features.logprobs == "refused":
            return _error(400, "logprobs are not supported by this model")
        if body.get("response_format") and features.json == "refused":
            return _error(400, "response_format is not supported")
        if "structured_outputs" in body and features.choice == "refused":
            return _error(400, "Unrecognized request argument supplied: structured_outputs")
        if features.limit != "max_tokens" and "max_tokens" in body and "messages" in body:
            said = "Unsupported parameter: 'max_tokens' is not supported with this model."
            return _error(400, f"{said} Use 'max_completion_tokens' instead.")
        return self._overlong(body) if features.strict else None

    def _overlong(self, body: dict[str, Any]) -> web.Response | None:
        window = self._features.context_length or 0
        prompt, answer = _tokens(body), body.get(self._features.limit) or 1
        if prompt + answer <= window:
            return None
        said = (
            f"This model's maximum context length is {window} tokens. However, you requested {prompt + answer} tokens"
        )
        return _error(400, f"{said} tokens ({prompt} in the messages, {answer} in the completion).")


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(event)}\n\n".encode())


def answer_by_rule(body: dict[str, Any]) -> str:
    """Answers the prompts of the ``simple`` flow from their own text, alike for equal requests.

    Knowledge: a sentence of the last passage, chosen by the request's seed, is the answer to a question about its
    first words. Skills: the example with a number put behind question, context and answer.
    """
    prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
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
    features: Features | None = None,
    models: tuple[str, ...] = ("teacher",),
    latency: float = 0.0,
    key: str = "",
    tls: ssl.SSLContext | None = None,
) -> Iterator[Teacher]:
    """Serve on a free port of 127.0.0.1 while the block runs. ``latency`` in seconds; ``key`` is asked for."""
    teacher = Teacher(script, faults or Faults(), features or Features(), models, latency, key)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    runner = web.AppRunner(_application(teacher), shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096, ssl_context=tls)
        await site.start()
        teacher.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/v1"

    async def stop() -> None:
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # answers that nobody waits for any more
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.call_soon(ready.set)  # not before: a stop that comes while the loop starts would be lost
        loop.run_forever()
        loop.run_until_complete(stop())
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
    application.router.add_post("/tokenize", teacher.tokenize)
    for path in ("/v1/chat/completions", "/v1/completions"):
        application.router.add_post(path, teacher.complete)
    return application


def _tokens(body: dict[str, Any]) -> int:
    texts = [message["content"] for message in body["messages"]] if "messages" in body else [body["prompt"]]
    return sum(len(text.split()) for text in texts)


def _completion(body: dict[str, Any], texts: list[str], finish: str, features: Features) -> dict[str, Any]:
    chat = "messages" in body
    choices = []
    for index, text in enumerate(texts):
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            if features.reasoning:
                choice["message"]["reasoning_content"] = features.reasoning
        else:
            choice["text"] = text
        if body.get("logprobs") is not None and features.logprobs == "yes":
            choice["logprobs"] = _logprobs(text.split(), chat)
        choices.append(choice)
    return {
        "object": "chat.completion" if chat else "text_completion",
        "model": body["model"],
        "system_fingerprint": "scripted",
        "choices": choices,
        "usage": {
            "prompt_tokens": _tokens(body),
            "completion_tokens": sum(len(text.split()) for text in texts),
        },
    }


def _logprobs(tokens: list[str], chat: bool) -> dict[str, Any]:
    """Each token is sure to nine tenths, in the form that the protocol has for it."""
    other = "other"
    if chat:
        tops = [{"token": other, "logprob": -2.3}]
        return {
            "content": [
                {"token": token, "logprob": -0.1, "top_logprobs": [{"token": token, "logprob": -0.1}, *tops]}
                for token in tokens
            ]
        }
    return {
        "tokens": tokens,
        "token_logprobs": [-0.1] * len(tokens),
        "top_logprobs": [{token: -0.1, other: -2.3} for token in tokens],
    }


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = json.dumps({"error": {"message": message}})
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)
