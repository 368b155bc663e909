"""One teacher call per row, with a prompt that is chosen by the value of a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from ilab.sdg.asking import AskingBlock, chat
from ilab.sdg.block import Context, Reject, Row
from ilab.sdg.prompt import variables


class ConditionalLlm(AskingBlock):
    """As ``llm``, but ``prompts`` maps values of ``column`` to prompts. A row with another value is refused.

    The columns that any of the prompts needs must be there for all rows.
    """

    type: ClassVar[str] = "conditional-llm"
    files: ClassVar[tuple[str, ...]] = ("prompts",)

    column: str
    prompts: Mapping[str, str] = Field(min_length=1)
    system: str = ""

    def needs(self) -> frozenset[str]:
        templates = [self.system, *self.prompts.values()]
        return frozenset({self.column}).union(*(variables(text, self.name) for text in templates))

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        value = str(row.columns[self.column])
        prompt = self.prompts.get(value)
        if prompt is None:
            raise Reject("no prompt for this row", f"{self.column} = {value[:80]!r}")
        messages = chat(prompt, self.system, row.columns, self.name)
        records, trace = await self.ask(row, messages, context, f"{self.system}\0{prompt}")
        return self.children(row, records, trace)
