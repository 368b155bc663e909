"""A model at an OpenAI-compatible server, asked with streaming.

Its context is what the list of models says. Prompts are counted where it could matter: by the tokenizer that
``chat.endpoint.tokenizer`` names, by the server's own count, else by an estimate, which the server's figures of each
answer correct. A field that a server refuses is left out from then on.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ilab.chat.fitting import most_tokens
from ilab.config import Endpoint
from ilab.data import Message
from ilab.errors import InputError, ServiceError
from ilab.models.completion import served_models, server_words
from ilab.models.contact import open_wire
from ilab.models.measure import PromptCounter
from ilab.models.probe import context_of
from ilab.models.secret import read_secret
from ilab.models.tls import is_local, route
from ilab.models.window import BYTES, LEAST_ANSWER, PER_MESSAGE, TooLong, too_long
from ilab.plugins import nearest

FIRST_BYTES = 64 << 10  # of a refusal that are read
LARGEST_LIST = 4 << 20  # bytes of a list of models
LARGEST_LINE = 1 << 20  # bytes of an event
INSTEAD = {"max_tokens": "max_completion_tokens", "stream_options": "", "temperature": ""}  # of a refused field


class ServedTalker:
    """The model ``model`` at ``endpoint``, which is asked for its models at once. Empty: the first one that it lists;
    where it keeps no list ``name`` stays empty until :meth:`use`.

    Raises ``InputError`` for an address or a key that cannot be one, ``ServiceError`` where no server answers.
    """

    def __init__(
        self, endpoint: Endpoint, model: str = "", *, temperature: float = 0.0, max_tokens: int | None = None
    ) -> None:
        self.endpoint = endpoint.model_copy(update={"url": endpoint.url.rstrip("/")})
        self._key = read_secret(endpoint.api_key, "the API key")
        open_wire(self.endpoint, self._key)  # refuses what is no address, and unusable TLS settings
        self._opener = self._connections()
        self._refused: set[str] = set()
        self._temperature = temperature
        self._window: int | None = None
        self._counts = True  # whether somebody can count a prompt
        self._bytes_per_token = float(BYTES)
        self.max_tokens = max_tokens
        self.models: tuple[Mapping[str, Any], ...] = self._listed()
        self.name = ""
        if model or self.models:
            self.use(model or str(self.models[0]["id"]))

    @property
    def window(self) -> int | None:
        return self.endpoint.context or self._window

    @property
    def served(self) -> list[str]:
        """The names of the models there; empty where the server keeps no list."""
        return [str(entry["id"]) for entry in self.models]

    def use(self, model: str) -> None:
        """Talk to another model of this server. Raises ``InputError``, with those that it serves, for another name."""
        if not model:
            raise self._failed("the server lists no model", hint="name one: --model NAME")
        if self.models and model not in self.served:
            raise InputError(
                f"this server does not serve a model named {model!r}",
                where=self.endpoint.url,
                hint=nearest(model, self.served),
            )
        self.name = model
        self._window = context_of(self.models, model)

    def told(self) -> dict[str, str]:
        """What the server says of the model, for people."""
        entry: Mapping[str, Any] = next((one for one in self.models if one["id"] == self.name), {})
        plain = {name: value for name, value in entry.items() if isinstance(value, str | int | float)}
        meta = entry.get("meta")
        plain |= {f"meta.{name}": value for name, value in meta.items()} if isinstance(meta, dict) else {}
        kept = {name: str(value)[:200] for name, value in plain.items() if name != "object" and value not in ("", None)}
        return {"server": self.endpoint.url, **kept}

    def count(self, messages: Sequence[Message]) -> int:
        """The prompt's tokens; an estimate where neither server nor tokenizer tells."""
        size = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in messages)
        around = PER_MESSAGE * (len(messages) + 1)
        if self.window is None or size + around <= most_tokens(self.window, self.max_tokens):
            return size + around  # no text has more tokens than bytes, and this fits anyhow
        counted = asyncio.run(self._counted(messages)) if self._counts else None
        self._counts = counted is not None
        return counted if counted is not None else round(size / self._bytes_per_token) + len(messages) + 1

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """Raises ``ServiceError`` where the server cannot be reached, refuses, or breaks off, ``TooLong`` where it says
        that the prompt is."""
        limit = self.max_tokens
        while True:
            try:
                yield from self._pieces(self._body(messages, limit), messages)
            except _RefusedField as refused:
                self._refused.add(refused.name)
            except TooLong as refusal:
                limit = _room(refusal, limit)
            else:
                return

    # -- one request ----------------------------------------------------------------------------------------------

    def _body(self, messages: Sequence[Message], limit: int | None) -> dict[str, Any]:
        wanted: dict[str, Any] = {"temperature": self._temperature, "stream_options": {"include_usage": True}}
        if limit is not None:
            wanted["max_tokens"] = limit
        fields = {INSTEAD[name] if name in self._refused else name: value for name, value in wanted.items()}
        fields.pop("", None)
        said = [{"role": message.role, "content": message.content} for message in messages]
        return {**fields, "model": self.name, "messages": said, "stream": True}

    def _pieces(self, body: Mapping[str, Any], messages: Sequence[Message]) -> Iterator[str]:
        for data in self._events("/chat/completions", body):
            try:
                event = json.loads(data)
                if event.get("error"):
                    raise self._failed(server_words(data.encode()), retryable=True)
                told = [choice["delta" if "delta" in choice else "message"] for choice in event.get("choices") or ()]
                pieces = [message.get("content") for message in told]
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise self._failed(f"the server sent something that is no chat completion: {data[:200]!r}") from error
            self._learn(event.get("usage"), messages)
            yield from (piece for piece in pieces if isinstance(piece, str) and piece)

    def _learn(self, usage: Any, messages: Sequence[Message]) -> None:
        """How many bytes a token of this server's has, by the tokens that it counted in ``messages``."""
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        around = len(messages) + 1
        size = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in messages)
        if isinstance(tokens, int) and tokens > around and size >= 200:  # of a short text it says little
            self._bytes_per_token = min(max(size / (tokens - around), 1.0), 8.0)

    async def _counted(self, messages: Sequence[Message]) -> int | None:
        from ilab.models.chat import Request

        counter = PromptCounter(self.endpoint, self._key)
        try:
            return await counter.count(Request(self.name, tuple(messages)))
        finally:
            await counter.close()

    # -- HTTP -----------------------------------------------------------------------------------------------------

    def _listed(self) -> tuple[Mapping[str, Any], ...]:
        """The server's list of models; empty where it keeps none."""
        try:
            return served_models(b"\n".join(self._lines("/models", None))[:LARGEST_LIST])
        except _NotThere:
            return ()

    def _events(self, path: str, body: Mapping[str, Any]) -> Iterator[str]:
        """The data of each event; a server that does not stream sends all of it as one."""
        whole = b""
        for line in self._lines(path, body):
            if line.startswith(b"data:"):
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                yield data.decode("utf-8", "replace")
            elif len(whole) < LARGEST_LINE:
                whole += line
        if whole.lstrip().startswith(b"{"):
            yield whole.decode("utf-8", "replace")
            return
        raise self._failed("the server broke off before the answer's end", retryable=True)

    def _lines(self, path: str, body: Mapping[str, Any] | None) -> Iterator[bytes]:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self.endpoint.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            },
        )
        try:
            with self._opener.open(request, timeout=self.endpoint.timeout) as response:
                while line := response.readline(LARGEST_LINE):
                    yield line.rstrip(b"\r\n")
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, body) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise self._failed(f"the server cannot be reached: {reason}", retryable=True) from error

    def _refusal(self, error: urllib.error.HTTPError, body: Mapping[str, Any] | None) -> Exception:
        raw = error.read(FIRST_BYTES)
        said = self._without_key(server_words(raw)) or error.reason
        if body is None and error.code in (404, 405, 501):
            return _NotThere()
        overlong = too_long(error.code, said, raw, self.endpoint.url)
        if overlong is not None:
            return overlong
        if body is not None and error.code in (400, 422):
            named = [name for name in INSTEAD if name in body and name in said]
            if named:
                return _RefusedField(named[0])
        hints = {
            401: "check the key: --api-key env:NAME or file:PATH",
            403: "check the key: --api-key env:NAME or file:PATH",
            404: "check the address: it mostly ends with /v1",
            429: "wait a little, then ask again",
        }
        return self._failed(
            f"the server answered {error.code}: {said}",
            retryable=error.code == 429 or error.code >= 500,
            hint=hints.get(error.code, f"ask what it can do: ilab endpoint check {self.endpoint.url}"),
        )

    def _failed(self, message: str, retryable: bool = False, hint: str = "") -> ServiceError:
        hint = hint or "is it running? `ilab model serve` starts one"
        return ServiceError(self._without_key(message), where=self.endpoint.url, hint=hint, retryable=retryable)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _connections(self) -> urllib.request.OpenerDirector:
        way = route(self.endpoint)
        host = urlsplit(self.endpoint.url).hostname or ""
        proxies = {} if is_local(host) or not way.proxy else {"http": way.proxy, "https": way.proxy}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), urllib.request.ProxyHandler(proxies)]
        if way.context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=way.context))
        return urllib.request.build_opener(*handlers)


def _room(refusal: TooLong, limit: int | None) -> int:
    """How long the answer may be behind a prompt that fits, by the server's own numbers. Raises ``refusal`` where it
    does not fit, or leaves too little."""
    left = (refusal.window or 0) - (refusal.prompt or 0)
    if limit is None or refusal.prompt is None or not min(limit, LEAST_ANSWER) <= left < limit:
        raise refusal
    return left


class _NotThere(Exception):
    """The server has no such path."""


class _RefusedField(Exception):
    """The server does not take the field ``name`` of a request."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the key to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
