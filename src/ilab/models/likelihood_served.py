"""Likelihoods from a server that tells the log-probabilities of a prompt.

The older ``/v1/completions`` of OpenAI can do it: with ``echo`` and ``logprobs`` it gives those of every token of the
prompt, which is the context and the continuation as token ids; the one token that has to be generated is dropped.
vLLM and `ilab model serve` offer it, many servers do not (llama-server has no ``echo``). The first pair shows which it
is: a server that refuses, ignores the fields or tells nothing is refused, with the reason. What the server computes in
is its own affair, so is how it shares contexts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence

from ilab.config import Endpoint
from ilab.errors import ServiceError
from ilab.models.chat import Refused, Reply
from ilab.models.likelihood import Likelihood, Pair, fit
from ilab.models.openai import Absent, OpenAIModel

AT_ONCE = 64  # pairs that are under way together, and kept together
TIE = 1e-6  # nats by which a first choice may stand below the top for rounding


class ServedLikelihoods:
    """A :class:`~ilab.models.likelihood.Likelihoods` at ``endpoint``, of the model served as ``model``.

    ``context_length`` is what the server reads at most. Token ids must be those of the served model's tokenizer.
    :meth:`score` runs an event loop of its own: not to be called from within one.
    """

    dtype = "served"

    def __init__(self, endpoint: Endpoint, model: str, context_length: int) -> None:
        self._endpoint = endpoint
        self._model = model
        self._checked = False
        self.context_length = context_length

    def score(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        """See :meth:`ilab.models.likelihood.Likelihoods.score`. Raises ``ServiceError`` where the server is not there
        or cannot do it.
        """
        # Room for the last token of the continuation, and for the one that has to be generated.
        fitted = [(index, *fit(pair, self.context_length - 2)) for index, pair in enumerate(pairs)]
        for start in range(0, len(fitted), AT_ONCE):
            yield from asyncio.run(self._block(fitted[start : start + AT_ONCE]))

    async def _block(self, fitted: Sequence[tuple[int, Pair, int]]) -> list[tuple[int, Likelihood]]:
        server = OpenAIModel(self._endpoint, in_flight=AT_ONCE)
        try:
            found = []
            if not self._checked:
                found, fitted = [await self._one(server, *fitted[0])], fitted[1:]
                self._checked = True
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(server, *one)) for one in fitted]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            await server.close()
        return [*found, *(task.result() for task in tasks)]

    async def _one(self, server: OpenAIModel, index: int, pair: Pair, cut: int) -> tuple[int, Likelihood]:
        if not pair.continuation:
            return index, Likelihood(0.0, True, 0, cut)
        ids = [*pair.context, *pair.continuation]
        body = {"model": self._model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
        try:
            reply = await server.post_completion(json.dumps(body).encode())
        except (Refused, Absent) as refusal:
            if self._checked:
                raise
            raise self._unable(refusal.message) from refusal
        return index, self._read(reply, pair, cut)

    def _read(self, reply: Reply, pair: Pair, cut: int) -> Likelihood:
        told = reply.choices[0].logprobs or ()
        begin, count = len(pair.context), len(pair.continuation)
        if len(told) not in (begin + count, begin + count + 1):
            raise self._unable(f"it told of {len(told)} tokens where the prompt has {begin + count}")
        own = told[begin : begin + count]
        if not any(entry["logprob"] for entry in told):
            raise self._unable("all of them are empty")
        greedy = all(entry["logprob"] >= max(entry["top"].values(), default=0.0) - TIE for entry in own)
        return Likelihood(sum(entry["logprob"] for entry in own), greedy, count, cut)

    def _unable(self, reason: str) -> ServiceError:
        return unable(self._endpoint, reason)


def unable(endpoint: Endpoint, reason: str) -> ServiceError:
    """The refusal of a server that does not tell what is needed."""
    return ServiceError(
        f"this server does not tell the log-probabilities of a prompt: {reason}",
        where=endpoint.url,
        hint="score the model in this process (give its folder), or serve it with vLLM or `ilab model serve`",
    )
