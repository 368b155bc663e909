"""The backend ``llama-cpp``: llama.cpp in a child process on the loopback, and our own front before it.

llama.cpp ends its process where a file displeases it, hence the child; it is another program than ours, hence the
front: greeting, names, key, TLS and counting are the same whoever answers. Answers go through as they come. The child
has a key of its own that is made for it, so that the front's is not gone round.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import aiohttp
from aiohttp import web

from ilab.core.keeper import Child, free_port
from ilab.errors import IlabError, InputError, ServiceError, SetupError
from ilab.models.gguf.header import Header, read_header
from ilab.models.llamacpp import KEY, LlamaSettings, server_command, server_name
from ilab.serving.backend import Job
from ilab.serving.front import Front
from ilab.serving.here import no_words
from ilab.serving.listen import bind, run, server_tls
from ilab.serving.readiness import Log, Start, until_ready
from ilab.serving.requests import RequestError
from ilab.serving.template import check_template, template_for

LIVES = 0.5  # seconds between two looks whether the child lives
TOO_LONG = "exceed_context_size_error"  # what llama.cpp calls a prompt that does not fit
STOP = {"max_tokens", "max_completion_tokens", "n_predict"}


def check(job: Job) -> None:
    """Raises ``SetupError`` where llama.cpp is not here, ``InputError`` for a chat template that is not."""
    no_words(job)
    server_tls(job.settings)
    check_template(job.settings.chat_template, job.settings.model_family)
    if server_name() is None:
        raise SetupError(
            "llama.cpp is not on this machine",
            hint="pip install 'ilab[llamacpp]', or put llama-server on the PATH; or leave --backend out",
        )


def serve(job: Job) -> int:
    """See :class:`ilab.serving.backend.Backend`."""
    header, tls = read_header(job.model), server_tls(job.settings)
    with ExitStack() as stack:
        bound = stack.enter_context(bind(job.settings.host, job.settings.port))
        child, url, key = _start(job, header, stack)
        context = job.settings.max_ctx_size or header.context
        relay = Relay(Front(job.names, job.key, context), url, key, job.settings.max_ctx_size)

        async def broken() -> IlabError:
            while child.code is None:  # noqa: ASYNC110 - a process is no event, and a thread that waits would not end
                await asyncio.sleep(LIVES)
            return ServiceError(f"llama.cpp ended with {child.code}", where=str(job.log or job.model))

        return asyncio.run(run(relay.application(), bound, tls, job.ready, broken))


def _start(job: Job, header: Header, stack: ExitStack) -> tuple[Child, str, str]:
    """llama.cpp as a child that is ready, its base URL, and its key."""
    settings, key = job.settings, secrets.token_hex(16)
    source = template_for(
        settings.chat_template, settings.model_family, header.special_tokens, header.architecture, job.say
    )
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if source is not None:
        (folder / "template.jinja").write_text(source, encoding="utf-8")
    asked = LlamaSettings(
        free_port(),
        job.threads,
        settings.max_ctx_size or 0,
        0 if job.device == "cpu" else settings.gpu_layers,
        job.names[0],
        str(folder / "template.jinja") if source is not None else "",
    )
    command = server_command(job.model, asked)
    job.say(f"Starting server process: {server_name()} loads {job.model.name} …")
    job.detail(" ".join(command))
    sink: IO[bytes] | None = stack.enter_context(job.log.open("ab")) if job.log else None
    log = Log(job.log, job.log.stat().st_size) if job.log else None
    child = stack.enter_context(Child(command, sink, environment={KEY: key}))
    url = f"http://127.0.0.1:{asked.port}/v1"
    until_ready(child, Start("llama.cpp", url, log, key, job.tell))
    return child, url, key


class Relay:
    """Hands requests on to the server at the base URL ``url``. ``context``: tokens that it was told to keep to."""

    def __init__(self, front: Front, url: str, key: str, context: int | None) -> None:
        self._front, self._url, self._context = front, url, context
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    def application(self) -> web.Application:
        app = self._front.application(
            [
                ("/v1/chat/completions", self._chat, "An answer to messages"),
                ("/v1/completions", self._text, "How a text goes on"),
            ]
        )
        app.cleanup_ctx.append(self._connected)
        return app

    async def _connected(self, _: web.Application) -> AsyncIterator[None]:
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(headers=self._headers, timeout=limits) as self._session:
            yield

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._hand_on(request, "/chat/completions", "/apply-template")

    async def _text(self, request: web.Request) -> web.StreamResponse:
        return await self._hand_on(request, "/completions", "")

    async def _body(self, request: web.Request) -> dict[str, Any]:
        try:
            body = json.loads(await request.read())
        except ValueError as error:
            raise RequestError(400, f"the body is no JSON: {error}") from error
        if not isinstance(body, dict):
            raise RequestError(400, "the body is no JSON object")
        name = body.get("model")
        if name is not None and not isinstance(name, str):
            raise RequestError(400, "model: a text is wanted", "model")
        return {**body, "model": self._front.check_name(name)}

    async def _room(self, body: dict[str, Any], template: str) -> None:
        """Keep to a context that is smaller than llama.cpp makes one (it rounds up).

        Raises ``RequestError`` where the prompt does not fit, and leaves an answer no more tokens than there is room.
        """
        if self._context is None:
            return
        text = body.get("prompt")
        if template:
            text = (await self._ask(template, {"messages": body.get("messages")})).get("prompt")
        if not isinstance(text, str):
            return  # tokens, or several: llama.cpp says what it thinks of them
        asked = {"content": text, "add_special": True, "parse_special": True}
        count = len((await self._ask("/tokenize", asked)).get("tokens", []))
        if count >= self._context:
            raise _too_long(count, self._context)
        given = [body[name] for name in STOP if isinstance(body.get(name), int) and body[name] > 0]
        for name in STOP - {"max_tokens"}:
            body.pop(name, None)
        body["max_tokens"] = min([self._context - count, *given])

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._client.post(self._url.removesuffix("/v1") + path, json=body) as reply:
            found = await reply.json()
        return found if isinstance(found, dict) else {}

    @property
    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise ServiceError("the server is not ready yet", retryable=True)
        return self._session

    async def _hand_on(self, request: web.Request, path: str, template: str) -> web.StreamResponse:
        body = await self._body(request)
        try:
            await self._room(body, template)
            async with self._client.post(self._url + path, json=body) as reply:
                if reply.status >= 400 or not reply.content_type.startswith("text/event-stream"):
                    return self._whole(reply.status, await reply.read())
                return await self._streamed(request, reply)
        except aiohttp.ClientError as error:
            raise ServiceError(f"llama.cpp broke off: {error}", retryable=True) from error

    def _whole(self, status: int, data: bytes) -> web.Response:
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServiceError(f"llama.cpp answered {status} with what is no JSON", retryable=True)
        error = answer.get("error")
        if isinstance(error, dict):
            if error.get("type") == TOO_LONG:
                raise _too_long(int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0)))
            refused = {"message": str(error.get("message", "")), "type": "invalid_request_error"}
            return web.json_response({"error": {**refused, "param": None, "code": None}}, status=status)
        self._count(answer)
        return web.json_response(answer, status=status)

    async def _streamed(self, request: web.Request, reply: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        last = b""
        try:
            async for line in reply.content:
                await response.write(line)
                if line.startswith(b"data: {"):
                    last = line
        except ConnectionResetError:
            return response  # the client is gone: there is nobody to tell
        try:
            self._count(json.loads(last.removeprefix(b"data: ")))
        except ValueError:
            return response
        return response

    def _count(self, answer: dict[str, Any]) -> None:
        """Tokens, from the usage, or from what llama.cpp tells of its times."""
        used, timings = answer.get("usage"), answer.get("timings")
        if isinstance(used, dict):
            self._front.usage(int(used.get("prompt_tokens", 0)), int(used.get("completion_tokens", 0)))
        elif isinstance(timings, dict):
            self._front.usage(int(timings.get("prompt_n", 0)), int(timings.get("predicted_n", 0)))


def _too_long(count: int, context: int) -> InputError:
    return RequestError(
        400,
        f"the prompt has {count} tokens; the context holds {context}, answer included",
        "messages",
        "context_length_exceeded",
    )
