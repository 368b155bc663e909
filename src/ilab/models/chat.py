"""What every model is asked and answers, whoever serves it.

``Request`` and ``Reply`` are plain frozen values; :class:`ChatModel` is the protocol that the endpoint client, the
cache around it and the scripted model of the tests all meet. ``prompt_text`` is the one place that says how a
question and its context become a user message, so that training and evaluation ask in the same form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ilab.core.step import KEY_LENGTH
from ilab.data import Message
from ilab.errors import ServiceError

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
SEED_BITS = 31  # the widest seed that every known server takes (llama.cpp reads 32 bits, unsigned)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn. ``None`` leaves the choice to the server; ``n`` is the number of choices wanted.

    ``top_logprobs`` asks for the log probability of every token and of so many alternatives to it; 0 for none of
    them. ``response_format`` holds the answer to a form, see :data:`JSON_OBJECT` and :func:`json_schema`, and
    ``choices`` to one of these texts.
    """

    temperature: float = 0.0
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    top_logprobs: int | None = None
    response_format: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """What goes into a request, a cache key and a sample's provenance: only what is set."""
        given: dict[str, Any] = {"temperature": self.temperature}
        if self.max_tokens is not None:
            given["max_tokens"] = self.max_tokens
        if self.top_p is not None:
            given["top_p"] = self.top_p
        if self.seed is not None:
            given["seed"] = self.seed
        if self.stop:
            given["stop"] = list(self.stop)
        if self.n != 1:
            given["n"] = self.n
        if self.top_logprobs is not None:
            given["logprobs"] = True
            given["top_logprobs"] = self.top_logprobs
        if self.response_format is not None:
            given["response_format"] = dict(self.response_format)
        if self.choices:  # vLLM's field and its older name; it passes over the one it does not know
            given["structured_outputs"] = {"choice": list(self.choices)}
            given["guided_choice"] = list(self.choices)
        return given


JSON_OBJECT: Mapping[str, Any] = {"type": "json_object"}


def json_schema(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The ``response_format`` that holds an answer to a JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": dict(schema), "strict": True}}


@dataclass(frozen=True, slots=True)
class Request:
    """One completion: of a chat, or with ``prompt`` of a plain text (``messages`` is empty then).

    ``model`` is the served name, passed on verbatim.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    prompt: str | None = None
    _text: str = field(default="", init=False, repr=False, compare=False)

    def fields(self) -> dict[str, Any]:
        """The request as plain JSON, in the OpenAI form of a chat; a ``prompt`` stands in place of ``messages``."""
        asked: dict[str, Any] = {"model": self.model, **self.sampling.fields()}
        if self.prompt is not None:
            asked["prompt"] = self.prompt
        else:
            asked["messages"] = [{"role": message.role, "content": message.content} for message in self.messages]
        return asked

    def text(self) -> str:
        """The fields as canonical JSON (:func:`ilab.core.step.canonical`), written once: what is hashed is sent.

        Raises ``ValueError`` and ``TypeError`` for what JSON has no form for.
        """
        if not self._text:
            object.__setattr__(self, "_text", CANONICAL.encode(self.fields()))
        return self._text

    def key(self) -> str:
        """The request's identity, whoever serves the model: ``fingerprint("chat", request.fields())``."""
        return hashlib.sha256(b'["chat",%s]' % self.text().encode()).hexdigest()[:KEY_LENGTH]


@dataclass(frozen=True, slots=True)
class Choice:
    """One drawn answer. ``finish_reason`` is ``length`` where the answer was cut off.

    ``reasoning`` is what a model thought aloud before it, where the server tells it apart: never part of the answer.
    ``logprobs`` holds for each token of ``text`` its ``token`` and ``logprob``, and in ``top`` the log probabilities
    of the most likely tokens there.
    """

    text: str
    finish_reason: str = "stop"
    reasoning: str = ""
    logprobs: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: at least one choice, the tokens used, and what the server said of itself.

    ``usage`` holds ``prompt_tokens`` and ``completion_tokens`` where the server counts them; ``reported`` its
    ``model`` and ``system_fingerprint``. ``cached`` says that the answer came from the memo, without a call.
    """

    choices: tuple[Choice, ...]
    usage: dict[str, int] = field(default_factory=dict)
    reported: dict[str, str] = field(default_factory=dict)
    cached: bool = field(default=False, compare=False)

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason


class ChatModel(Protocol):
    """Anything that answers chat requests. Safe for many concurrent calls on one event loop."""

    async def complete(self, request: Request) -> Reply:
        """Answer ``request``.

        Raises :class:`Refused` when this one request is unacceptable, ``ServiceError`` with ``retryable`` when it
        failed too often, and ``ServiceError`` without it when no further request can succeed.
        """

    async def close(self) -> None:
        """Give back connections. The model may be used again afterwards, also on another event loop."""


class Refused(ServiceError):
    """The server refuses this one request (too long, an unknown field): others may still pass."""


def prompt_text(question: str, context: str | None = None) -> str:
    """The user message of a question: the question, then on a new line its context, if it has one."""
    return f"{question}\n{context}" if context else question
