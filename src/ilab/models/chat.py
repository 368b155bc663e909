"""What every chat model is asked and answers, whoever serves it.

``Request`` and ``Reply`` are plain frozen values; :class:`ChatModel` is the protocol that the endpoint client, the
cache around it and the scripted model of the tests all meet. ``prompt_text`` is the one place that says how a
question and its context become a user message, so that training and evaluation ask in the same form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from ilab.data import Message
from ilab.errors import ServiceError

SEED_BITS = 31  # the widest seed that every known server takes (llama.cpp reads 32 bits, unsigned)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn. ``None`` leaves the choice to the server; ``n`` is the number of choices wanted."""

    temperature: float = 0.0
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1

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
        return given


@dataclass(frozen=True, slots=True)
class Request:
    """One chat completion. ``model`` is the served name, passed on verbatim."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()

    def fields(self) -> dict[str, Any]:
        """The request as plain JSON, in the OpenAI form."""
        messages = [{"role": message.role, "content": message.content} for message in self.messages]
        return {"model": self.model, "messages": messages, **self.sampling.fields()}


@dataclass(frozen=True, slots=True)
class Choice:
    """One drawn answer. ``finish_reason`` is ``length`` where the answer was cut off."""

    text: str
    finish_reason: str = "stop"


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
