"""How many tokens a prompt has for a served model: by its tokenizer where that lies here, else by the server's count.

vLLM counts a chat with its template at ``POST /tokenize``, beside ``/v1``; a server without that path is asked once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ilab.config import Endpoint
from ilab.models.chat import Request
from ilab.models.contact import open_wire
from ilab.models.tokens import FILE, counter
from ilab.models.window import PER_MESSAGE, texts
from ilab.models.wire import Wire

TRIES = 3  # of a count that fails for another reason than that the server cannot
LIMIT = 10.0  # seconds for one


class PromptCounter:
    """Counts for ``endpoint``: ``where.teacher.tokenizer``, a served name that is a folder here, or its own count."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint = endpoint
        self._key = key
        self._counters: dict[str, Callable[[str], int] | None] = {}
        self._wire: Wire | None = None
        self._asks = TRIES if endpoint.url.rstrip("/").endswith("/v1") else 0

    async def count(self, request: Request) -> int | None:
        """The tokens of the prompt, its chat template included; None where nobody can tell.

        Raises ``InputError`` for a tokenizer that cannot be read.
        """
        if request.model not in self._counters:
            self._counters[request.model] = self._local(request.model)
        local = self._counters[request.model]
        if local is not None:
            return sum(map(local, texts(request))) + PER_MESSAGE * (len(request.messages) + 1)
        return await self._served(request) if self._asks > 0 else None

    async def close(self) -> None:
        if self._wire is not None:
            await self._wire.close()
            self._wire = None

    def _local(self, model: str) -> Callable[[str], int] | None:
        if self._endpoint.tokenizer:
            return counter(Path(self._endpoint.tokenizer).expanduser())
        folder = Path(model)
        return counter(folder) if folder.is_absolute() and (folder / FILE).is_file() else None

    async def _served(self, request: Request) -> int | None:
        asked = {name: value for name, value in request.fields().items() if name in ("model", "messages", "prompt")}
        if self._wire is None:
            root = self._endpoint.url.rstrip("/").removesuffix("/v1")
            self._wire = open_wire(self._endpoint.model_copy(update={"url": root}), self._key)
        try:
            answer = await self._wire.send("POST", "/tokenize", json.dumps(asked).encode(), LIMIT)
            told = json.loads(answer.body)["count"] if answer.status == 200 else None
        except OSError:
            self._asks -= 1
            return None
        except (ValueError, KeyError, TypeError):
            told = None
        if not isinstance(told, int) or told < 1:
            self._asks = 0 if answer.status < 500 else self._asks - 1
            return None
        return told
