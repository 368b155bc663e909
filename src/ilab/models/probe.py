"""What an endpoint can do, found out with a handful of tiny requests, and remembered for a day.

A server's list of models does not say whether it gives several choices, log probabilities or JSON, and many accept a
field and ignore it. So each is asked for and looked for in the answer. A "no" keeps the request and the server's own
words. What was found is kept by URL and model in the cache folder; it counts no longer once the server lists other
models, or after a day. Only what is wanted and not known is asked for. A server that is busy or failing has not said
"no": that is not kept.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ilab.config import Endpoint
from ilab.core.files import write_json
from ilab.core.step import fingerprint
from ilab.data import Message
from ilab.errors import ServiceError
from ilab.models.ability import WORDS, Ability
from ilab.models.chat import JSON_OBJECT, Reply, Request, Sampling, json_schema
from ilab.models.completion import PATHS, Api, parse_reply, request_body, retry_after, served_models, server_words
from ilab.models.contact import FIRST_CONTACT, KEY_HINT, open_wire, unreachable
from ilab.models.secret import read_secret
from ilab.models.wire import Answer, NoConnection, Wire
from ilab.models.wording import AS_ASKED, Wording, other_limit

DAY = 24 * 3600.0  # seconds for which findings count
LISTED = 3  # tries for the list of models
TRIES = 4  # of a probe that a busy or failing server does not answer
LONGEST_WAIT = 30.0  # seconds for one of them
CONTEXT_NAMES = ("max_model_len", "context_length", "context_window", "max_context_length")
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
ANIMALS = ("okapi", "quokka")  # that nobody names unless they must


@dataclass(frozen=True)
class Finding:
    """Whether the endpoint can do something. For a "no": the ``path`` and ``body`` sent, and what came back.

    ``settled`` is false where it could not be found out: the server was busy, or failing.
    """

    able: bool
    path: str = ""
    body: str = ""
    said: str = ""
    settled: bool = True


@dataclass(frozen=True)
class Capabilities:
    """What the endpoint at ``url`` can do with ``model``, as far as it was looked for.

    ``context_length`` in tokens, where the server tells it; ``limit`` is its name for the most tokens of an answer.
    """

    url: str
    model: str
    models: tuple[str, ...]
    context_length: int | None
    findings: Mapping[Ability, Finding]
    limit: str = "max_tokens"

    def __getitem__(self, ability: Ability) -> bool:
        return self.findings[ability].able


async def probe(
    endpoint: Endpoint,
    model: str = "",
    *,
    wanted: Collection[Ability] | None = None,
    cache: Path | None = None,
    fresh: bool = False,
) -> Capabilities:
    """Find out what ``endpoint`` can do with ``model`` (the first one that it lists, if none is given).

    Only what is in ``wanted`` is tried, everything without it; without need nothing but the list of models is asked
    for. ``cache`` is the folder (``where.cache``) that keeps findings; ``fresh`` asks anew. Raises ``ServiceError``
    when the server is not there, refuses the key, or does not serve the model.
    """
    key = read_secret(endpoint.api_key)
    wire = open_wire(endpoint, key)
    try:
        entries = await _models(wire, endpoint, key)
        names = tuple(str(entry["id"]) for entry in entries)
        model = model or (names[0] if names else "")
        _check_model(endpoint, model, names)
        file = _file(cache, endpoint, model) if cache else None
        listed = fingerprint(names, context_of(entries, model))
        since, known = (time.time(), None) if fresh or file is None else _read(file, listed)
        found = known or Capabilities(endpoint.url, model, names, context_of(entries, model), {})
        asker = _Asker(wire, endpoint.timeout, key, found.limit)
        new = await _find(asker, endpoint, model, WORDS if wanted is None else wanted, found.findings)
        found = replace(found, findings={**found.findings, **new}, limit=asker.wording.limit)
        if file is not None and new:
            kept = {name: finding for name, finding in found.findings.items() if finding.settled}
            write_json(file, {"time": since, "listed": listed, "capabilities": asdict(replace(found, findings=kept))})
        return found
    finally:
        await wire.close()


def forget(cache: Path, endpoint: Endpoint, model: str) -> None:
    """Drop what is remembered, because the endpoint answered otherwise."""
    _file(cache, endpoint, model).unlink(missing_ok=True)


def curl(url: str, finding: Finding, *, key: bool) -> str:
    """The request behind a finding as a command line. The key stands in it as ``$API_KEY`` alone."""
    parts = ["curl", "-sS"]
    if key:
        parts.append('-H "Authorization: Bearer $API_KEY"')
    quoted = finding.body.replace("'", "'\\''")
    parts += ["-H 'Content-Type: application/json'", f"-d '{quoted}'", f"{url.rstrip('/')}{finding.path}"]
    return " ".join(parts)


@dataclass(frozen=True)
class Timing:
    """Seconds of one-token calls: ``single`` one after the other (median), ``together`` for ``count`` at once.

    ``failures`` counts what went wrong with those, by reason.
    """

    single: float
    together: float
    count: int
    failures: Mapping[str, int]


async def measure(endpoint: Endpoint, capabilities: Capabilities, *, count: int = 8, singles: int = 3) -> Timing:
    """How long one-token calls take, alone and several at once. Nothing is tried twice.

    Raises ``ServiceError`` when not even one of them is answered.
    """
    key = read_secret(endpoint.api_key)
    wire = open_wire(endpoint, key)
    api = _api(endpoint, capabilities.findings)
    body = request_body(_asked(capabilities.model), api, _worded(capabilities.limit))
    failures: Counter[str] = Counter()

    async def call() -> float:
        began = time.perf_counter()
        try:
            answer = await wire.send("POST", PATHS[api], body, endpoint.timeout)
            if answer.status != 200:
                failures[_words(answer, key)] += 1
        except OSError as error:
            failures[str(error)] += 1
        return time.perf_counter() - began

    try:
        single = statistics.median([await call() for _ in range(singles)])
        if failures.total() == singles:
            raise ServiceError(f"no one-token call is answered: {next(iter(failures))}", where=endpoint.url)
        failures.clear()
        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(count)))
        return Timing(single, time.perf_counter() - began, count, dict(failures))
    finally:
        await wire.close()


# -- asking --------------------------------------------------------------------------------------------------------


class _Asker:
    """Sends probes; learns by which name the server takes the most tokens of an answer."""

    def __init__(self, wire: Wire, timeout: float, key: str, limit: str) -> None:
        self.wording = _worded(limit)
        self._wire = wire
        self._timeout = timeout
        self._key = key

    async def __call__(self, request: Request, api: Api) -> tuple[Reply | None, Finding]:
        """The reply, if there is one, and the finding that it would be if the reply does not show the ability."""
        path, said, settled = PATHS[api], "", False
        for attempt in range(TRIES):
            body = request_body(request, api, self.wording)
            try:
                answer = await self._wire.send("POST", path, body, self._timeout)
            except OSError as error:
                said = str(error)
                continue
            reply = parse_reply(answer.body) if answer.status == 200 else None
            if isinstance(reply, Reply):
                return reply, Finding(False, path, body.decode(), "accepted and ignored")
            said = _words(answer, self._key) if reply is None else reply.reason
            if answer.status == 400 and self.wording is AS_ASKED and other_limit(said):
                self.wording = _worded("max_completion_tokens")
                continue
            settled = answer.status not in (408, 409, 429, 500, 502, 503, 504)
            if settled:
                break
            wait = retry_after(answer.headers.get("retry-after", ""), time.time())
            await asyncio.sleep(min(LONGEST_WAIT, max(wait, 0.1 * 4**attempt)))
        return None, Finding(False, path, body.decode(), said, settled)


def _worded(limit: str) -> Wording:
    return AS_ASKED if limit == AS_ASKED.limit else Wording(limit="max_completion_tokens")


_Test = Callable[[_Asker, str, Api], Awaitable[Finding]]


def _asked(model: str, text: str = "ping", **sampling: Any) -> Request:
    return Request(model, (Message(role="user", content=text),), Sampling(**{"max_tokens": 1, **sampling}))


def _api(endpoint: Endpoint, findings: Mapping[Ability, Finding]) -> Api:
    """The form of request by which everything else is tried."""
    if endpoint.api != "auto":
        return endpoint.api
    return "chat" if findings["chat"].able or not findings["completions"].able else "completions"


async def _find(
    ask: _Asker, endpoint: Endpoint, model: str, wanted: Collection[Ability], known: Mapping[Ability, Finding]
) -> dict[Ability, Finding]:
    """The findings that are ``wanted`` and not ``known``, and those that it takes to find them."""
    findings: dict[Ability, Finding] = {}

    async def form(api: Api) -> bool:
        if api not in known and api not in findings:
            reply, finding = await ask(_asked(model), api)
            findings[api] = replace(finding, able=reply is not None)
        return (findings.get(api) or known[api]).able

    tests = [ability for ability in _TESTS if ability in wanted and ability not in known]
    forms: tuple[Api, Api] = ("chat", "completions")
    for api in forms:
        if api in wanted:
            await form(api)
    used: Api = "chat"
    if endpoint.api != "auto":
        used = endpoint.api
    elif tests and not await form("chat"):
        used = "completions" if await form("completions") else "chat"
    for ability in tests:
        findings[ability] = await _TESTS[ability](ask, model, used)
    return {
        name: replace(found, path="", body="", said="", settled=True) if found.able else found
        for name, found in findings.items()
    }


async def _test_n(ask: _Asker, model: str, api: Api) -> Finding:
    reply, finding = await ask(_asked(model, n=2, temperature=1.0), api)
    if reply is not None and len(reply.choices) != 2:
        return replace(finding, said=f"2 choices asked for, {len(reply.choices)} given")
    return replace(finding, able=reply is not None)


async def _test_logprobs(ask: _Asker, model: str, api: Api) -> Finding:
    reply, finding = await ask(_asked(model, top_logprobs=2), api)
    return replace(finding, able=reply is not None and bool(reply.choices[0].logprobs))


async def _test_json_object(ask: _Asker, model: str, api: Api) -> Finding:
    # Some servers want the word in the prompt, and the prompt must not talk a model into JSON by itself.
    text = "Say hello in one plain word, without JSON."
    return _held(*await ask(_asked(model, text, max_tokens=24, response_format=JSON_OBJECT), api))


async def _test_json_schema(ask: _Asker, model: str, api: Api) -> Finding:
    form = json_schema("greeting", SCHEMA)
    return _held(*await ask(_asked(model, "Say hello in one plain word.", max_tokens=24, response_format=form), api))


def _held(reply: Reply | None, finding: Finding) -> Finding:
    """Whether the answer is in the form that was asked for: with 24 tokens it begins so, at least."""
    if reply is None:
        return finding
    if reply.text.lstrip().startswith("{"):
        return replace(finding, able=True)
    return replace(finding, said=f"accepted and ignored: {reply.text[:60]!r}")


async def _test_choice(ask: _Asker, model: str, api: Api) -> Finding:
    asked = _asked(model, "Say hello in one plain word.", max_tokens=12, choices=ANIMALS)
    reply, finding = await ask(asked, api)
    if reply is None or reply.text.strip() in ANIMALS:
        return replace(finding, able=reply is not None)
    return replace(finding, said=f"accepted and ignored: {reply.text[:60]!r}")


async def _test_seed(ask: _Asker, model: str, api: Api) -> Finding:
    asked = _asked(model, "Name three things, any.", max_tokens=12, temperature=1.5, seed=7)
    first, finding = await ask(asked, api)
    if first is None:
        return finding
    second, finding = await ask(asked, api)
    if second is not None and first.text != second.text:
        return replace(finding, said=f"different answers for one seed: {first.text[:40]!r}, {second.text[:40]!r}")
    return replace(finding, able=second is not None)


_TESTS: Mapping[Ability, _Test] = {
    "n": _test_n,
    "logprobs": _test_logprobs,
    "json_object": _test_json_object,
    "json_schema": _test_json_schema,
    "choice": _test_choice,
    "seed": _test_seed,
}


# -- what the server lists -----------------------------------------------------------------------------------------


async def _models(wire: Wire, endpoint: Endpoint, key: str) -> tuple[Mapping[str, Any], ...]:
    """The entries of the server's list; none where it keeps no list, or is too slow to tell."""
    said: OSError = ConnectionError("no answer")
    for attempt in range(LISTED):
        try:
            answer = await wire.send("GET", "/models", b"", min(FIRST_CONTACT, endpoint.timeout))
        except NoConnection as error:
            raise unreachable(endpoint.url, error) from error
        except TimeoutError:
            return ()
        except OSError as error:  # a connection that broke off
            said = error
            await asyncio.sleep(0.1 * 2**attempt)
            continue
        if answer.status in (401, 403):
            raise ServiceError(f"the server refuses the key: {_words(answer, key)}", where=endpoint.url, hint=KEY_HINT)
        return served_models(answer.body) if answer.status == 200 else ()
    raise ServiceError(str(said), where=endpoint.url, hint="is this the address of a model server?") from said


def _check_model(endpoint: Endpoint, model: str, names: tuple[str, ...]) -> None:
    if not model:
        raise ServiceError("the server lists no models", where=endpoint.url, hint="name one: --model NAME")
    if names and model not in names:
        raise ServiceError(
            f"this server does not serve a model named {model!r}",
            where=endpoint.url,
            hint=f"it serves: {', '.join(names)}; give one of these names",
        )


def context_of(entries: Iterable[Mapping[str, Any]], model: str) -> int | None:
    """The context length in tokens, under the names that vLLM, llama.cpp and hosted services have for it."""
    for entry in entries:
        if entry["id"] == model:
            meta = entry.get("meta")
            told = [entry.get(name) for name in CONTEXT_NAMES]
            told += [meta.get("n_ctx"), meta.get("n_ctx_train")] if isinstance(meta, dict) else []
            return next((value for value in told if isinstance(value, int) and value > 0), None)
    return None


def _words(answer: Answer, key: str) -> str:
    said = f"HTTP {answer.status}: {server_words(answer.body)}"
    return said.replace(key, "***") if key else said


# -- remembering ---------------------------------------------------------------------------------------------------


def _file(cache: Path, endpoint: Endpoint, model: str) -> Path:
    return cache / "endpoints" / f"{fingerprint(endpoint.url.rstrip('/'), model)}.json"


def _read(file: Path, listed: str) -> tuple[float, Capabilities | None]:
    """Since when findings count, and what is remembered: None where it is too old, unreadable, or the server lists
    something else by now.
    """
    now = time.time()
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["listed"] != listed or not 0 <= now - kept["time"] < DAY:
            return now, None
        told = kept["capabilities"]
        findings = {name: Finding(**found) for name, found in told["findings"].items() if name in WORDS}
        models, length = tuple(told["models"]), told["context_length"]
        return kept["time"], Capabilities(told["url"], told["model"], models, length, findings, told["limit"])
    except (OSError, ValueError, KeyError, TypeError):
        return now, None
