"""Answers of one local model in OpenAI's form: chat and text completions, whole or streamed.

One worker thread generates, one answer at a time; further requests, and further choices of one request, wait their
turn. A client that goes away stops its answer at the next token.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ilab.errors import IlabError, ServiceError
from ilab.models.local import Answer, LocalModel, Sampling
from ilab.serving.front import Front
from ilab.serving.grammar import Grammar, json_grammar, schema_grammar
from ilab.serving.listen import PORT, bind, run
from ilab.serving.requests import (
    ChatRequest,
    Completion,
    RequestError,
    ResponseFormat,
    StreamOptions,
    TextRequest,
    error_body,
    parse,
)
from ilab.serving.scoring import Scored, chat_logprobs, echo, text_logprobs
from ilab.serving.watching import Watch

HOST = "127.0.0.1"


class _Job:
    """One answer under way: the worker thread puts pieces, and how many tokens there are; the handler takes them."""

    def __init__(self, answer: Answer, watch: Watch) -> None:
        self.answer, self.watch = answer, watch
        self.cancelled = threading.Event()
        self._queue: asyncio.Queue[tuple[str, int] | BaseException | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def work(self) -> None:
        """In the worker thread: generate until the end, an error, or until nobody waits for it any more."""
        error: IlabError | None = None
        try:
            with closing(iter(self.answer)) as pieces:
                while not self.cancelled.is_set() and (piece := next(pieces, None)) is not None:
                    self._put((piece, len(self.watch.tokens)))
        except IlabError as caught:
            error = caught
        self._put(error)

    def _put(self, item: tuple[str, int] | BaseException | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def stop(self, error: BaseException) -> None:
        """From the event loop: the worker gives up at the next token, and the handler fails with ``error``."""
        self.cancelled.set()
        self._queue.put_nowait(error)

    async def pieces(self) -> AsyncIterator[tuple[str, Sequence[Scored]]]:
        """Text as it comes, with the scores of the tokens that came with it."""
        told = 0
        while (item := await self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            piece, count = item
            yield piece, self.watch.tokens[told:count]
            told = count


@dataclass(frozen=True)
class _Asked:
    """A request that is understood: the ``prompt`` in tokens, and how each choice is drawn."""

    chat: bool
    head: dict[str, Any]
    prompt: list[int]
    samplings: Sequence[Sampling]
    top: int | None
    grammar: Grammar | None = None
    usage: bool = False  # whether a stream ends with it

    def scores(self, tokens: Sequence[Scored], offset: int = 0) -> dict[str, Any] | None:
        if self.top is None:
            return None
        return chat_logprobs(tokens) if self.chat else text_logprobs(tokens, offset)


class Server:
    """The application around one model. ``application()`` may be run by any aiohttp runner."""

    def __init__(self, model: LocalModel, name: str, front: Front | None = None) -> None:
        self.model = model
        self._front = front or Front((name,), context=model.context_length)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="generate")
        self._jobs: set[_Job] = set()

    def application(self) -> web.Application:
        app = self._front.application(
            [
                ("/v1/chat/completions", self._chat, "An answer to messages"),
                ("/v1/completions", self._text, "How a text goes on"),
            ]
        )
        app.on_shutdown.append(self._stop)
        app.on_cleanup.append(self._close)
        return app

    async def _stop(self, app: web.Application) -> None:
        for job in self._jobs:
            job.stop(ServiceError("the server is stopping", retryable=True))

    async def _close(self, app: web.Application) -> None:
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await parse(request, ChatRequest)
        head = self._head(body, "chatcmpl", "chat.completion" + ".chunk" * body.stream)
        grammar = _grammar(body.response_format)
        prompt = self.model.renderer.prompt_ids([turn.model_dump() for turn in body.messages])
        return await self._answer(request, body, self._asked(body, head, prompt, grammar))

    async def _text(self, request: web.Request) -> web.StreamResponse:
        body = await parse(request, TextRequest)
        head = self._head(body, "cmpl", "text_completion")
        given, known = body.prompt, self.model.renderer.vocab_size
        if isinstance(given, list) and not all(0 <= token < known for token in given):
            raise RequestError(400, f"prompt: token ids are from 0 to {known - 1}", "prompt")
        ids = self.model.renderer.encode_text(given) if isinstance(given, str) else given
        if body.echo:
            return await self._echo(body, head, ids)
        return await self._answer(request, body, self._asked(body, head, ids, None))

    async def _echo(self, body: TextRequest, head: dict[str, Any], ids: list[int]) -> web.Response:
        """The log-probabilities of the prompt ``ids``."""
        if body.logprobs is None or body.max_tokens != 1 or body.temperature or body.stream:
            reason = "the prompt is told for its log-probabilities alone: echo, logprobs, max_tokens 1, temperature 0"
            raise RequestError(400, reason, "echo")
        text, logprobs = await asyncio.wrap_future(self._worker.submit(echo, self.model, ids, body.logprobs))
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}
        return web.json_response({**head, "choices": [choice], "usage": self._front.usage(len(ids), 1)})

    def _head(self, body: Completion, prefix: str, kind: str) -> dict[str, Any]:
        name = self._front.check_name(body.model)
        return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}

    def _asked(self, body: Completion, head: dict[str, Any], prompt: list[int], grammar: Grammar | None) -> _Asked:
        usage = (body.stream_options or StreamOptions()).include_usage
        chat = isinstance(body, ChatRequest)
        return _Asked(chat, head, prompt, body.samplings(), body.top, grammar, usage)

    async def _answer(self, request: web.Request, body: Completion, asked: _Asked) -> web.StreamResponse:
        if body.stream:
            self._new_answer(asked, asked.samplings[0])  # refused before the status is sent
            return await self._stream(request, asked)
        choices, written = [], 0
        for index, sampling in enumerate(asked.samplings):
            answer, watch = self._new_answer(asked, sampling)
            async with self._running(answer, watch) as job:
                text = "".join([piece async for piece, _ in job.pieces()])
            content: dict[str, Any] = (
                {"message": {"role": "assistant", "content": text}} if asked.chat else {"text": text}
            )
            scores = asked.scores(watch.tokens)
            choices.append({"index": index, **content, "logprobs": scores, "finish_reason": answer.finish_reason})
            written += answer.tokens
        usage = self._front.usage(len(asked.prompt), written)
        return web.json_response({**asked.head, "choices": choices, "usage": usage})

    def _new_answer(self, asked: _Asked, sampling: Sampling) -> tuple[Answer, Watch]:
        watch = Watch(self.model.renderer, asked.top, asked.grammar)
        watching = asked.top is not None or asked.grammar is not None
        return Answer(self.model, asked.prompt, sampling, watch if watching else None), watch

    @asynccontextmanager
    async def _running(self, answer: Answer, watch: Watch) -> AsyncIterator[_Job]:
        """The answer is made while the block runs; leaving the block, in whatever way, ends it."""
        job = _Job(answer, watch)
        self._jobs.add(job)
        worker = asyncio.wrap_future(self._worker.submit(job.work))
        worker.add_done_callback(lambda done: _report(job, done))
        try:
            yield job
        finally:
            job.cancelled.set()
            self._jobs.discard(job)

    async def _stream(self, request: web.Request, asked: _Asked) -> web.StreamResponse:
        """Server-sent events in OpenAI's form, one choice after the other; with usage, it comes at the end."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        more: dict[str, Any] = {"usage": None} if asked.usage else {}
        written = 0
        try:
            for index, sampling in enumerate(asked.samplings):
                answer, watch = self._new_answer(asked, sampling)
                async with self._running(answer, watch) as job:
                    async for choice in _deltas(job, asked):
                        await _event(response, {**asked.head, "choices": [{"index": index, **choice}], **more})
                written += answer.tokens
            usage = self._front.usage(len(asked.prompt), written)
            if asked.usage:
                await _event(response, {**asked.head, "choices": [], "usage": usage})
            await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:
            pass  # the client is gone: there is nobody to tell
        except IlabError as error:  # the status is sent already, so the stream has to say it
            await _event(response, error_body(error))
        return response


async def _deltas(job: _Job, asked: _Asked) -> AsyncIterator[dict[str, Any]]:
    """One choice as it comes: without its index, its last with the reason for its end."""

    def part(piece: str, scores: Any = None, finish: str | None = None, first: bool = False) -> dict[str, Any]:
        delta = {**({"role": "assistant"} if first else {}), **({"content": piece} if piece or first else {})}
        content: dict[str, Any] = {"delta": delta} if asked.chat else {"text": piece}
        return {**content, "logprobs": scores, "finish_reason": finish}

    offset = told = 0
    if asked.chat:
        yield part("", first=True)
    async for piece, tokens in job.pieces():
        yield part(piece, asked.scores(tokens, offset))
        offset += sum(len(token.text) for token in tokens)
        told += len(tokens)
    rest = job.watch.tokens[told:]  # their text was held back, or is that of a stop
    yield part("", asked.scores(rest, offset) if rest else None, finish=job.answer.finish_reason)


def _grammar(wanted: ResponseFormat) -> Grammar | None:
    """What an answer in this format must be. Raises ``RequestError`` for a schema that cannot be held to."""
    if wanted.type == "text":
        return None
    schema = wanted.json_schema.content if wanted.json_schema else None
    if schema is None:
        return json_grammar()
    try:
        return schema_grammar(schema)
    except ValueError as error:
        raise RequestError(400, f"response_format: {error}", "response_format") from error


def _report(job: _Job, done: asyncio.Future[None]) -> None:
    """A bug in the worker must not leave the handler waiting for ever."""
    error = None if done.cancelled() else done.exception()
    if error is not None:
        job.stop(error)


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(data)}\n\n".encode())


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
    with bind(host, port) as bound:
        model = LocalModel.load(model_dir, device, threads)
        server = Server(model, name or model_dir.resolve().name)
        return asyncio.run(run(server.application(), bound, None, on_ready))
