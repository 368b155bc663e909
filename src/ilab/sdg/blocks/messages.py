"""One teacher call per row, with the whole conversation in a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from pydantic import ValidationError, model_validator

from ilab.data import Message
from ilab.models.ability import Ability
from ilab.models.chat import Reply, Sampling
from ilab.sdg.answer import Record
from ilab.sdg.asking import AskingBlock
from ilab.sdg.block import Context, Count, Reject, Row, resolve_count


class Messages(AskingBlock):
    """Sends ``messages`` (a list of ``role`` and ``content``) and reads the answer as ``llm`` does.

    With ``draws`` the column ``output`` holds a list of that many whole answers to the one request, which are drawn
    at temperature 0.7 where the temperature is 0.
    """

    type: ClassVar[str] = "messages"

    messages: str = "messages"
    draws: Count | None = None

    @model_validator(mode="after")
    def _draws_are_whole(self) -> Self:
        if self.draws is not None and self.read_columns() != {self.output or "output"}:
            raise ValueError("several draws are kept whole: name only output")
        return self

    def needs(self) -> frozenset[str]:
        return frozenset({self.messages})

    def abilities(self, scale: int) -> frozenset[Ability]:
        several = self.draws is not None and resolve_count(self.draws, scale) > 1
        return super().abilities(scale) | frozenset({"n"} if several else ())

    def sampling(self, row: Row, context: Context, ask: int) -> Sampling:
        sampling = super().sampling(row, context, ask)
        if self.draws is None:
            return sampling
        if self.temperature == 0:
            drawn = self.model_copy(update={"temperature": 0.7})
            sampling = AskingBlock.sampling(drawn, row, context, ask)
        return replace(sampling, n=resolve_count(self.draws, context.scale))

    def read(self, reply: Reply) -> list[Record]:
        if self.draws is None:
            return super().read(reply)
        texts = [choice.text.strip() for choice in reply.choices]
        return [{self.output or "output": texts}] if all(texts) else []

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        records, trace = await self.ask(row, _messages(row.columns[self.messages]), context, self.messages)
        return self.children(row, records, trace)


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise Reject("not a conversation", f"a list of role and content is wanted, not {str(value)[:80]!r}")
    try:
        return [Message.model_validate(dict(entry)) for entry in value]
    except (ValidationError, ValueError, TypeError) as error:
        raise Reject("not a conversation", " ".join(str(error).split())[:200]) from error
