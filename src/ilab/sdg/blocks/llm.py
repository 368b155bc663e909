"""One teacher call per row: render a prompt, ask, read the answer, ask again when it cannot be read."""

from __future__ import annotations

from typing import ClassVar

from ilab.sdg.asking import PromptingBlock
from ilab.sdg.block import Context, Row


class Llm(PromptingBlock):
    """Adds the columns that are read from the answer; several complete records give several rows, ``<name>-<n>``.

    ``prompt`` is the template of the user message, ``system`` of the system message. ``tags`` maps columns to the
    tags that the prompt asks for; ``delimiters``, ``pattern`` and ``keys`` (JSON) are other ways; without any, the
    whole text becomes the column ``output``. What is in ``cleanup`` is removed from every value.

    Above temperature 0 the seed of a call derives from the row's id; at 0 no seed is sent and equal calls are one
    call. ``seed`` replaces the run's seed in this, ``model`` the run's teacher by another model of the same server.
    """

    type: ClassVar[str] = "llm"

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        records, trace = await self.prompted(row, context)
        return self.children(row, records, trace)
