"""Whether a request fits into a model's context window, found out before it is sent.

The window holds prompt and answer. A prompt that leaves too little room is refused (:class:`TooLong`) before it costs
anything; where the room is smaller than the answer may be long, and still reasonable, the answer is limited to it. A
prompt is measured only where it could matter: no text has more tokens than bytes. The server's own count is best,
then its tokenizer if it lies here; else a token per four bytes is taken, which is a little more than English prose
has. Where that was too little the server refuses, and most say their numbers: they count from then on.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ilab.models.chat import Refused, Reply, Request

LEAST_ANSWER = 64  # tokens; with less room than that no answer is asked for
LEAST_SHARE = 4  # nor with less than this part of what it may be long
PER_MESSAGE = 8  # tokens that a chat template puts around a message, and as many again around them all
BYTES = 4  # of a token, where nothing else is known

Count = Callable[[Request], Awaitable[int | None]]  # tokens of a prompt, None where nobody can tell
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|maximum context|max_model_len|n_ctx|prompt is too long|input is too long"
    r"|too many (?:input |prompt )?tokens|is longer than the (?:model|maximum)|reduce (?:the length|your prompt)",
    re.IGNORECASE,
)
_WINDOW = re.compile(
    r"(?:context (?:length|window|size)(?: of (?:this|the) model)?(?: is| of)?|context holds|n_ctx\D{1,4}"
    r"|max_model_len\D{1,4})\s*(\d+)",
    re.IGNORECASE,
)
_PROMPT = re.compile(
    r"(\d+) (?:input tokens|tokens? from the input|tokens? in (?:the|your) (?:messages|prompt)|in (?:the|your)"
    r" (?:messages|prompt))|prompt (?:has|contains(?: at least)?) (\d+)|n_prompt_tokens\D{1,4}(\d+)",
    re.IGNORECASE,
)


class TooLong(Refused):
    """The prompt leaves no room for an answer in a window of ``window`` tokens; both counts where they are known."""

    def __init__(self, message: str, *, where: str = "", prompt: int | None = None, window: int | None = None) -> None:
        super().__init__(message, where=where, hint="shorter chunks (chunk_tokens), or a model with a longer context")
        self.prompt = prompt
        self.window = window


def fit(request: Request, prompt: int, window: int, how: str = "") -> Request:
    """``request`` with an answer that fits behind a prompt of ``prompt`` tokens. Raises :class:`TooLong`.

    ``how`` says how they were counted, for the reason.
    """
    wanted = request.sampling.max_tokens
    least = LEAST_ANSWER if wanted is None else min(wanted, max(LEAST_ANSWER, wanted // LEAST_SHARE))
    room = window - prompt
    if room < least:
        counted = f"{prompt} tokens ({how})" if how else f"{prompt} tokens"
        raise TooLong(
            f"{counted} and an answer of at least {least} do not fit into {window}", prompt=prompt, window=window
        )
    if wanted is None or wanted <= room:
        return request
    return replace(request, sampling=replace(request.sampling, max_tokens=room))


async def measured(request: Request, window: int, count: Count) -> Request:
    """``request`` as it fits into ``window`` tokens. Raises :class:`TooLong` for a prompt that does not."""
    size = _size(request)
    around = PER_MESSAGE * (len(request.messages) + 1)
    if size + around + (request.sampling.max_tokens or LEAST_ANSWER) <= window:
        return request
    tokens = await count(request)
    if tokens is None:
        return fit(request, -(-size // BYTES), window, f"estimated, one for {BYTES} bytes")
    return fit(request, tokens, window)


def texts(request: Request) -> list[str]:
    """Everything that the model is to read."""
    return [request.prompt] if request.prompt is not None else [message.content for message in request.messages]


def too_long(status: int, said: str, raw: bytes, where: str) -> TooLong | None:
    """The refusal of a prompt for its length, where a server's answer is one; ``said`` are its words."""
    body = raw[:4096].decode("utf-8", "replace")
    coded = "context_length_exceeded" in body or "exceed_context_size" in body
    if status not in (400, 413, 422) or not (coded or _TOO_LONG.search(said)):
        return None
    window, prompt = _WINDOW.search(body), _PROMPT.search(body)
    counted = next((int(found) for found in prompt.groups() if found), None) if prompt else None
    return TooLong(said, where=where, prompt=counted, window=int(window.group(1)) if window else None)


def told_limit(reply: Reply, asked: Request) -> Reply:
    """``reply`` with the limit that was really sent, where it is not the one that was asked for."""
    return replace(reply, reported={**reply.reported, "max_tokens": str(asked.sampling.max_tokens)})


def _size(request: Request) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts(request))
