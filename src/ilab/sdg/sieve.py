"""The filters after the flow, each over what the one before it let pass: all rows are seen together here.

    held-out items ▶ named benchmarks ▶ refusals ▶ exact duplicates ▶ near-duplicates ▶ more than are wanted

The first two compare samples with what must not be taught, the third looks at each alone. Only then samples are
compared with each other, within and across leaves: none gives way to one that is refused itself. Near-duplicates and
refusals are looked for only in what a teacher wrote. The last is there only where a number of instructions is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ilab.data import Item, Leaf, Rejected, Sample, digest_text
from ilab.sdg.benchmarks import BENCHMARK, Benchmark, drop_benchmarks
from ilab.sdg.decontaminate import HELD_OUT, decontaminate
from ilab.sdg.dedup import DEDUP, dedup
from ilab.sdg.made import NEAR, Made
from ilab.sdg.refusal import REFUSAL, drop_refusals

SURPLUS = "num-instructions"  # more than are wanted
FILTERS = (HELD_OUT, BENCHMARK, REFUSAL, DEDUP, NEAR)


@dataclass(frozen=True)
class Sieved:
    """What passed, and what each of ``FILTERS`` refused, in that order; then ``SURPLUS``, where a number is wanted."""

    kept: list[Made]
    refused: Mapping[str, list[Rejected]]


@dataclass(frozen=True)
class Limits:
    """What samples are held against. ``near`` is the similarity from which pairs are near-duplicates (1: never),
    ``most`` how many instructions are wanted (None: all).
    """

    leaves: Sequence[Leaf]
    held_out: Sequence[Item]
    near: float
    benchmarks: Sequence[Benchmark] = ()
    most: int | None = None


def sieve(made: Sequence[Made], limits: Limits) -> Sieved:
    """Take out of ``made`` what must not, or need not, be trained on."""
    refused: dict[str, list[Rejected]] = {}
    taught, refused[HELD_OUT] = decontaminate([one.sample for one in made], limits.held_out)
    kept, refused[BENCHMARK] = drop_benchmarks(_those(made, taught), limits.benchmarks)
    kept, refused[REFUSAL] = drop_refusals(kept, limits.leaves)
    unique, refused[DEDUP] = dedup([one.sample for one in kept])
    kept, refused[NEAR] = _those(kept, unique), []
    if limits.near < 1 and any(one.is_written_pair for one in kept):
        from ilab.sdg.near import near_duplicates

        kept, refused[NEAR] = near_duplicates(kept, limits.near)
    if limits.most is not None:
        passed, kept = kept, _those(kept, limit([one.sample for one in kept], limits.most))
        taken = {one.sample.id for one in kept}
        over = [one for one in passed if one.sample.id not in taken]
        refused[SURPLUS] = [one.refuse(SURPLUS, _surplus(one, limits.most)) for one in over]
    return Sieved(kept, refused)


def limit(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most ``most`` question-answer samples in their order, one of each leaf before the second of any, by id hash.

    Passages that are trained on whole are no instructions and are left out.
    """
    pairs = [sample for sample in samples if sample.train_on == "assistant"]
    drawn: dict[str, list[Sample]] = {}
    for sample in sorted(pairs, key=lambda sample: digest_text(sample.id)):
        drawn.setdefault(sample.leaf, []).append(sample)
    ranked = sorted((turn, leaf, sample.id) for leaf, mine in drawn.items() for turn, sample in enumerate(mine))
    taken = {identity for _, _, identity in ranked[:most]}
    return [sample for sample in pairs if sample.id in taken]


def _surplus(one: Made, most: int) -> str:
    if one.sample.train_on == "all":
        return "no instruction: a passage that is trained on whole"
    return f"over --num-instructions: {most:,} are wanted"


def _those(made: Sequence[Made], samples: Sequence[Sample]) -> list[Made]:
    ids = {sample.id for sample in samples}
    return [one for one in made if one.sample.id in ids]
