"""A model at an endpoint that is asked in token ids, as one in this process is: likelihoods and greedy answers.

Prompts are rendered and tokenised here, so the tokenizer's folder must be that of the served model. That is checked
before anything is scored: the server is told a sentence once as text and once as the ids that the folder has for it,
and must name the same tokens both times.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ilab.config import Endpoint
from ilab.core.step import fingerprint
from ilab.errors import InputError, ServiceError
from ilab.models.chat import Refused, Reply
from ilab.models.likelihood_served import AT_ONCE, ServedLikelihoods, unable
from ilab.models.local import room
from ilab.models.openai import Absent, OpenAIModel
from ilab.models.probe import probe
from ilab.models.renderer import Renderer

SENTENCE = "The keeper of 14 locks wrote: “Größe, café, 東京!” – is that all?\n"
Ids = Sequence[int]


class ServedModel:
    """The model that ``endpoint`` serves as ``name``. ``identity`` is its address, name, tokenizer and context: nobody
    sees its weights. Its methods run event loops of their own.
    """

    def __init__(self, endpoint: Endpoint, name: str, renderer: Renderer, context_length: int) -> None:
        self.renderer = renderer
        self.context_length = context_length
        self.identity = fingerprint("served", endpoint.url.rstrip("/"), name, renderer.fingerprint, context_length)
        self._endpoint = endpoint
        self._name = name

    @classmethod
    def meet(cls, endpoint: Endpoint, name: str, tokenizer: Path, context_length: int | None = None) -> ServedModel:
        """Ask the server for its models, and how much the one named ``name`` reads, unless that is given.

        Raises ``ServiceError`` where the server or the model is not there, ``InputError`` for a folder without a
        tokenizer and where nobody knows the context length.
        """
        renderer = Renderer.load(tokenizer)
        told = asyncio.run(probe(endpoint, name, wanted=())).context_length
        if context_length is None and told is None:
            raise InputError(
                "this server does not say how many tokens the model reads",
                where=endpoint.url,
                hint="--context-length N",
            )
        given = [length for length in (context_length, told) if length is not None]
        return cls(endpoint, name, renderer, min(given))

    @cached_property
    def likelihoods(self) -> ServedLikelihoods:
        """Whoever scores with it. Raises ``ServiceError`` where the tokenizer is another one than the server's."""
        asyncio.run(self._check())
        return ServedLikelihoods(self._endpoint, self._name, self.context_length)

    def room(self, prompt: int, max_tokens: int | None) -> int:
        """As :meth:`ilab.models.local.LocalModel.room`."""
        return room(self.context_length, prompt, max_tokens)

    def write(self, prompt_ids: Ids, max_tokens: int) -> str:
        """The greedy answer. Raises ``ContextError`` where the prompt fills the window."""
        [answer] = self.write_all([prompt_ids], max_tokens)
        return answer

    def write_all(self, prompts: Sequence[Ids], max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """The greedy answers, each up to one of ``stop``; raises as :meth:`write`."""
        rooms = [self.room(len(ids), max_tokens) for ids in prompts]

        async def run() -> list[str]:
            server, gate = OpenAIModel(self._endpoint, in_flight=AT_ONCE), asyncio.Semaphore(AT_ONCE)

            async def one(ids: Ids, most: int) -> str:
                async with gate:
                    reply = await self._post(server, prompt=list(ids), max_tokens=most, stop=list(stop) or None)
                return reply.text

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(*asked)) for asked in zip(prompts, rooms, strict=True)]
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
            finally:
                await server.close()
            return [task.result() for task in tasks]

        return asyncio.run(run())

    async def _post(self, server: OpenAIModel, **fields: Any) -> Reply:
        body = {name: value for name, value in fields.items() if value is not None}
        return await server.post_completion(json.dumps({"model": self._name, "temperature": 0.0, **body}).encode())

    async def _check(self) -> None:
        """See the module. A server that adds an opening token to a text is asked with that token."""
        server = OpenAIModel(self._endpoint, in_flight=1)
        try:
            plain = self.renderer.encode_text(SENTENCE)
            told = await self._named(server, SENTENCE)
            for ids in (plain, [*self.renderer.begin_ids, *plain]):
                if len(ids) == len(told) and await self._named(server, ids) == told:
                    return
        finally:
            await server.close()
        raise ServiceError(
            f"the tokenizer given is not that of {self._name}: the server reads the same text as other tokens",
            where=self._endpoint.url,
            hint="--tokenizer DIR: the folder of the model that is served",
        )

    async def _named(self, server: OpenAIModel, prompt: str | Ids) -> list[str]:
        """The tokens of a prompt in the server's words."""
        try:
            reply = await self._post(server, prompt=prompt, max_tokens=1, echo=True, logprobs=1)
        except (Refused, Absent) as refusal:
            raise unable(self._endpoint, refusal.message) from refusal
        named = [str(entry["token"]) for entry in reply.choices[0].logprobs or ()]
        if len(named) < 2:
            raise unable(self._endpoint, f"it told of {len(named)} tokens of a sentence")
        return named[: reply.usage.get("prompt_tokens", len(named) - 1)]
