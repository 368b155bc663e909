"""What is looked at before a request may cost anything: can the endpoint do what the flow needs, does the prompt fit?

    request not in the memo ──▶ the endpoint is known? no: its list of models, and a probe of what is needed and not
                                known ──▶ refused, or told once what is done instead
                            ──▶ the prompt fits into the window? no: TooLong : the request, with an answer that fits

It happens at the first request that has to be asked: whoever has every answer in the memo needs no server, and a
forecast asks nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ilab.config import Endpoint
from ilab.errors import ServiceError
from ilab.models.ability import INSTEAD, WORDS, Ability, Need
from ilab.models.chat import Request
from ilab.models.probe import Capabilities, probe
from ilab.models.window import Count, measured

Tell = Callable[[str], None]


class Admission:
    """``needs`` are those of a flow, by served name. ``cache`` keeps what is found out (``where.cache``).

    ``tell`` gets a line for everything that is done otherwise than asked for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        needs: Mapping[str, Sequence[Need]] | None = None,
        *,
        cache: Path | None = None,
        tell: Tell = lambda line: None,
    ) -> None:
        self._endpoint = endpoint
        self._needs = needs or {}
        self._cache = cache
        self._tell = tell
        self._windows: dict[str, int | None] = {}
        self._meeting: asyncio.Task[None] | None = None

    async def admit(self, request: Request, count: Count) -> Request:
        """``request`` as it may be sent.

        Raises ``ServiceError`` for an endpoint that is not there, does not serve the model, or cannot do what a block
        needs, :class:`ilab.models.window.TooLong` for this one request.
        """
        if request.model not in self._windows:
            await self._met(request.model)
        window = self._windows[request.model]
        return request if window is None else await measured(request, window, count)

    async def close(self) -> None:
        if self._meeting is not None:
            self._meeting.cancel()
            await asyncio.gather(self._meeting, return_exceptions=True)
            self._meeting = None

    async def _met(self, model: str) -> None:
        """All models of the flow are looked at together: a late block's need is known before the first call."""
        while model not in self._windows:
            if self._meeting is None or (self._meeting.done() and self._meeting.exception() is None):
                meeting = self._meet(dict.fromkeys([*self._needs, model]))
                self._meeting = asyncio.get_running_loop().create_task(meeting)
            await asyncio.shield(self._meeting)

    async def _meet(self, models: Iterable[str]) -> None:
        for model in models:
            if model in self._windows:
                continue
            needs = self._needs.get(model, ())
            try:
                wanted = {need.ability for need in needs if need.ability is not None}
                found = await probe(self._endpoint, model, wanted=wanted, cache=self._cache)
            except ServiceError as error:
                named = sorted({f"{need.block!r} ({need.where})" for need in needs})
                raise _of_blocks(error, named) from error
            for line in compare(found, needs):
                self._tell(line)
            self._windows[model] = self._endpoint.context or found.context_length


def compare(found: Capabilities, needs: Sequence[Need]) -> list[str]:
    """What is done in place of what the endpoint cannot do, a line each.

    Raises ``ServiceError`` that names every need which nothing can stand in for, with the endpoint's own words.
    """
    missing: dict[Ability, list[Need]] = {}
    for need in needs:
        if need.ability is not None and not found[need.ability]:
            missing.setdefault(need.ability, []).append(need)
    reasons = "".join(
        f"\n  {need.where}: block {need.block!r} needs {WORDS[ability]}: {found.findings[ability].said}"
        for ability, lacking in missing.items()
        for need in lacking
        if need.firm or ability not in INSTEAD
    )
    if reasons:
        raise ServiceError(
            f"the flow needs what {found.model!r} cannot do here:{reasons}",
            where=found.url,
            hint=f"take another endpoint or flow; all that this one can do: ilab endpoint check {found.url} "
            f"--model {found.model}",
        )
    lines = []
    for ability, lacking in missing.items():
        blocks = ", ".join(dict.fromkeys(repr(need.block) for need in lacking))
        lines.append(f"{found.model} does not give {WORDS[ability]} (for {blocks}): {INSTEAD[ability]}")
    return lines


def _of_blocks(error: ServiceError, named: Sequence[str]) -> ServiceError:
    """``error`` with the blocks that ask for the model, where the flow names them."""
    if not named:
        return error
    message = f"{error.message}; asked for by {', '.join(named[:3])}"
    return ServiceError(message, where=error.where, hint=error.hint, retryable=error.retryable)
