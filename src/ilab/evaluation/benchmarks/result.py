"""What any benchmark says of one model, in one form, whatever files upstream's tools expect of it besides.

A result has a ``score`` on a ``scale``, the groups that it is the mean of, and what could not be scored by reason: an
answer that nobody could mark is never a low mark.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ilab.data import Record


class Group(Record):
    """One part of a benchmark: a subject, a category, a leaf, a turn. ``score`` is ``None`` where nothing is scored."""

    name: str
    score: float | None
    standard_error: float | None = None
    n: int
    unscored: dict[str, int] = Field(default_factory=dict)


class Row(Record):
    """One question of a benchmark: what was asked and answered, the score on the benchmark's scale, or why there is
    none. ``details`` are plain JSON: turn, judge's words, likelihoods, whatever the benchmark has besides.
    """

    id: str
    group: str
    question: str
    answer: str | None = None
    reference: str | None = None
    score: float | None = None
    note: str = ""
    details: dict[str, Any] = Field(default_factory=dict)


class BenchmarkResult(Record):
    """``score`` is what the benchmark is known for; ``how`` says in one line how it is made of the rows.

    ``micro`` is the mean over all scored rows, ``macro`` that over the groups.
    """

    benchmark: str
    model: str
    judge: str | None = None
    scale: tuple[float, float]
    score: float | None
    micro: float | None = None
    macro: float | None = None
    how: str
    n: int
    unscored: dict[str, int] = Field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
