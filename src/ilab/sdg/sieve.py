"""The filters after the flow, each over what the one before it let pass: all rows are seen together here.

    exact duplicates ▶ near-duplicates ▶ held-out items ▶ named benchmarks ▶ refusals

The first two compare samples with each other, within and across leaves, the next two with what must not be taught, the
last looks at each alone. Near-duplicates and refusals are looked for only in what a teacher wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ilab.data import Item, Leaf, Rejected, Sample
from ilab.sdg.benchmarks import BENCHMARK, Benchmark, drop_benchmarks
from ilab.sdg.decontaminate import HELD_OUT, decontaminate
from ilab.sdg.dedup import DEDUP, dedup
from ilab.sdg.made import NEAR, Made
from ilab.sdg.refusal import REFUSAL, drop_refusals

FILTERS = (DEDUP, NEAR, HELD_OUT, BENCHMARK, REFUSAL)


@dataclass(frozen=True)
class Sieved:
    """What passed, and what each of ``FILTERS`` refused, in that order."""

    kept: list[Made]
    refused: Mapping[str, list[Rejected]]


@dataclass(frozen=True)
class Limits:
    """What samples are held against. ``near`` is the similarity from which pairs are near-duplicates; 1: never."""

    leaves: Sequence[Leaf]
    held_out: Sequence[Item]
    near: float
    benchmarks: Sequence[Benchmark] = ()


def sieve(made: Sequence[Made], limits: Limits) -> Sieved:
    """Take out of ``made`` what must not, or need not, be trained on."""
    refused: dict[str, list[Rejected]] = {}
    unique, refused[DEDUP] = dedup([one.sample for one in made])
    kept, refused[NEAR] = _those(made, unique), []
    if limits.near < 1 and any(one.is_written_pair for one in kept):
        from ilab.sdg.near import near_duplicates

        kept, refused[NEAR] = near_duplicates(kept, limits.near)
    taught, refused[HELD_OUT] = decontaminate([one.sample for one in kept], limits.held_out)
    kept, refused[BENCHMARK] = drop_benchmarks(_those(kept, taught), limits.benchmarks)
    kept, refused[REFUSAL] = drop_refusals(kept, limits.leaves)
    return Sieved(kept, refused)


def _those(made: Sequence[Made], samples: Sequence[Sample]) -> list[Made]:
    ids = {sample.id for sample in samples}
    return [one for one in made if one.sample.id in ids]
