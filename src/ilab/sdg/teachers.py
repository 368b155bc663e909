"""The clients of the models that a run of flows asks, each with what the flows need of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ilab.config import Endpoint, Where, cache_home
from ilab.core.events import Emit
from ilab.errors import InputError
from ilab.models.ability import Need
from ilab.sdg.flow import Flow
from ilab.sdg.needs import needs_of, verifier_needs

if TYPE_CHECKING:
    from ilab.models.openai import OpenAIModel


def open_teacher(
    where: Where, flows: Collection[Flow], name: str, scale: int, emit: Emit, family: str = ""
) -> OpenAIModel | None:
    """The teacher's client, or None where no endpoint is configured. Nothing is sent yet.

    With a ``family`` it is asked by plain prompts alone. Raises InputError where the endpoint is set to chat.
    """
    if where.teacher is None:
        return None
    endpoint, needs = where.teacher, needs_of(flows, name, scale)
    if family:
        if endpoint.api == "chat":
            raise InputError(
                f"sdg_teacher_family={family} asks by plain prompts, and where.teacher.api is chat",
                where="sdg_teacher_family",
                hint="leave one of the two out: a chat server knows its model's format",
            )
        endpoint = endpoint.model_copy(update={"api": "completions"})
        needs[name] = [*needs[name], Need("completions", "sdg_teacher_family", family, firm=True)]
    return _client(endpoint, needs, where, emit)


def open_verifier(where: Where, flows: Collection[Flow], name: str, scale: int, emit: Emit) -> OpenAIModel | None:
    """The client of the second teacher; None where no flow asks one. Raises as :func:`ask_verifier` does."""
    needs = ask_verifier(where, flows, name, scale)
    return _client(where.verifier, needs, where, emit) if needs and where.verifier else None


def ask_verifier(where: Where, flows: Collection[Flow], name: str, scale: int) -> Mapping[str, Sequence[Need]]:
    """What the flows need of a second teacher; empty where none asks one.

    Raises ``InputError`` that names the first block that does, where its endpoint or its name is not given.
    """
    needs = verifier_needs(flows, name, scale)
    if needs and (where.verifier is None or not name):
        first = next(iter(needs.values()))[0]
        raise InputError(
            f"block {first.block!r} asks a second teacher, and there is none",
            where=first.where,
            hint="add --set where.verifier.url=URL and -p sdg_verifier_model=NAME, another model than the teacher",
        )
    return needs


def _client(endpoint: Endpoint, needs: Mapping[str, Sequence[Need]], where: Where, emit: Emit) -> OpenAIModel:
    from ilab.models.admission import Admission
    from ilab.models.openai import OpenAIModel

    cache = Path(where.cache) if where.cache else cache_home()
    admission = Admission(endpoint, needs, cache=cache, tell=lambda line: emit.metric(note=line))
    return OpenAIModel(endpoint, admission=admission)
