"""A conversation in the terminal, without the terminal: what is said, kept, saved and loaded.

``ask`` gives the answer piece by piece; ``command`` does what a line beginning with ``/`` says. Reading lines and
showing text is the caller's. The model is one in this process or an OpenAI-compatible endpoint. A session file is
a JSON list of ``{role, content}``, as in earlier InstructLab.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from ilab.core.files import write_text
from ilab.data import Message
from ilab.errors import InputError, ServiceError

if TYPE_CHECKING:
    from ilab.models.local import LocalModel, Sampling

HELP = """\
/h        show this help
/n        begin a new conversation
/s FILE   save the conversation
/l FILE   load a conversation and go on with it
/q        leave"""
TIMEOUT = 120.0  # seconds without a byte from the server
_MESSAGES = TypeAdapter(list[Message])


class Talker(Protocol):
    """Something that continues a conversation."""

    def stream(self, messages: list[Message]) -> Iterator[str]:
        """The answer's text, piece by piece."""
        ...


@dataclass(frozen=True)
class LocalTalker:
    """A model in this process."""

    model: LocalModel
    sampling: Sampling

    def stream(self, messages: list[Message]) -> Iterator[str]:
        from ilab.models.local import Answer

        return iter(Answer.to(self.model, messages, self.sampling))


@dataclass(frozen=True)
class EndpointTalker:
    """A server: ``url`` is the base (``http://127.0.0.1:8000/v1``), ``options`` go into each request as they are
    (``temperature``, ``max_tokens`` …). ``model`` None asks the server which one it has."""

    url: str
    model: str | None = None
    key: str = field(default="", repr=False)
    options: dict[str, Any] = field(default_factory=dict)

    def stream(self, messages: list[Message]) -> Iterator[str]:
        """Raises ``ServiceError`` where the server cannot be reached, refuses, or breaks off."""
        body = {
            **self.options,
            "model": self.model or self.first_model(),
            "messages": [message.model_dump() for message in messages],
            "stream": True,
        }
        for data in self._events("/chat/completions", body):
            try:
                event = json.loads(data)
                if "error" in event:
                    raise self._failed(str(event["error"].get("message", event["error"])), retryable=True)
                pieces = [choice["delta"].get("content") for choice in event["choices"]]
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise self._failed(f"the server sent something that is no chat completion: {data[:200]}") from error
            yield from (piece for piece in pieces if piece)

    def first_model(self) -> str:
        """The name of the first model that the server lists."""
        text = "".join(self._lines("/models", None))
        try:
            return str(json.loads(text)["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise self._failed("the server lists no model") from error

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        for line in self._lines(path, body):
            if line.startswith("data:"):
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                yield data
        raise self._failed("the server broke off before the answer's end", retryable=True)

    def _lines(self, path: str, body: dict[str, Any] | None) -> Iterator[str]:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{self.url!r} is no address of a server", hint="give one like http://127.0.0.1:8000/v1")
        request = urllib.request.Request(  # noqa: S310 - the scheme was just checked
            self.url.rstrip("/") + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {self.key}"} if self.key else {}),
            },
        )
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if parts.hostname in ("localhost", "127.0.0.1", "::1"):
            handlers.append(urllib.request.ProxyHandler({}))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT) as response:
                for line in response:
                    yield line.decode("utf-8", "replace").rstrip("\r\n")
        except urllib.error.HTTPError as error:
            with error:
                raise self._failed(_reason(error), retryable=error.code == 429 or error.code >= 500) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise self._failed(f"the server cannot be reached: {reason}", retryable=True) from error

    def _failed(self, message: str, retryable: bool = False) -> ServiceError:
        return ServiceError(
            message, where=self.url, hint="is it running? `ilab model serve` starts one", retryable=retryable
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the key to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server said of its refusal, in OpenAI's form or any other."""
    text = error.read(64 << 10).decode("utf-8", "replace")
    try:
        said = json.loads(text)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        said = text.strip()[:200] or error.reason
    return f"the server answered {error.code}: {said}"


@dataclass(frozen=True)
class Outcome:
    """What a command did: ``text`` is to be shown; ``quit`` ends the session."""

    kind: Literal["shown", "quit"]
    text: str


class ChatSession:
    """The conversation so far. ``memory`` is how many earlier exchanges go along with a question (None: all)."""

    def __init__(self, talker: Talker, system: str = "", memory: int | None = None) -> None:
        self._talker = talker
        self._system = (Message(role="system", content=system),) if system else ()
        self._memory = memory
        self.messages: tuple[Message, ...] = self._system

    def ask(self, text: str) -> Iterator[str]:
        """The answer, piece by piece. Question and answer are kept once there is an answer; one that the caller
        breaks off is kept as far as it came; after an error the conversation is as before."""
        question = Message(role="user", content=text)
        said: list[str] = []
        try:
            for piece in self._talker.stream([*self._remembered(), question]):
                said.append(piece)
                yield piece
        except (GeneratorExit, KeyboardInterrupt):
            if said:
                self._keep(question, said)
            raise
        self._keep(question, said)

    def command(self, line: str) -> Outcome | None:
        """Do what ``line`` says if it is a command; None where it is a question. Raises ``InputError`` for a
        command that does not exist and a file that cannot be used."""
        word, _, rest = line.strip().partition(" ")
        argument = rest.strip()
        if word in ("/q", "quit", "exit") and not argument:
            return Outcome("quit", "")
        if not word.startswith("/"):
            return None
        if word == "/h":
            return Outcome("shown", HELP)
        if word == "/n":
            self.messages = self._system
            return Outcome("shown", "A new conversation.")
        if word not in ("/s", "/l"):
            raise InputError(f"there is no command {word}", hint="/h shows them all")
        if not argument:
            raise InputError(f"{word} needs a file", hint=f"type: {word} chat.json")
        path = Path(argument).expanduser()
        if word == "/s":
            self.save(path)
            return Outcome("shown", f"Saved {len(self.messages)} messages in {path}.")
        self.load(path)
        return Outcome("shown", f"Loaded {len(self.messages)} messages from {path}.")

    def save(self, path: Path) -> None:
        """Write a session file. Only a session file is ever written over."""
        if path.exists():
            read_session(path)
        text = json.dumps([message.model_dump() for message in self.messages], indent=4, ensure_ascii=False)
        try:
            write_text(path, text + "\n")
        except OSError as error:
            raise InputError(f"this file cannot be written: {error.strerror}", where=str(path)) from error

    def load(self, path: Path) -> None:
        """Go on with a saved conversation, its system message included."""
        self.messages = tuple(read_session(path))

    def _remembered(self) -> tuple[Message, ...]:
        if self._memory is None:
            return self.messages
        head = tuple(message for message in self.messages[:1] if message.role == "system")
        return head + self.messages[len(head) :][max(0, len(self.messages) - len(head) - 2 * self._memory) :]

    def _keep(self, question: Message, said: list[str]) -> None:
        self.messages = (*self.messages, question, Message(role="assistant", content="".join(said)))


def read_session(path: Path) -> list[Message]:
    """The messages of a session file. Raises ``InputError`` where it is none."""
    try:
        return _MESSAGES.validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"this file cannot be read: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        raise InputError(
            "this is no saved conversation", where=str(path), hint="give a file that /s wrote, or a new name"
        ) from error
