"""Can this judge be trusted? Its marks against people's, on the same answers.

    kappa      Cohen's κ on good or bad (the upper half of the scale), with Wilson's bounds
    weighted   Cohen's κ with quadratic weights on whole marks, where people gave marks
    probes     the reference itself must get 9 or more of 10, another question's reference 3 or less: a judge that fails
               there has not read what it marks

κ is 0 for a coin that knows how often people say "good", and 1 for a judge that always agrees. A judge is trusted from
0.4 ("moderate", Landis and Koch 1977) on at least 30 answers that both marked. Without that its marks are shown, but
no gate may hang on them alone.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from ilab.core.tables import read_table
from ilab.data import Record, digest_text, short
from ilab.errors import InputError, ServiceError
from ilab.evaluation.judge import Judge, disagreement, reason
from ilab.evaluation.rubric import QUALITY, Asked, Rubric
from ilab.evaluation.statistics import wilson

ENOUGH = 30  # answers that both people and judge marked
MODERATE = 0.4
PROBES = 10  # questions with a reference that the judge is probed with
HIGH, LOW = 0.85, 0.25  # shares of the scale: 9 and 3 of 10
WORDS = {"good": True, "bad": False}


@dataclass(frozen=True)
class Marked:
    """An answer and what a person says of it: ``mark`` on the rubric's scale, or just whether it is ``good``."""

    question: str
    answer: str
    good: bool
    mark: float | None = None
    reference: str | None = None
    context: str | None = None

    @property
    def id(self) -> str:
        return short(digest_text("\0".join([self.question, self.context or "", self.answer])))


class Calibration(Record):
    """How a judge agrees with people. ``n`` answers were marked by both; ``agreement`` is the share judged alike.

    ``passes_apart`` is what the order of reference and answer changed, in marks. ``probes`` are the known answers that
    the judge was asked about, ``probes_failed`` those that it did not recognise.
    """

    judge: str
    by_rule: bool = False
    rubric: str
    n: int
    agreement: float | None = None
    kappa: float | None = None
    low: float | None = None
    high: float | None = None
    weighted: float | None = None
    passes_apart: float | None = None
    probes: int = 0
    probes_failed: int = 0
    unscored: dict[str, int] = Field(default_factory=dict)

    def line(self) -> str:
        """The result in one line, for people."""
        if self.kappa is None or self.low is None or self.high is None:
            known = f"agreement of the judge {self.judge} with people is not known: {self.n} answers marked by both"
            return known if self.n == 0 else f"{known}, all of them alike"
        verdict = "trusted" if trusted(self) else f"not trusted (needs {MODERATE} on {ENOUGH} answers)"
        return f"judge {self.judge}: κ {self.kappa:.2f} ({self.low:.2f} to {self.high:.2f}), n = {self.n}: {verdict}"


def trusted(calibration: Calibration | None) -> bool:
    """Whether a gate may hang on this judge: κ at least 0.4 on at least 30 answers."""
    if calibration is None or calibration.kappa is None:
        return False
    return calibration.n >= ENOUGH and calibration.kappa >= MODERATE


def calibrate(judge: Judge, rows: Sequence[Marked], rubric: Rubric = QUALITY) -> Calibration:
    """Have ``judge`` mark what people marked, and the known answers.

    Raises ``ServiceError`` where the judge marked none of them.
    """
    judged = judge.mark([_asked(row) for row in rows], rubric)
    both = [(row, found) for row, found in zip(rows, judged, strict=True) if found.mark is not None]
    unscored = Counter(reason(found) for found in judged if found.mark is None)
    if rows and not both:
        reasons = ", ".join(f"{why} ({count})" for why, count in sorted(unscored.items()))
        raise ServiceError(
            f"the judge {judge.name} marked none of {len(rows)} answers: {reasons}",
            where=judge.name,
            hint="take another model as judge; see what this one says with: ilab endpoint check URL --model NAME",
        )
    shares = [found.mark for _, found in both if found.mark is not None]
    people, machine = [row.good for row, _ in both], [share >= 0.5 for share in shares]
    agreement = sum(map(operator.eq, people, machine)) / len(both) if both else None
    kappa, low, high = kappa_interval(people, machine)
    probes, failed = _probe(judge, rows, rubric)
    return Calibration(
        judge=judge.name,
        by_rule=judge.by_rule,
        rubric=rubric.name,
        n=len(both),
        agreement=agreement,
        kappa=kappa,
        low=low,
        high=high,
        weighted=_weighted([row.mark for row, _ in both], shares, rubric),
        passes_apart=disagreement(judged),
        probes=probes,
        probes_failed=failed,
        unscored=dict(sorted(unscored.items())),
    )


def cohen_kappa(first: Sequence[float], second: Sequence[float], *, quadratic: bool = False) -> float | None:
    """Cohen's κ of two raters (1960), with ``quadratic`` weights (1968) for marks, where near is better than far.

    κ = 1 - Σ w·observed / Σ w·expected over pairs of marks, with w = 1 for unequal ones, or their squared distance.
    None where chance alone explains everything: nothing was rated, or both gave one and the same mark throughout.
    """
    if len(first) != len(second):
        raise ValueError(f"two raters of the same answers, not of {len(first)} and {len(second)}")

    def distance(a: float, b: float) -> float:
        return (a - b) ** 2 if quadratic else float(a != b)

    rows, columns = Counter(first), Counter(second)
    observed = math.fsum(distance(a, b) for a, b in zip(first, second, strict=True))
    expected = math.fsum(distance(a, b) * n * m for a, n in rows.items() for b, m in columns.items())
    return 1 - observed * len(first) / expected if expected else None


def kappa_interval(
    first: Sequence[bool], second: Sequence[bool]
) -> tuple[float, float, float] | tuple[None, None, None]:
    """κ with 95 % bounds: Wilson's for the observed agreement, put through Cohen's formula with chance as it is.

    That is Cohen's (1960) large-sample interval, except that full agreement on few answers is no certainty.
    """
    kappa = cohen_kappa(first, second)
    if kappa is None:
        return None, None, None
    n = len(first)
    alike = sum(map(operator.eq, first, second))
    yes, also = sum(first) / n, sum(second) / n
    chance = yes * also + (1 - yes) * (1 - also)
    bounds = wilson(alike, n)
    low, high = ((bound - chance) / (1 - chance) for bound in (bounds.low or 0.0, bounds.high or 0.0))
    return kappa, low, high


def read_marked(path: Path, rubric: Rubric = QUALITY) -> list[Marked]:
    """Answers with people's marks, from a table (:func:`ilab.core.tables.read_table`: JSON lines, CSV and others).

    Columns are ``question``, ``answer``, ``mark`` (a number on the rubric's scale, or ``good``/``bad``), and where
    there are any ``reference`` and ``context``. Raises ``InputError`` that names the row.
    """
    rows = [_marked(row, rubric, f"row {number}", path) for number, row in enumerate(read_table(path), 1)]
    if not rows:
        raise InputError(
            "holds no marked answer", where=str(path), hint="one a line: question, answer, mark, reference"
        )
    return rows


def _marked(row: Mapping[str, Any], rubric: Rubric, name: str, path: Path) -> Marked:
    question, answer, mark, reference, context = (
        "" if row.get(column) is None else str(row[column]).strip()
        for column in ("question", "answer", "mark", "reference", "context")
    )
    if not question or not mark:
        missing = "mark" if question else "question"
        raise InputError(
            f"{name}: {missing} is missing", where=str(path), hint="each row has question, answer and mark"
        )
    good, number = WORDS.get(mark.lower()), None
    if good is None:
        number = _number(mark)
        if not rubric.low <= number <= rubric.high:
            scale = f"{rubric.low} to {rubric.high}"
            raise InputError(f"{name}: mark {mark!r} is neither good, bad nor {scale}", where=str(path))
        good = rubric.share(number) >= 0.5
    return Marked(question, answer, good, number, reference or None, context or None)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _asked(row: Marked, answer: str | None = None) -> Asked:
    said = row.answer if answer is None else answer
    return Asked(row.id, "calibration", "people's", row.question, said, row.context, row.reference)


def _weighted(people: Sequence[float | None], shares: Sequence[float], rubric: Rubric) -> float | None:
    """Quadratic κ on whole marks, of the answers that people gave a number."""
    pairs = [
        (round(mark), round(rubric.mark(share))) for mark, share in zip(people, shares, strict=True) if mark is not None
    ]
    return cohen_kappa([mark for mark, _ in pairs], [mark for _, mark in pairs], quadratic=True)


def _probe(judge: Judge, rows: Sequence[Marked], rubric: Rubric) -> tuple[int, int]:
    """How many known answers were marked, and how many of them wrongly: each reference as the answer to its own
    question, which is right, and to the next one, which is not."""
    known = list({(row.question, row.context): row for row in rows if row.reference}.values())[:PROBES]
    others = [
        (row, other.reference)
        for row, other in zip(known, [*known[1:], *known[:1]], strict=True)
        if row.reference != other.reference
    ]
    right = judge.mark([_asked(row, row.reference) for row in known], rubric)
    wrong = judge.mark([_asked(row, answer) for row, answer in others], rubric)
    passed = [one.mark >= HIGH for one in right if one.mark is not None]
    passed += [one.mark <= LOW for one in wrong if one.mark is not None]
    return len(passed), passed.count(False)
