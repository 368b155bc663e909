"""One teacher call per row that keeps how likely the model found each token of its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from ilab.models.ability import Ability
from ilab.models.chat import Reply, Sampling
from ilab.sdg.answer import Record
from ilab.sdg.asking import PromptingBlock
from ilab.sdg.block import Context, Row


class Logprobs(PromptingBlock):
    """As ``llm`` with the whole text as answer, and ``logprobs``: a list with each token of the answer, its natural
    log probability (``logprob``) and that of the ``top`` most likely tokens in its place.

    The server must report log probabilities; an answer without them cannot be read.
    """

    type: ClassVar[str] = "logprobs"

    logprobs: str = "logprobs"
    top: int = Field(10, ge=0, le=20)

    @model_validator(mode="after")
    def _answer_is_whole(self) -> Self:
        if self.read_columns() != {self.output or "output"}:
            raise ValueError("the tokens are those of the whole answer: name only output")
        return self

    def adds(self) -> frozenset[str]:
        return self.read_columns() | {self.logprobs}

    def abilities(self, scale: int) -> frozenset[Ability]:
        return super().abilities(scale) | {"logprobs"}

    def sampling(self, row: Row, context: Context, ask: int) -> Sampling:
        return replace(super().sampling(row, context, ask), top_logprobs=self.top)

    def read(self, reply: Reply) -> list[Record]:
        tokens = reply.choices[0].logprobs
        if not tokens:
            return []
        return [{**record, self.logprobs: [dict(token) for token in tokens]} for record in super().read(reply)]

    def wanted(self) -> str:
        return "a text with log probabilities"

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        records, trace = await self.prompted(row, context)
        return self.children(row, records, trace)
