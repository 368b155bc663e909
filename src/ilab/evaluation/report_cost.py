"""What a build used: the teacher's tokens and their price, tokens trained on, and what a judge said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ilab.data import Judgment, Sample

MILLION = 1_000_000


def spent(
    samples: Sequence[Sample], metrics: Mapping[str, Sequence[Mapping[str, Any]]], prices: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows {what, tokens, cost}: what each teacher read and wrote for the samples that were kept, and each phase.

    ``cost`` is ``None`` without prices. Refused rows cost tokens too; their number stands with the step's counts.
    """
    used: dict[tuple[str, str], int] = {}
    for sample in samples:
        usage = sample.origin.usage or {}
        for key, kind in (("prompt_tokens", "read"), ("completion_tokens", "written")):
            if usage.get(key):
                name = (sample.origin.teacher or "teacher", kind)
                used[name] = used.get(name, 0) + usage[key]
    rows = [
        {"what": f"{teacher}, tokens {kind}", "tokens": count, "cost": _cost(count, prices.get(kind))}
        for (teacher, kind), count in sorted(used.items())
    ]
    for phase, steps in metrics.items():
        rows.append(
            {"what": f"trained on in {phase}", "tokens": sum(s.get("tokens") or 0 for s in steps), "cost": None}
        )
    return rows


def judged(judgments: Sequence[Judgment]) -> list[dict[str, Any]]:
    """Per judge and model: answers judged, how many got no mark, the mean mark, how far the passes lie apart."""
    groups: dict[tuple[str, str], list[Judgment]] = {}
    for one in judgments:
        groups.setdefault((one.judge, one.model), []).append(one)
    return [
        {
            "judge": judge,
            "model": model,
            "answers": len(found),
            "unmarked": sum(one.mark is None for one in found),
            "mean": _mean([one.mark for one in found if one.mark is not None]),
            "apart": _mean([max(marks) - min(marks) for one in found if len(marks := _marks(one)) > 1]),
        }
        for (judge, model), found in sorted(groups.items())
    ]


def _marks(one: Judgment) -> list[float]:
    return [mark for mark in one.marks if mark is not None]


def _mean(values: Sequence[float]) -> float | None:
    return round(math.fsum(values) / len(values), 6) if values else None


def _cost(tokens: int, price: float | None) -> float | None:
    return None if price is None else round(tokens * price / MILLION, 6)
