"""Text of a column read into further columns: by tags, delimiters, a pattern or as JSON."""

from __future__ import annotations

from typing import ClassVar

from ilab.sdg.answer import AnswerForm
from ilab.sdg.block import Block, Context, Reject, Row


class Parse(AnswerForm, Block):
    """Reads ``column`` as ``llm`` reads an answer; several complete records give several rows, ``<name>-<n>``.

    A text without one is refused. Where a teacher wrote it, let the block that asks read it: that asks again.
    """

    type: ClassVar[str] = "parse"

    column: str

    def needs(self) -> frozenset[str]:
        return frozenset({self.column})

    def adds(self) -> frozenset[str]:
        return self.read_columns()

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        text = str(row.columns[self.column])
        records = self.records(text, truncated=False)
        if not records:
            raise Reject("the text cannot be read", f"looked for {self.wanted()}", raw=text)
        return [row.child(f"{self.name}-{number}", record) for number, record in enumerate(records, 1)]
