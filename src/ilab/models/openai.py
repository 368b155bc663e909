"""A thin client for OpenAI-compatible servers (``/models``, ``/chat/completions``) on aiohttp.

All retries of the product are here. What may pass later is asked again: connections refused or reset, 5xx,
time-outs, malformed JSON and empty choices up to ``tries`` times, 429 and 503 for as long as the server makes
progress. A :class:`~ilab.models.budget.Budget` adapts how much is in flight, a
:class:`~ilab.models.breaker.Breaker` waits out an outage. Other 4xx are errors with the server's own words. The
first contact is one ``GET /models``: a server that is not there, or does not serve the model, is told within
seconds. The key is read by reference and stands in no error.
"""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp

from ilab.config import Endpoint
from ilab.data import digest_text, seed_from
from ilab.errors import InputError, ServiceError
from ilab.models.breaker import Breaker
from ilab.models.budget import Budget
from ilab.models.chat import Choice, Refused, Reply, Request

FIRST_CONTACT, CONNECT = 10.0, 5.0  # seconds for the whole of the first answer, and for its connection
LONGEST_BACKOFF = 8.0  # seconds
MESSAGE = 300  # characters of a server's error message that are shown


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that may be repeated. ``wait`` are the seconds that the server asked for."""

    kind: Literal["busy", "down", "slow", "garbled"]
    reason: str
    wait: float = 0.0


class OpenAIModel:
    """A :class:`~ilab.models.chat.ChatModel` at ``endpoint``.

    ``in_flight`` holds where the endpoint's own settings give none; ``tries`` is how often one request is sent at
    most, ``outage_limit`` how many seconds a failing or busy server is waited for, ``backoff`` the first pause in
    seconds (doubled each time, with jitter derived from the request).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        in_flight: int = 64,
        tries: int = 6,
        outage_limit: float = 600.0,
        backoff: float = 0.25,
    ) -> None:
        self.url = endpoint.url.rstrip("/")
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise InputError("this is no URL of a server", where=self.url, hint="like http://127.0.0.1:8000/v1")
        self.budget = Budget(endpoint.in_flight or in_flight)
        self._endpoint = endpoint
        self._key = read_secret(endpoint.api_key)
        self._tries = tries
        self._outage_limit = outage_limit
        self._backoff = backoff
        self._session: aiohttp.ClientSession | None = None
        self._contact: asyncio.Task[tuple[str, ...]] | None = None
        self._breaker = Breaker(self._probe, outage_limit, self.url)
        self._probe_model = ""

    async def complete(self, request: Request) -> Reply:
        """See :meth:`ilab.models.chat.ChatModel.complete`."""
        await self._meet(request.model)
        body = json.dumps(request.fields(), ensure_ascii=False).encode()
        began, failures = time.monotonic(), 0
        for attempt in itertools.count():
            outcome = await self._in_budget(body, request.sampling.n)
            if isinstance(outcome, Reply):
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

    async def models(self) -> tuple[str, ...]:
        """The names the server serves; empty where it keeps no list. Raises ``ServiceError`` when it is not
        there.
        """
        if self._contact is None:
            self._contact = asyncio.get_running_loop().create_task(self._first_contact())
        return await asyncio.shield(self._contact)

    async def close(self) -> None:
        await self._breaker.close()
        if self._contact is not None:
            self._contact.cancel()
            await asyncio.gather(self._contact, return_exceptions=True)
            self._contact = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- first contact -------------------------------------------------------------------------------------------

    async def _meet(self, model: str) -> None:
        served = await self.models()
        self._probe_model = model
        if served and model not in served:
            raise self._error(
                f"this server does not serve a model named {model!r}",
                f"it serves: {', '.join(served)}; give one of these names",
            )

    async def _first_contact(self) -> tuple[str, ...]:
        timeout = aiohttp.ClientTimeout(total=min(FIRST_CONTACT, self._endpoint.timeout), sock_connect=CONNECT)
        for attempt in range(3):
            try:
                async with self._open().get(f"{self.url}/models", timeout=timeout) as response:
                    status, raw = response.status, await response.read()
            except aiohttp.ClientConnectorError as error:
                raise self._unreachable(_short(error)) from error
            except aiohttp.ServerTimeoutError as error:
                raise self._unreachable(f"no connection within {CONNECT:g} seconds") from error
            except TimeoutError:
                return ()  # connected but slow, perhaps loading a model: the requests will tell
            except (aiohttp.ClientError, OSError):  # a connection that broke off
                await asyncio.sleep(self._backoff * 2**attempt)
                continue
            if status in (401, 403):
                raise self._error(f"the server refuses the key (HTTP {status}): {self._said(raw)}", KEY_HINT)
            return _served(raw) if status == 200 else ()
        raise self._unreachable("the connection breaks off")

    def _unreachable(self, reason: str) -> ServiceError:
        return self._error(
            f"no server answers here ({reason})",
            "start one with: ilab model serve   or check where.teacher.url in ilab.yaml",
        )

    # -- one attempt ---------------------------------------------------------------------------------------------

    async def _in_budget(self, body: bytes, n: int) -> Reply | Failure:
        ticket = await self._slot()
        try:
            outcome = await self._post(body, n)
        finally:
            self.budget.release()
        failure = outcome if isinstance(outcome, Failure) else None
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

    async def _post(self, body: bytes, n: int) -> Reply | Failure:
        """Send once. Raises ``ServiceError`` for answers that no repetition would change."""
        try:
            async with self._open().post(f"{self.url}/chat/completions", data=body, allow_redirects=False) as response:
                status, headers, raw = response.status, response.headers, await response.read()
        except TimeoutError:
            return Failure("slow", f"no answer within {self._endpoint.timeout:g} seconds")
        except (aiohttp.ClientError, OSError) as error:
            return Failure("down", _short(error))
        if status == 200:
            return parse_reply(raw, n)
        reason = f"HTTP {status}: {self._said(raw)}"
        if status in (429, 503):
            return Failure("busy", reason, retry_after(headers.get("Retry-After", ""), time.time()))
        if status >= 500 or status in (408, 409):
            return Failure("down", reason, retry_after(headers.get("Retry-After", ""), time.time()))
        if status in (400, 413, 422):
            raise Refused(reason, where=self.url, hint="see what the server says about this request")
        raise self._error(reason, KEY_HINT if status in (401, 403) else "check where.teacher.url in ilab.yaml")

    async def _probe(self) -> bool:
        """Whether the server answers a one-token request. A refusal is an answer, too."""
        request = {"model": self._probe_model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
        try:
            async with self._open().post(f"{self.url}/chat/completions", json=request) as response:
                await response.read()
                return response.status < 500 and response.status != 429
        except (aiohttp.ClientError, OSError):  # a time-out is an OSError
            return False

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            # The budget bounds the connections; a second bound here would hide it (aiohttp's default is 100).
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self._endpoint.timeout),
            )
        return self._session

    def _pause(self, body: bytes, attempt: int) -> float:
        """Seconds before the next attempt: exponential, between half and whole, by the request and the attempt."""
        whole = min(LONGEST_BACKOFF, self._backoff * 2.0 ** min(attempt, 16))
        jitter = seed_from(digest_text(body.decode()), attempt) / 2**63
        return whole * (0.5 + jitter / 2)

    def _said(self, raw: bytes) -> str:
        said = _message(raw)
        return said.replace(self._key, "***") if self._key else said

    def _error(self, message: str, hint: str, retryable: bool = False) -> ServiceError:
        return ServiceError(message, where=self.url, hint=hint, retryable=retryable)


KEY_HINT = "check the key that where.teacher.api_key refers to (env:NAME or file:PATH)"


def parse_reply(raw: bytes, n: int = 1) -> Reply | Failure:
    """A chat completion's body as a :class:`Reply`; what cannot be one is a ``garbled`` failure."""
    try:
        body = json.loads(raw)
        choices = tuple(
            Choice(choice["message"].get("content") or "", choice.get("finish_reason") or "stop")
            for choice in body["choices"]
        )
        usage = body.get("usage") or {}
        counted = {
            name: int(usage[name]) for name in ("prompt_tokens", "completion_tokens") if usage.get(name) is not None
        }
        reported = {name: str(body[name]) for name in ("model", "system_fingerprint") if body.get(name)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return Failure("garbled", f"not a chat completion: {raw[:80].decode('utf-8', 'replace')!r}")
    if len(choices) < n:
        return Failure("garbled", f"{len(choices)} of {n} choices")
    return Reply(choices[:n], counted, reported)


def retry_after(value: str, now: float) -> float:
    """Seconds that a ``Retry-After`` header asks for: a number, or an HTTP date against ``now`` (RFC 9110,
    10.2.3).
    """
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return 0.0


def read_secret(reference: str) -> str:
    """The secret that ``env:NAME`` or ``file:PATH`` refers to. Raises ``InputError``, which never shows the
    value.
    """
    if not reference:
        return ""
    scheme, _, name = reference.partition(":")
    if scheme == "env" and name:
        if value := os.environ.get(name, "").strip():
            return value
        raise InputError(f"the environment variable {name} is empty or not set", hint=f"type: export {name}=…")
    if scheme == "file" and name:
        try:
            return Path(name).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the key file cannot be read ({_short(error)})", where=name) from error
    raise InputError(
        "a key is given by reference, never itself",
        where="where.teacher.api_key",
        hint="write env:NAME (an environment variable) or file:PATH",
    )


def _served(raw: bytes) -> tuple[str, ...]:
    try:
        return tuple(str(entry["id"]) for entry in json.loads(raw)["data"])
    except (ValueError, KeyError, TypeError):
        return ()


def _message(raw: bytes) -> str:
    """The server's own words in an error body: ``error.message``, ``message`` or ``detail``, else its text."""
    try:
        body: Any = json.loads(raw)
    except ValueError:
        body = raw.decode("utf-8", "replace")
    if isinstance(body, dict):
        body = body.get("error", body)
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return " ".join(str(body).split())[:MESSAGE]


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:MESSAGE] or type(error).__name__
