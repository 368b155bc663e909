"""What an endpoint can do, found out with a handful of tiny requests, and remembered for a day.

A server's list of models does not say whether it gives several choices, log probabilities or JSON, and many accept a
field and ignore it. So each is asked for and looked for in the answer. A "no" keeps the request and the server's own
words. What was found is kept by URL and model in the cache folder; it counts no longer once the server lists other
models, or after a day.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ilab.config import Endpoint
from ilab.core.files import write_json
from ilab.core.step import fingerprint
from ilab.data import Message
from ilab.errors import ServiceError
from ilab.models.chat import JSON_OBJECT, Reply, Request, Sampling, json_schema
from ilab.models.completion import PATHS, Api, parse_reply, request_body, retry_after, served_models, server_words
from ilab.models.openai import KEY_HINT, open_wire, unreachable
from ilab.models.secret import read_secret
from ilab.models.wire import Answer, NoConnection, Wire

DAY = 24 * 3600.0  # seconds for which findings count
TRIES = 4  # of a probe that a busy or failing server does not answer
LONGEST_WAIT = 30.0  # seconds for one of them
CONTEXT_NAMES = ("max_model_len", "context_length", "context_window", "max_context_length")
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}

Ability = Literal["chat", "completions", "n", "logprobs", "json_object", "json_schema", "seed"]
WORDS: Mapping[Ability, str] = {
    "chat": "chat completions",
    "completions": "completions of plain text",
    "n": "several choices in one call",
    "logprobs": "log probabilities",
    "json_object": "answers in JSON",
    "json_schema": "answers by a JSON schema",
    "seed": "equal answers for equal seeds",
}


@dataclass(frozen=True)
class Finding:
    """Whether the endpoint can do something. For a "no": the ``path`` and ``body`` sent, and what came back."""

    able: bool
    path: str = ""
    body: str = ""
    said: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What the endpoint at ``url`` can do with ``model``. ``context_length`` in tokens, where the server tells it."""

    url: str
    model: str
    models: tuple[str, ...]
    context_length: int | None
    findings: Mapping[Ability, Finding]

    def __getitem__(self, ability: Ability) -> bool:
        return self.findings[ability].able


async def probe(endpoint: Endpoint, model: str = "", *, cache: Path | None = None, fresh: bool = False) -> Capabilities:
    """Find out what ``endpoint`` can do with ``model`` (the first one that it lists, if none is given).

    ``cache`` is the folder (``where.cache``) that keeps findings; ``fresh`` asks anew. Raises ``ServiceError`` when the
    server is not there, refuses the key, or does not serve the model.
    """
    key = read_secret(endpoint.api_key)
    wire = open_wire(endpoint, key)
    try:
        entries = await _models(wire, endpoint, key)
        names = tuple(str(entry["id"]) for entry in entries)
        model = model or (names[0] if names else "")
        _check_model(endpoint, model, names)
        file = _file(cache, endpoint, model) if cache else None
        listed = fingerprint(names, _context(entries, model))
        known = None if fresh or file is None else _read(file, listed)
        if known is not None:
            return known
        found = Capabilities(endpoint.url, model, names, _context(entries, model), {})
        asker = _Asker(wire, endpoint.timeout, key)
        found = replace(found, findings=await _find(asker, endpoint, model))
        if file is not None:
            write_json(file, {"time": time.time(), "listed": listed, "capabilities": asdict(found)})
        return found
    finally:
        await wire.close()


def require(capabilities: Capabilities, needed: Iterable[Ability]) -> None:
    """Refuse an endpoint that lacks something that a flow needs, before the first paid call.

    Raises ``ServiceError`` that names all that is missing, each with the server's own words.
    """
    missing = [name for name in sorted(needed) if not capabilities[name]]
    if not missing:
        return
    reasons = "".join(f"\n  {WORDS[name]}: {capabilities.findings[name].said}" for name in missing)
    raise ServiceError(
        f"the flow needs what {capabilities.model!r} cannot do here:{reasons}",
        where=capabilities.url,
        hint="take another endpoint or flow; what this one can do: "
        f"ilab endpoint check {capabilities.url} --model {capabilities.model}",
    )


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
    body = request_body(_asked(capabilities.model), api)
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


@dataclass(frozen=True)
class _Asker:
    wire: Wire
    timeout: float
    key: str

    async def __call__(self, request: Request, api: Api) -> tuple[Reply | None, Finding]:
        """The reply, if there is one, and the finding that it would be if the reply does not show the ability."""
        path, body = PATHS[api], request_body(request, api)
        said = ""
        for attempt in range(TRIES):
            try:
                answer = await self.wire.send("POST", path, body, self.timeout)
            except OSError as error:
                said = str(error)
                continue
            reply = parse_reply(answer.body) if answer.status == 200 else None
            if isinstance(reply, Reply):
                return reply, Finding(False, path, body.decode(), "accepted and ignored")
            said = _words(answer, self.key) if reply is None else reply.reason
            if answer.status not in (408, 409, 429, 500, 502, 503, 504):
                break
            wait = retry_after(answer.headers.get("retry-after", ""), time.time())
            await asyncio.sleep(min(LONGEST_WAIT, max(wait, 0.1 * 4**attempt)))
        return None, Finding(False, path, body.decode(), said)


_Test = Callable[[_Asker, str, Api], Awaitable[Finding]]


def _asked(model: str, text: str = "ping", **sampling: Any) -> Request:
    return Request(model, (Message(role="user", content=text),), Sampling(**{"max_tokens": 1, **sampling}))


def _api(endpoint: Endpoint, findings: Mapping[Ability, Finding]) -> Api:
    """The form of request by which everything else is tried."""
    if endpoint.api != "auto":
        return endpoint.api
    return "chat" if findings["chat"].able or not findings["completions"].able else "completions"


async def _find(ask: _Asker, endpoint: Endpoint, model: str) -> dict[Ability, Finding]:
    findings: dict[Ability, Finding] = {}
    apis: tuple[Api, Api] = ("chat", "completions")
    for api in apis:
        reply, finding = await ask(_asked(model), api)
        findings[api] = replace(finding, able=reply is not None)
    used = _api(endpoint, findings)
    for ability, test in _TESTS.items():
        findings[ability] = await test(ask, model, used)
    return {
        name: replace(found, path="", body="", said="") if found.able else found for name, found in findings.items()
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
    "seed": _test_seed,
}


# -- what the server lists -----------------------------------------------------------------------------------------


async def _models(wire: Wire, endpoint: Endpoint, key: str) -> tuple[Mapping[str, Any], ...]:
    try:
        answer = await wire.send("GET", "/models", b"", endpoint.timeout)
    except NoConnection as error:
        raise unreachable(endpoint.url, error) from error
    except OSError as error:
        raise ServiceError(str(error), where=endpoint.url, hint="is this the address of a model server?") from error
    if answer.status in (401, 403):
        raise ServiceError(f"the server refuses the key: {_words(answer, key)}", where=endpoint.url, hint=KEY_HINT)
    return served_models(answer.body) if answer.status == 200 else ()


def _check_model(endpoint: Endpoint, model: str, names: tuple[str, ...]) -> None:
    if not model:
        raise ServiceError("the server lists no models", where=endpoint.url, hint="name one: --model NAME")
    if names and model not in names:
        raise ServiceError(
            f"this server does not serve a model named {model!r}",
            where=endpoint.url,
            hint=f"it serves: {', '.join(names)}; give one of these names",
        )


def _context(entries: Iterable[Mapping[str, Any]], model: str) -> int | None:
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


def _read(file: Path, listed: str) -> Capabilities | None:
    """What is remembered; None where it is too old, unreadable, or the server lists something else by now."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["listed"] != listed or not 0 <= time.time() - kept["time"] < DAY:
            return None
        told = kept["capabilities"]
        findings = {name: Finding(**told["findings"][name]) for name in WORDS}
        return Capabilities(told["url"], told["model"], tuple(told["models"]), told["context_length"], findings)
    except (OSError, ValueError, KeyError, TypeError):
        return None
