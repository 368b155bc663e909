"""A conversation in a column, for the block ``messages`` to send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ilab.data import Role
from ilab.sdg.asking import filled
from ilab.sdg.block import Block, Context, Reject, Row
from ilab.sdg.prompt import variables


class Turn(BaseModel):
    """One message: who speaks, and the template of what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str


class Conversation(Block):
    """``output`` becomes a list of ``role`` and ``content``: the ``turns`` with their templates filled in.

    Turns that turn out empty are left out; the last one must be the user's. ``names`` maps variables of the templates
    to columns of other names.
    """

    type: ClassVar[str] = "conversation"

    turns: tuple[Turn, ...] = Field(min_length=1)
    output: str = "messages"
    names: Mapping[str, str] | None = None

    def needs(self) -> frozenset[str]:
        wanted = frozenset().union(*(variables(turn.content, self.name) for turn in self.turns))
        return frozenset((self.names or {}).get(name, name) for name in wanted)

    def adds(self) -> frozenset[str]:
        return frozenset({self.output})

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        renamed = {name: row.columns[column] for name, column in (self.names or {}).items()}
        columns = {**row.columns, **renamed}
        said = [{"role": turn.role, "content": filled(turn.content, columns, self.name)} for turn in self.turns]
        kept = [message for message in said if message["content"]]
        if not kept or kept[-1]["role"] != "user":
            raise Reject("not a conversation", "the last turn is not the user's, or empty")
        return [row.holding({**row.columns, self.output: kept})]
