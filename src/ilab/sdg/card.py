"""The data card: accept rates per leaf and block, and how long the samples are. Content, so no times in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ilab.data import Kind, Rejected, Sample
from ilab.sdg.engine import Tally
from ilab.sdg.flow import FlowSet

LATER = ("dedup", "decontaminate")  # refuse after the flow


def card(
    flow: FlowSet,
    kinds: Mapping[str, Kind],
    samples: Sequence[Sample],
    rejected: Sequence[Rejected],
    tallies: Mapping[str, Tally],
) -> dict[str, Any]:
    """Plain JSON: ``flow``, ``digest``, ``leaves``, ``blocks`` and ``lengths`` (in words); ``kinds`` by leaf."""
    blocks = {name: {"in": t.entered, "out": t.left, "rejected": t.rejected} for name, t in sorted(tallies.items())}
    refused = Counter(entry.block for entry in rejected)
    entering = len(samples) + sum(refused[name] for name in LATER)
    for name in LATER:
        blocks[name] = {"in": entering, "out": entering - refused[name], "rejected": refused[name]}
        entering -= refused[name]
    return {
        "flow": flow.name,
        "digest": flow.digest,
        "leaves": _leaves(kinds, samples, rejected),
        "blocks": blocks,
        "lengths": {
            "question": _lengths([len(sample.question.split()) for sample in samples]),
            "answer": _lengths([len(sample.answer.split()) for sample in samples]),
        },
    }


def _leaves(leaf_kinds: Mapping[str, Kind], samples: Sequence[Sample], rejected: Sequence[Rejected]) -> dict[str, Any]:
    accepted = Counter(sample.leaf for sample in samples)
    kinds: dict[str, Counter[str]] = {}
    for entry in rejected:
        # A reason is "kind: detail"; only kinds are worth counting.
        kinds.setdefault(entry.leaf, Counter())[entry.reason.partition(":")[0]] += 1
    return {
        leaf: {
            "kind": leaf_kinds[leaf],
            "rows": accepted[leaf] + sum(kinds.get(leaf, Counter()).values()),
            "accepted": accepted[leaf],
            "rejected": dict(sorted(kinds.get(leaf, Counter()).items())),
        }
        for leaf in sorted(leaf_kinds)
    }


def _lengths(values: list[int]) -> dict[str, int]:
    """Least, median, ninth decile (p90) and most (nearest rank)."""
    if not values:
        return {}
    ranked = sorted(values)
    last = len(ranked) - 1
    return {"least": ranked[0], "median": ranked[last // 2], "p90": ranked[last * 9 // 10], "most": ranked[-1]}
