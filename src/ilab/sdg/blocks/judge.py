"""A teacher as judge: a row goes on when its score, on a scale from 0 to 1, is high enough."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from ilab.data import Verdict
from ilab.models.chat import Reply
from ilab.sdg.answer import Record
from ilab.sdg.asking import PromptingBlock
from ilab.sdg.block import Context, Reject, Row

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SHOWN = 400  # characters of a judge's reasons that are kept


class Judge(PromptingBlock):
    """Asks for a ``verdict`` and, where the prompt asks for it, an ``explanation`` (names of columns read).

    ``scale`` says what a verdict is worth: ``[1, 3]`` maps the numbers from 1 to 3 onto 0 to 1, ``{YES: 1, NO: 0}``
    words. The row, unchanged, goes on from ``threshold`` upwards; without one that is the run's quality threshold.
    The verdict stays with the row, score and explanation included; ``reason`` is counted where a row is refused. A
    verdict that is not on the scale is asked for again.
    """

    type: ClassVar[str] = "judge"

    verdict: str = "verdict"
    explanation: str | None = None
    scale: tuple[float, float] | Mapping[str, float] = Field(default={"YES": 1.0, "NO": 0.0})
    threshold: float | None = Field(None, ge=0.0, le=1.0)
    reason: str = "judged too low"

    @model_validator(mode="after")
    def _can_be_scored(self) -> Self:
        if isinstance(self.scale, Mapping):
            if not self.scale or not all(0.0 <= worth <= 1.0 for worth in self.scale.values()):
                raise ValueError("each word of a scale is worth 0 to 1")
        elif not self.scale[0] < self.scale[1]:
            raise ValueError("a scale is [least, most], with least below most")
        for name in (self.verdict, self.explanation):
            if name is not None and name not in self.read_columns():
                raise ValueError(f"no column {name!r} is read from the answer")
        return self

    def adds(self) -> frozenset[str]:
        return frozenset()

    def read(self, reply: Reply) -> list[Record]:
        return [record for record in super().read(reply) if self.score(str(record[self.verdict])) is not None][:1]

    def score(self, verdict: str) -> float | None:
        """What ``verdict`` is worth, 0 to 1, or None where it is not on the scale."""
        if isinstance(self.scale, Mapping):
            worth = {word.casefold(): value for word, value in self.scale.items()}
            choices = "|".join(re.escape(word) for word in sorted(worth, key=len, reverse=True))
            found = [match.casefold() for match in re.findall(rf"(?<!\w)(?:{choices})(?!\w)", verdict, re.IGNORECASE)]
            # The first word counts when it stands in front ("Yes, although no date is given").
            leading = re.match(rf"\W*({choices})(?!\w)", verdict, re.IGNORECASE)
            if leading is not None:
                return worth[leading.group(1).casefold()]
            return worth[found[0]] if len(set(found)) == 1 else None
        number = NUMBER.search(verdict)
        least, most = self.scale
        if number is None or not least <= float(number.group()) <= most:
            return None
        return (float(number.group()) - least) / (most - least)

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        records, trace = await self.prompted(row, context)
        said = str(records[0][self.verdict])
        score = self.score(said) or 0.0
        why = " ".join(str(records[0][self.explanation]).split())[:SHOWN] if self.explanation else ""
        told = f"{said[:80]}: {why}" if why else said[:80]
        threshold = context.quality if self.threshold is None else self.threshold
        if score < threshold - 1e-9:
            raise Reject(self.reason, f"{score:.2f} is below {threshold:.2f}: {told}", verdict=said, score=score)
        verdict = Verdict(block=self.name, accepted=True, reason=told, score=score)
        return [row.same(replace(trace, verdicts=(*trace.verdicts, verdict)))]
