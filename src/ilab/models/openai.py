"""The client of OpenAI-compatible servers: ``/models``, ``/chat/completions`` and the older ``/completions``.

All retries of the product are here. What may pass later is asked again: connections refused or reset, 5xx,
time-outs, malformed JSON and empty choices up to ``tries`` times, 429 and 503 for as long as the server makes
progress. A :class:`~ilab.models.budget.Budget` adapts how much is in flight, a
:class:`~ilab.models.breaker.Breaker` waits out an outage. Other 4xx are errors with the server's own words. The
first contact is one ``GET /models``: a server that is not there, or does not serve the model, is told within
seconds. Choices that a server leaves out are asked for one by one; what it refuses is worded otherwise
(:mod:`ilab.models.wording`). The key is read by reference and stands in no error.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from ilab.config import Endpoint
from ilab.data import digest_text, seed_from
from ilab.errors import ServiceError
from ilab.models.admission import Admission
from ilab.models.breaker import Breaker
from ilab.models.budget import Budget
from ilab.models.chat import SEED_BITS, Choice, Refused, Reply, Request
from ilab.models.completion import (
    PATHS,
    Api,
    Failure,
    own_api,
    parse_reply,
    request_body,
    retry_after,
    served_models,
    server_words,
)
from ilab.models.contact import ADDRESS_HINT, FIRST_CONTACT, KEY_HINT, open_wire, unreachable
from ilab.models.measure import PromptCounter
from ilab.models.secret import read_secret
from ilab.models.window import TooLong, fit, told_limit, too_long
from ilab.models.wire import Answer, NoConnection, allow_connections
from ilab.models.wording import AS_ASKED, Wording

LONGEST_BACKOFF = 8.0  # seconds
OTHER: dict[Api, Api] = {"chat": "completions", "completions": "chat"}


class Absent(ServiceError):
    """The server does not know the path at all."""


class OpenAIModel:
    """A :class:`~ilab.models.chat.ChatModel` at ``endpoint``.

    ``in_flight`` holds where the endpoint's own settings give none; ``tries`` is how often one request is sent at
    most, ``outage_limit`` how many seconds a failing or busy server is waited for, ``backoff`` the first pause in
    seconds (doubled each time, with jitter derived from the request). ``admission`` looks at what
    :meth:`admit` is given; without it only at the model and at the length of prompts.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        in_flight: int = 64,
        tries: int = 6,
        outage_limit: float = 600.0,
        backoff: float = 0.25,
        admission: Admission | None = None,
    ) -> None:
        self.url = endpoint.url.rstrip("/")
        self.budget = Budget(endpoint.in_flight or in_flight)
        self._endpoint = endpoint
        self._key = read_secret(endpoint.api_key)
        self._wire = open_wire(endpoint, self._key)
        allow_connections(self.budget.ceiling)
        self._tries = tries
        self._outage_limit = outage_limit
        self._backoff = backoff
        self._contact: asyncio.Task[tuple[str, ...]] | None = None
        self._met: set[str] = set()  # models that the server is known to serve
        self._failed = 0  # attempts without a usable answer
        self._breaker = Breaker(self._probe, outage_limit, self.url)
        self._probe_model = ""
        self._apis: dict[Api, Api] = {}  # what is sent where the server lacks a form of request
        self._proven: set[Api] = set()
        self._several: bool | None = None  # whether the server gives several choices when asked for them
        self._wordings: dict[str, Wording] = {}  # by model, where it takes another than the usual
        self._admission = admission or Admission(endpoint)
        self._counter = PromptCounter(endpoint, self._key)

    async def admit(self, request: Request) -> Request:
        """See :meth:`ilab.models.admission.Admission.admit`."""
        admitted = await self._admission.admit(request, self._counter.count)
        self._probe_model = request.model
        self._met.add(request.model)
        return admitted

    async def complete(self, request: Request) -> Reply:
        """See :meth:`ilab.models.chat.ChatModel.complete`."""
        if request.model not in self._met:
            await self._meet(request.model)
        if request.sampling.n > 1:
            return await self._complete_several(request)
        reply = await self._complete_once(request)
        return reply if len(reply.choices) == 1 else replace(reply, choices=reply.choices[:1])

    async def post_completion(self, body: bytes) -> Reply:
        """Send a ready body to ``/completions``, with all retries and no rewording. Raises as :meth:`complete` does."""
        await self.models()
        return await self._send(body, "completions")

    async def models(self) -> tuple[str, ...]:
        """The names the server serves; empty where it keeps no list.

        Raises ``ServiceError`` when it is not there.
        """
        if self._contact is None:
            self._contact = asyncio.get_running_loop().create_task(self._first_contact())
        return await asyncio.shield(self._contact)

    def condition(self) -> dict[str, Any]:
        """For people who watch: requests ``in_flight``, how many may be (``limit``) and might (``ceiling``), whether an
        outage is waited out (``waiting``), and how many attempts have ``failed`` so far.
        """
        budget = self.budget
        told = {"in_flight": budget.active, "limit": budget.limit, "ceiling": budget.ceiling}
        return {**told, "waiting": self._breaker.open, "failed": self._failed}

    async def close(self) -> None:
        await self._breaker.close()
        if self._contact is not None:
            self._contact.cancel()
            await asyncio.gather(self._contact, return_exceptions=True)
            self._contact = None
        self._met.clear()
        await self._admission.close()
        await self._counter.close()
        await self._wire.close()

    # -- first contact -------------------------------------------------------------------------------------------

    async def _meet(self, model: str) -> None:
        served = await self.models()
        self._probe_model = model
        if served and model not in served:
            raise self._error(
                f"this server does not serve a model named {model!r}",
                f"it serves: {', '.join(served)}; give one of these names",
            )
        self._met.add(model)

    async def _first_contact(self) -> tuple[str, ...]:
        for attempt in range(3):
            try:
                answer = await self._wire.send("GET", "/models", b"", min(FIRST_CONTACT, self._endpoint.timeout))
            except NoConnection as error:
                raise unreachable(self.url, error) from error
            except TimeoutError:
                return ()  # connected but slow, perhaps loading a model: the requests will tell
            except OSError:  # a connection that broke off
                await asyncio.sleep(self._backoff * 2**attempt)
                continue
            if answer.status in (401, 403):
                said = self._said(answer.body)
                raise self._error(f"the server refuses the key (HTTP {answer.status}): {said}", KEY_HINT)
            return tuple(entry["id"] for entry in served_models(answer.body)) if answer.status == 200 else ()
        raise unreachable(self.url, ConnectionError("the connection breaks off"))

    # -- one request ---------------------------------------------------------------------------------------------

    async def _complete_once(self, request: Request) -> Reply:
        """Any reply with a choice or more, in the form of request that the server has."""
        own = own_api(request)
        if self._endpoint.api != "auto":
            return await self._complete_by(request, self._endpoint.api)
        api = self._apis.get(own, own)
        try:
            return await self._complete_by(request, api)
        except Absent as error:
            if api in self._proven or api != own:
                raise
            try:
                reply = await self._complete_by(request, OTHER[own])
            except (Absent, Refused):
                raise error from None
            self._apis[own] = OTHER[own]
            return reply

    async def _complete_by(self, request: Request, api: Api) -> Reply:
        """The reply to ``request`` in the words that the server takes, with an answer that fits into its window."""
        known = wording = self._wordings.get(request.model, AS_ASKED)
        first: Refused | None = None
        limited = request
        while True:
            try:
                reply = await self._send(request_body(limited, api, wording), api)
            except TooLong as refusal:
                limited = _shortened(limited, refusal)
                continue
            except Refused as refusal:
                first = first or refusal
                other = wording.other(limited.fields(), refusal.message)
                if other is None:
                    raise first from None
                wording = other
                continue
            if wording != known:
                self._wordings[request.model] = wording
            return reply if limited is request else told_limit(reply, limited)

    async def _send(self, body: bytes, api: Api) -> Reply:
        """Send ``body`` until it is answered."""
        began, failures = time.monotonic(), 0
        for attempt in itertools.count():
            outcome = await self._in_budget(body, api)
            if isinstance(outcome, Reply):
                self._proven.add(api)
                return outcome
            waited = time.monotonic() - began
            if outcome.kind == "busy":
                if waited + outcome.wait > self._outage_limit:
                    raise self._error(
                        f"the server has been too busy for {waited:.0f} seconds ({outcome.reason})",
                        "lower where.teacher.in_flight or wait, then run the same command again: answers are kept",
                    )
            elif outcome.kind == "garbled" or not self._breaker.open:
                failures += 1
                if failures >= self._tries:
                    raise self._error(f"no usable answer in {failures} tries: {outcome.reason}", "", retryable=True)
            await asyncio.sleep(max(outcome.wait, self._pause(body, attempt)))
        raise AssertionError("unreachable")

    async def _complete_several(self, request: Request) -> Reply:
        """``n`` choices: in one call where the server can, the missing ones each in a call of its own (never n × n)."""
        n = request.sampling.n
        got: list[Reply] = []
        refused = False
        if self._several is not False:
            try:
                got = [await self._complete_once(request)]
            except TooLong:  # which it would be for a single choice, too
                raise
            except Refused:
                if self._several:
                    raise
                refused = True  # perhaps because of n: a single request will tell
            else:
                found = len(got[0].choices)
                if found >= n:
                    self._several = True
                    return replace(got[0], choices=got[0].choices[:n])
                if found == 1 and self._several is None:
                    self._several = False
        first = len(got[0].choices) if got else 0
        got += await _all([self._complete_once(_single(request, index)) for index in range(first, n)])
        if refused:
            self._several = False
        return _joined(got, n)

    # -- one attempt ---------------------------------------------------------------------------------------------

    async def _in_budget(self, body: bytes, api: Api) -> Reply | Failure:
        ticket = await self._slot()
        try:
            outcome = await self._post(body, api)
        finally:
            self.budget.release()
        failure = outcome if isinstance(outcome, Failure) else None
        self._failed += failure is not None
        self.budget.answered(ticket, failure is not None and failure.kind in ("busy", "slow"))
        if failure is not None and failure.kind != "garbled":
            self._breaker.failed()
        else:
            self._breaker.succeeded()
        return outcome

    async def _slot(self) -> int:
        """A slot of the budget while the server is up: an outage may begin while one waits for the slot."""
        while True:
            await self._breaker.healthy()
            ticket = await self.budget.acquire()
            if not self._breaker.open:
                return ticket
            self.budget.release()

    async def _post(self, body: bytes, api: Api) -> Reply | Failure:
        """Send once. Raises ``ServiceError`` for answers that no repetition would change."""
        try:
            answer = await self._wire.send("POST", PATHS[api], body, self._endpoint.timeout)
        except TimeoutError:
            return Failure("slow", f"no answer within {self._endpoint.timeout:g} seconds")
        except OSError as error:
            return Failure("down", str(error))
        if answer.status == 200:
            return parse_reply(answer.body)
        return self._refusal(answer)

    def _refusal(self, answer: Answer) -> Failure:
        status = answer.status
        reason = f"HTTP {status}: {self._said(answer.body)}"
        if status in (429, 503):
            return Failure("busy", reason, retry_after(answer.headers.get("retry-after", ""), time.time()))
        if (status >= 500 and status != 501) or status in (408, 409):
            return Failure("down", reason, retry_after(answer.headers.get("retry-after", ""), time.time()))
        if status in (400, 413, 422):
            overlong = too_long(status, self._said(answer.body), answer.body, self.url)
            if overlong is not None:
                raise overlong
            raise Refused(reason, where=self.url, hint="see what the server says about this request")
        if status in (404, 405, 501):
            raise Absent(reason, where=self.url, hint=f"ask the server: ilab endpoint check {self.url}")
        raise self._error(reason, KEY_HINT if status in (401, 403) else ADDRESS_HINT)

    async def _probe(self) -> bool:
        """Whether the server answers a one-token request. A refusal is an answer, too."""
        api: Api = self._apis.get("chat", "chat") if self._endpoint.api == "auto" else self._endpoint.api
        asked = {"messages": [{"role": "user", "content": "ping"}]} if api == "chat" else {"prompt": "ping"}
        body = json.dumps({"model": self._probe_model, "max_tokens": 1, **asked}).encode()
        try:
            answer = await self._wire.send("POST", PATHS[api], body, self._endpoint.timeout)
        except OSError:  # a time-out is an OSError
            return False
        return answer.status < 500 and answer.status != 429

    def _pause(self, body: bytes, attempt: int) -> float:
        """Seconds before the next attempt: exponential, between half and whole, by the request and the attempt."""
        whole = min(LONGEST_BACKOFF, self._backoff * 2.0 ** min(attempt, 16))
        jitter = seed_from(digest_text(body.decode()), attempt) / 2**63
        return whole * (0.5 + jitter / 2)

    def _said(self, raw: bytes) -> str:
        said = server_words(raw)
        return said.replace(self._key, "***") if self._key else said

    def _error(self, message: str, hint: str, retryable: bool = False) -> ServiceError:
        return ServiceError(message, where=self.url, hint=hint, retryable=retryable)


def _shortened(request: Request, refusal: TooLong) -> Request:
    """``request`` with room for the answer by the server's own numbers. Raises the refusal where there is none."""
    if refusal.prompt is None or refusal.window is None:
        raise refusal
    shorter = fit(request, refusal.prompt, refusal.window)
    if shorter is request:
        raise refusal
    return shorter


def _single(request: Request, index: int) -> Request:
    """The request for choice ``index`` alone. The first is drawn with the request's own seed."""
    seed = request.sampling.seed
    if seed is not None and index:
        seed = seed_from(f"choice {index}", seed) % 2**SEED_BITS
    return replace(request, sampling=replace(request.sampling, n=1, seed=seed))


def _joined(replies: list[Reply], n: int) -> Reply:
    choices: list[Choice] = [choice for reply in replies for choice in reply.choices]
    usage: dict[str, int] = {}
    for reply in replies:
        for name, tokens in reply.usage.items():
            usage[name] = usage.get(name, 0) + tokens
    return Reply(tuple(choices[:n]), usage, replies[0].reported)


async def _all(calls: Sequence[Coroutine[Any, Any, Reply]]) -> list[Reply]:
    """All of ``calls`` at once, in order. The first error cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
