"""A chat model that answers by a function: for tests and dry runs, without a server."""

from __future__ import annotations

from collections.abc import Callable

from ilab.models.chat import Choice, Reply, Request


class ScriptedModel:
    """A :class:`~ilab.models.chat.ChatModel`. ``function`` makes the text; ``requests`` keeps what was asked."""

    def __init__(self, function: Callable[[Request], str]) -> None:
        self.requests: list[Request] = []
        self._function = function

    async def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        text = self._function(request)
        usage = {
            "prompt_tokens": sum(len(message.content.split()) for message in request.messages),
            "completion_tokens": len(text.split()),
        }
        return Reply((Choice(text),) * request.sampling.n, usage, {"model": request.model})

    async def close(self) -> None:
        """Nothing is held open."""
