"""The OpenAI protocol as values: requests as bodies, bodies as replies, error bodies as the server's own words.

Two forms are spoken, chat completions and the older completions of plain text; each request can be put into either.
Servers differ in what they leave out, so a body is taken for what it holds: missing usage, ``null`` content and unknown
fields are fine, a body without choices is not.
"""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ilab.models.chat import CANONICAL, Choice, Reply, Request
from ilab.models.wording import AS_ASKED, Wording

Api = Literal["chat", "completions"]
PATHS: dict[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}
MESSAGE = 300  # characters of a server's error message that are shown
USAGE = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that may be repeated. ``wait`` are the seconds that the server asked for."""

    kind: Literal["busy", "down", "slow", "garbled"]
    reason: str
    wait: float = 0.0


def own_api(request: Request) -> Api:
    """The form that a request is written in."""
    return "chat" if request.prompt is None else "completions"


def request_body(request: Request, api: Api, wording: Wording = AS_ASKED) -> bytes:
    """The body of ``request`` in the form of ``api``, as the server wants it worded."""
    if api == "chat" and request.prompt is None and wording is AS_ASKED:
        return request.text().encode()
    fields = wording.apply(request.fields(), chat=api == "chat")
    if api == "chat" and request.prompt is None:
        return CANONICAL.encode(fields).encode()
    if api == "chat":
        fields["messages"] = [{"role": "user", "content": fields.pop("prompt")}]
    else:
        if request.prompt is None:
            fields["prompt"] = plain_prompt(request)
            del fields["messages"]
        if fields.pop("logprobs", False):
            fields["logprobs"] = fields.pop("top_logprobs")  # a number there, how many alternatives
    return CANONICAL.encode(fields).encode()


def plain_prompt(request: Request) -> str:
    """A chat as plain text, for servers without chat: a single question stands as it is, turns are named."""
    system = [message.content for message in request.messages if message.role == "system"]
    turns = [message for message in request.messages if message.role != "system"]
    if len(turns) == 1:
        return "\n\n".join([*system, turns[0].content])
    named = [f"{message.role.capitalize()}: {message.content}" for message in turns]
    return "\n\n".join([*system, *named, "Assistant:"])


def parse_reply(raw: bytes) -> Reply | Failure:
    """A completion's body as a :class:`Reply` of one choice or more; what cannot be one is a ``garbled`` failure."""
    try:
        body = json.loads(raw)
        choices = tuple([_choice(choice) for choice in body["choices"]])
        usage = body.get("usage") or {}
        counted = {name: int(usage[name]) for name in USAGE if usage.get(name) is not None}
        reported = {name: str(body[name]) for name in ("model", "system_fingerprint") if body.get(name)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return Failure("garbled", f"not a completion: {raw[:80].decode('utf-8', 'replace')!r}")
    return Reply(choices, counted, reported) if choices else Failure("garbled", "no choices")


def served_models(raw: bytes) -> tuple[Mapping[str, Any], ...]:
    """The entries of a list of models, each with its ``id``; empty where the body is none."""
    try:
        return tuple(entry for entry in json.loads(raw)["data"] if isinstance(entry["id"], str))
    except (ValueError, KeyError, TypeError):
        return ()


def server_words(raw: bytes) -> str:
    """The server's own words in an error body: ``error.message``, ``message`` or ``detail``, else its text."""
    try:
        body: Any = json.loads(raw)
    except ValueError:
        body = raw.decode("utf-8", "replace")
    if isinstance(body, dict):
        body = body.get("error", body)
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    # Control characters would reach the terminal.
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(body)[: 4 * MESSAGE]).split())[:MESSAGE]


def retry_after(value: str, now: float) -> float:
    """Seconds that a ``Retry-After`` header asks for: a number, or an HTTP date against ``now`` (RFC 9110, 10.2.3)."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return 0.0


def _choice(choice: Mapping[str, Any]) -> Choice:
    message = choice.get("message")
    finish = choice.get("finish_reason") or "stop"
    reasoning = ""
    if message is None:
        text = choice["text"]
    else:
        text = message.get("content")
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    if isinstance(text, list):  # parts, as some servers send them
        text = "".join(str(part.get("text", "")) for part in text)
    told = choice.get("logprobs")
    return Choice(_text(text), str(finish), _text(reasoning), _logprobs(told) if told else None)


def _text(value: Any) -> str:
    """``value``, which may be missing. Raises ``TypeError`` for anything but text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    return value


def _logprobs(told: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Both forms alike; see :class:`ilab.models.chat.Choice`."""
    if told.get("content") is not None:
        return tuple(
            {
                "token": str(entry["token"]),
                "logprob": float(entry["logprob"]),
                "top": {str(other["token"]): float(other["logprob"]) for other in entry.get("top_logprobs") or ()},
            }
            for entry in told["content"]
        )
    tokens, values = told.get("tokens") or (), told.get("token_logprobs") or ()
    tops = told.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        {"token": str(token), "logprob": float(value or 0.0), "top": {str(t): float(v) for t, v in (top or {}).items()}}
        for token, value, top in zip(tokens, values, tops, strict=True)
    )
