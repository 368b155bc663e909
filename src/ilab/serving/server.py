"""An OpenAI-compatible server for one local model.

    GET /health   GET /v1/models   POST /v1/chat/completions   POST /v1/completions      (whole or streamed)

One worker thread generates, one answer at a time; further requests wait their turn. A client that goes away stops
its answer at the next token. What this server cannot do (several choices, log-probabilities of what it writes,
tools) is refused with an error in OpenAI's form, never ignored.
"""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
import signal
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ilab.errors import IlabError, InputError, ServiceError, SetupError
from ilab.models.local import Answer, ContextError, LocalModel, Sampling
from ilab.serving.scoring import echo

HOST = "127.0.0.1"
PORT = 8000
LARGEST_BODY = 4 << 20  # bytes
STOPPING = 5.0  # seconds that open requests get to end

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
R = TypeVar("R", bound=BaseModel)


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        """A list of text parts is the text of them all."""
        if isinstance(value, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in value):
            return "".join(str(part.get("text", "")) for part in value)
        return value


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Request(BaseModel):
    """What both kinds of completion share. Fields that only refuse have the one value that is allowed."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = Field(None, max_length=4096)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: Literal[1] | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    tools: list[Any] | None = Field(None, max_length=0)

    def sampling(self) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        seed = secrets.randbits(62) if self.seed is None else self.seed
        return Sampling(self.max_tokens, self.temperature, self.top_p, seed, stop)


class _ChatRequest(_Request):
    messages: list[_Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: Literal[False] | None = None

    def sampling(self) -> Sampling:
        limited = self.model_copy(update={"max_tokens": self.max_completion_tokens or self.max_tokens})
        return super(_ChatRequest, limited).sampling()


class _TextRequest(_Request):
    """A text, or token ids. ``echo`` and ``logprobs`` come together: the log-probabilities of the prompt's tokens."""

    prompt: str | list[int]
    echo: bool | None = None  # type: ignore[assignment]
    logprobs: int | None = Field(None, ge=0, le=5)


class _Job:
    """One answer under way: the worker thread puts pieces, the handler takes them."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.cancelled = threading.Event()
        self._queue: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def work(self) -> None:
        """In the worker thread: generate until the end, an error, or until nobody waits for it any more."""
        error: IlabError | None = None
        try:
            with closing(iter(self.answer)) as pieces:
                while not self.cancelled.is_set() and (piece := next(pieces, None)) is not None:
                    self._put(piece)
        except IlabError as caught:
            error = caught
        self._put(error)

    def _put(self, piece: str | BaseException | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)

    def stop(self, error: BaseException) -> None:
        """From the event loop: the worker gives up at the next token, and the handler fails with ``error``."""
        self.cancelled.set()
        self._queue.put_nowait(error)

    async def pieces(self) -> AsyncIterator[str]:
        while (piece := await self._queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


class Server:
    """The application around one model. ``application()`` may be run by any aiohttp runner."""

    def __init__(self, model: LocalModel, name: str) -> None:
        self.model = model
        self.name = name
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="generate")
        self._jobs: set[_Job] = set()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_errors], client_max_size=LARGEST_BODY)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._text)
        app.on_shutdown.append(self._stop)
        app.on_cleanup.append(self._close)
        return app

    async def _stop(self, app: web.Application) -> None:
        for job in self._jobs:
            job.stop(ServiceError("the server is stopping", retryable=True))

    async def _close(self, app: web.Application) -> None:
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _models(self, request: web.Request) -> web.Response:
        model = {"id": self.name, "object": "model", "created": 0, "owned_by": "ilab"}
        return web.json_response({"object": "list", "data": [{**model, "max_model_len": self.model.context_length}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _parse(request, _ChatRequest)
        self._check_name(body.model)
        turns = [turn.model_dump() for turn in body.messages]
        return await self._answer(request, body, self.model.renderer.prompt_ids(turns), chat=True)

    async def _text(self, request: web.Request) -> web.StreamResponse:
        body = await _parse(request, _TextRequest)
        self._check_name(body.model)
        given, known = body.prompt, self.model.renderer.vocab_size
        if isinstance(given, list) and not all(0 <= token < known for token in given):
            raise _RequestError(400, f"prompt: token ids are from 0 to {known - 1}", "prompt")
        ids = self.model.renderer.encode_text(given) if isinstance(given, str) else given
        if not body.echo and body.logprobs is None:
            return await self._answer(request, body, ids, chat=False)
        return await self._echo(body, ids)

    async def _echo(self, body: _TextRequest, ids: list[int]) -> web.Response:
        """The log-probabilities of the prompt ``ids``."""
        if not body.echo or body.logprobs is None or body.max_tokens != 1 or body.temperature or body.stream:
            reason = "log-probabilities are told of a prompt alone: echo, logprobs, max_tokens 1, temperature 0"
            raise _RequestError(400, reason, "logprobs")
        text, logprobs = await asyncio.wrap_future(self._worker.submit(echo, self.model, ids, body.logprobs))
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}
        head = self._head("cmpl", "text_completion")
        return web.json_response({**head, "choices": [choice], "usage": _usage(len(ids), 1)})

    def _check_name(self, name: str | None) -> None:
        if name not in (None, self.name):
            raise _RequestError(404, f"the model {name!r} is not served here; this server has {self.name!r}", "model")

    def _head(self, prefix: str, kind: str) -> dict[str, Any]:
        name = f"{prefix}-{uuid.uuid4().hex}"
        return {"id": name, "object": kind, "created": int(time.time()), "model": self.name}

    async def _answer(self, request: web.Request, body: _Request, prompt: list[int], chat: bool) -> web.StreamResponse:
        answer = Answer(self.model, prompt, body.sampling())
        kind = ("chat.completion" + ".chunk" * body.stream) if chat else "text_completion"
        head = self._head("chatcmpl" if chat else "cmpl", kind)
        async with self._running(answer) as job:
            if body.stream:
                options = body.stream_options or _StreamOptions()
                return await _stream(request, job, head, chat, len(prompt) if options.include_usage else None)
            text = "".join([piece async for piece in job.pieces()])
        content: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": answer.finish_reason}
        return web.json_response({**head, "choices": [choice], "usage": _usage(len(prompt), answer.tokens)})

    @asynccontextmanager
    async def _running(self, answer: Answer) -> AsyncIterator[_Job]:
        """The answer is made while the block runs; leaving the block, in whatever way, ends it."""
        job = _Job(answer)
        self._jobs.add(job)
        worker = asyncio.wrap_future(self._worker.submit(job.work))
        worker.add_done_callback(lambda done: _report(job, done))
        try:
            yield job
        finally:
            job.cancelled.set()
            self._jobs.discard(job)


def _report(job: _Job, done: asyncio.Future[None]) -> None:
    """A bug in the worker must not leave the handler waiting for ever."""
    error = None if done.cancelled() else done.exception()
    if error is not None:
        job.stop(error)


class _RequestError(InputError):
    """A request that is refused with a status and the name of the field at fault."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


async def _parse(request: web.Request, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _RequestError(400, f"{field or 'the body'}: {first['msg']}", field or None) from error


async def _stream(
    request: web.Request, job: _Job, head: dict[str, Any], chat: bool, prompt_tokens: int | None
) -> web.StreamResponse:
    """Server-sent events in OpenAI's form; with ``prompt_tokens``, the usage comes at the end."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    usage: dict[str, Any] = {} if prompt_tokens is None else {"usage": None}

    async def send(piece: str, finish: str | None = None, first: bool = False) -> None:
        delta = {**({"role": "assistant"} if first else {}), **({"content": piece} if piece or first else {})}
        content: dict[str, Any] = {"delta": delta} if chat else {"text": piece}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        await _event(response, {**head, "choices": [choice], **usage})

    try:
        if chat:
            await send("", first=True)
        async for piece in job.pieces():
            await send(piece)
        await send("", finish=job.answer.finish_reason)
        if prompt_tokens is not None:
            await _event(response, {**head, "choices": [], "usage": _usage(prompt_tokens, job.answer.tokens)})
        await response.write(b"data: [DONE]\n\n")
    except ConnectionResetError:
        pass  # the client is gone: there is nobody to tell
    except IlabError as error:  # the status is sent already, so the stream has to say it
        await _event(response, _error_body(error))
    return response


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(data)}\n\n".encode())


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in OpenAI's form. Anything else is a bug of ours: aiohttp logs it and answers 500."""
    try:
        return await handler(request)
    except IlabError as error:
        return web.json_response(_error_body(error), status=_status(error))
    except web.HTTPException as error:
        refusal = _RequestError(error.status, f"{request.method} {request.path}: {error.reason}")
        return web.json_response(_error_body(refusal), status=error.status)


def _status(error: IlabError) -> int:
    if isinstance(error, _RequestError):
        return error.status
    if isinstance(error, InputError):
        return 400
    return 503 if isinstance(error, ServiceError) else 500


def _error_body(error: IlabError) -> dict[str, Any]:
    code = "context_length_exceeded" if isinstance(error, ContextError) else None
    field = None
    if isinstance(error, _RequestError):
        field = error.field
        code = "model_not_found" if field == "model" else None
    kind = "invalid_request_error" if isinstance(error, InputError) else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": field, "code": code}}


def serve(
    model_dir: Path,
    host: str = HOST,
    port: int = PORT,
    name: str | None = None,
    on_ready: Callable[[str], None] | None = None,
    device: str = "auto",
    threads: int = 1,
) -> int:
    """Serve a model until SIGINT or SIGTERM; returns the signal's number. Call it in the main thread.

    ``name`` is what clients call the model (default: the folder's name); ``on_ready`` gets the base URL once
    requests are taken; port 0 takes a free one. Raises ``SetupError`` where the port cannot be had, before the
    model is loaded.
    """
    with _bind(host, port) as bound:
        model = LocalModel.load(model_dir, device, threads)
        return asyncio.run(_serve(Server(model, name or model_dir.resolve().name), bound, on_ready))


async def _serve(server: Server, bound: socket.socket, on_ready: Callable[[str], None] | None) -> int:
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        stopped.set_result(number)
        for each in (signal.SIGINT, signal.SIGTERM):  # a second signal does not wait
            loop.remove_signal_handler(each)

    runner = web.AppRunner(server.application(), handler_cancellation=True, shutdown_timeout=STOPPING, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, bound).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, int(number))
        if on_ready is not None:
            host, port = bound.getsockname()[:2]
            on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        return await stopped
    finally:
        await runner.cleanup()


def _bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address and does not listen yet."""
    if not 0 <= port <= 65535:
        raise InputError(f"there is no port {port}", hint=f"type: ilab model serve --port {PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SetupError(f"the host {host} is not known: {error.strerror}", hint="use --host 127.0.0.1") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        free = port + 1 if 1024 <= port < 65535 else PORT
        raise SetupError(f"port {port} of {host} {reason}", hint=f"type: ilab model serve --port {free}") from error
    return bound
