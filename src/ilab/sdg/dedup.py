"""Exact duplicates, within and across leaves: the first by id stays, the others are kept as rejected rows."""

from __future__ import annotations

from collections.abc import Sequence

from ilab.data import Rejected, Sample, digest_text
from ilab.sdg.made import refuse
from ilab.sdg.text import normal

DEDUP = "dedup"


def dedup(samples: Sequence[Sample]) -> tuple[list[Sample], list[Rejected]]:
    """Samples without those that say the same as one with a smaller id (same words asked and answered)."""
    first: dict[str, str] = {}
    for sample in samples:
        key = _key(sample)
        first[key] = min(sample.id, first.get(key, sample.id))
    kept, dropped = [], []
    for sample in samples:
        keeper = first[_key(sample)]
        if keeper == sample.id:
            kept.append(sample)
        else:
            dropped.append(refuse(sample, DEDUP, f"duplicate: the same as {keeper}"))
    return kept, dropped


def _key(sample: Sample) -> str:
    return digest_text(f"{sample.train_on}\0{normal(sample.question)}\0{normal(sample.answer)}")
