"""What an endpoint may be asked for beyond an answer in words, and what is done where it cannot.

A block of a flow says what it needs (:class:`Need`); :mod:`ilab.models.probe` finds out what an endpoint can do, and
:mod:`ilab.models.admission` compares the two before the first paid call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Ability = Literal["chat", "completions", "n", "logprobs", "json_object", "json_schema", "choice", "seed"]
WORDS: Mapping[Ability, str] = {
    "chat": "chat completions",
    "completions": "completions of plain text",
    "n": "several choices in one call",
    "logprobs": "log probabilities",
    "json_object": "answers in JSON",
    "json_schema": "answers by a JSON schema",
    "choice": "answers out of a given list",
    "seed": "equal answers for equal seeds",
}
# Where an endpoint cannot, this is done in its place (:mod:`ilab.models.wording`, :mod:`ilab.models.openai`). What is
# not named here has no honest substitute: the endpoint is refused.
INSTEAD: Mapping[Ability, str] = {
    "chat": "the conversation is sent as plain text",
    "completions": "the text is sent as a user's message",
    "n": "each choice is asked for in a call of its own, with a seed of its own",
    "json_object": "the answer is read as it comes",
    "json_schema": "the answer is asked for in JSON, or where that is refused too, read as it comes",
    "choice": "the answer is read as it comes",
}


@dataclass(frozen=True, slots=True)
class Need:
    """What the block ``block`` of a flow needs of an endpoint: ``ability``, or with None only its model.

    ``where`` is the block's ``file:line``. ``firm``: nothing may stand in for it.
    """

    ability: Ability | None
    block: str
    where: str
    firm: bool = False
