"""Exact duplicates within the leaf, before they cost further calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from ilab.core.step import fingerprint
from ilab.sdg.block import Context, GatherBlock, Reject, Row
from ilab.sdg.text import normal


class Dedup(GatherBlock):
    """Of the rows of a leaf that say the same in ``columns`` (case, marks and spaces aside) the first by id stays."""

    type: ClassVar[str] = "dedup"

    columns: tuple[str, ...] = Field(("question",), min_length=1)

    def needs(self) -> frozenset[str]:
        return frozenset(self.columns)

    def adds(self) -> frozenset[str]:
        return frozenset()

    def gather(self, rows: Sequence[Row], context: Context) -> list[Row | Reject]:
        first: dict[str, str] = {}
        answers: list[Row | Reject] = []
        for row in rows:
            key = fingerprint(*(_said(row.columns[name]) for name in self.columns))
            keeper = first.setdefault(key, row.id)
            answers.append(row if keeper == row.id else Reject("duplicate", f"the same as {keeper}"))
        return answers


def _said(value: object) -> object:
    return normal(value) if isinstance(value, str) else value
