"""The data card: what was made, from what, and what was refused where. Content, so no times in it.

flow, digest      of the flow
leaves            each: kind, rows, accepted, rejected (by reason), filters (rows in and out, in their order),
                  languages, seed_language, foreign (how many samples are in another one, and some), examples
blocks            rows in, out and rejected of each block of the flow, and of each filter after it
lengths           of the user's message and the answer, in words and in tokens (estimated: a quarter of the bytes)
types             samples by kind of leaf, branch and block of the flow, by who wrote them, by what is trained on
languages         samples by language (a guess)
across_leaves     duplicates of samples of another leaf, exact and near, and between which leaves
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ilab.data import Kind, Leaf, Rejected, Sample, seed_from
from ilab.sdg.dedup import DEDUP
from ilab.sdg.engine import Result
from ilab.sdg.flow import FlowSet
from ilab.sdg.language import UNKNOWN, guess_language
from ilab.sdg.made import NEAR, Made
from ilab.sdg.sieve import Sieved

EXAMPLES = 5  # of each leaf
FOREIGN = 20  # samples in another language that are named, of each leaf
BYTES_PER_TOKEN = 4  # of English prose, under the usual tokenizers


def card(flow: FlowSet, leaves: Sequence[Leaf], sieved: Sieved, result: Result) -> dict[str, Any]:
    """The card as plain JSON; see above."""
    samples = [one.sample for one in sieved.kept]
    languages = {one.sample.id: guess_language(f"{one.question}\n{one.answer}") for one in sieved.kept}
    return {
        "flow": flow.name,
        "digest": flow.digest,
        "leaves": _leaves(flow, leaves, sieved, result, languages),
        "blocks": _blocks(samples, sieved, result),
        "lengths": {
            "question": _lengths([sample.question for sample in samples]),
            "answer": _lengths([sample.answer for sample in samples]),
        },
        "types": _types(flow, {leaf.path: leaf.kind for leaf in leaves}, samples),
        "languages": _counted(languages.values()),
        "across_leaves": _across_leaves(sieved),
    }


def _blocks(samples: Sequence[Sample], sieved: Sieved, result: Result) -> dict[str, dict[str, int]]:
    tallies = sorted(result.tallies.items())
    blocks = {name: {"in": t.entered, "out": t.left, "rejected": t.rejected} for name, t in tallies}
    entering = len(samples) + sum(len(found) for found in sieved.refused.values())
    for name, found in sieved.refused.items():
        refused = len(found)
        blocks[name] = {"in": entering, "out": entering - refused, "rejected": refused}
        entering -= refused
    return blocks


def _leaves(
    flow: FlowSet, leaves: Sequence[Leaf], sieved: Sieved, result: Result, languages: Mapping[str, str]
) -> dict[str, Any]:
    made: dict[str, list[Made]] = {leaf.path: [] for leaf in leaves}
    for one in sieved.kept:
        made[one.sample.leaf].append(one)
    refused: dict[str, list[Rejected]] = {leaf.path: [] for leaf in leaves}
    for entry in [*result.rejected, *(entry for found in sieved.refused.values() for entry in found)]:
        refused[entry.leaf].append(entry)
    told = {}
    for leaf in sorted(leaves, key=lambda leaf: leaf.path):
        samples = [one.sample for one in made[leaf.path]]
        told[leaf.path] = {
            "kind": leaf.kind,
            "rows": len(samples) + len(refused[leaf.path]),
            "accepted": len(samples),
            # A reason is "kind: detail"; only kinds are worth counting.
            "rejected": _counted(entry.reason.partition(":")[0] for entry in refused[leaf.path]),
            "filters": _filters(flow, leaf, len(samples), sieved, result),
            **_spoken(leaf, samples, languages),
            "examples": _examples(samples),
        }
    return told


def _filters(flow: FlowSet, leaf: Leaf, accepted: int, sieved: Sieved, result: Result) -> list[dict[str, Any]]:
    """The blocks that refused rows of leaves of this kind, and the filters after the flow: rows in and out."""
    refused = Counter(entry.block for entry in result.rejected if entry.leaf == leaf.path)
    found: list[dict[str, Any]] = []
    for branch in flow.flows[leaf.kind].branches:
        for block in branch.blocks:
            tally = result.tallies.get(f"{leaf.kind}/{block.name}")
            if tally is not None and tally.rejected:
                passed = tally.leaves[leaf.path]
                found.append({"filter": block.name, "in": passed + refused[block.name], "out": passed})
    later = {name: sum(entry.leaf == leaf.path for entry in refused) for name, refused in sieved.refused.items()}
    entering = accepted + sum(later.values())
    for name, count in later.items():
        found.append({"filter": name, "in": entering, "out": entering - count})
        entering -= count
    return found


def _spoken(leaf: Leaf, samples: Sequence[Sample], languages: Mapping[str, str]) -> dict[str, Any]:
    """The languages of a leaf's samples, and those that are in another than its seed examples."""
    pairs = [pair for seed in leaf.seeds for pair in seed.pairs]
    own = guess_language("\n".join(f"{pair.question}\n{pair.answer}" for pair in pairs))
    foreign = [sample.id for sample in samples if own != UNKNOWN and languages[sample.id] not in (own, UNKNOWN)]
    return {
        "languages": _counted(languages[sample.id] for sample in samples),
        "seed_language": own,
        "foreign": {
            "count": len(foreign),
            "samples": {identity: languages[identity] for identity in sorted(foreign)[:FOREIGN]},
        },
    }


def _examples(samples: Sequence[Sample]) -> list[str]:
    """A few samples, one of each block in turn, drawn by their ids: one more sample changes few of them."""
    blocks: dict[str, list[str]] = {}
    for identity, block in sorted((sample.id, sample.origin.block) for sample in samples):
        blocks.setdefault(block, []).append(identity)
    drawn = [
        (turn, block, identity)
        for block, found in blocks.items()
        for turn, identity in enumerate(sorted(found, key=lambda identity: seed_from(identity, 0))[:EXAMPLES])
    ]
    return [identity for _, _, identity in sorted(drawn)[:EXAMPLES]]


def _types(flow: FlowSet, kinds: Mapping[str, Kind], samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    branches = {
        (kind, block.name): f"{kind}/{branch.name}"
        for kind, one in flow.flows.items()
        for branch in one.branches
        for block in branch.blocks
    }
    placed = [(kinds[sample.leaf], sample.origin.block) for sample in samples]
    return {
        "kind": _counted(kind for kind, _ in placed),
        "branch": _counted(branches.get((kind, block), f"{kind}/{UNKNOWN}") for kind, block in placed),
        "block": _counted(f"{kind}/{block or UNKNOWN}" for kind, block in placed),
        "written by": _counted("teacher" if sample.origin.teacher else "rule" for sample in samples),
        "trained on": _counted("answer" if sample.train_on == "assistant" else "whole text" for sample in samples),
    }


def _across_leaves(sieved: Sieved) -> dict[str, Any]:
    """Samples that were dropped for one of another leaf. A reason ends with the id of the one that stays."""
    everything = [*((one.sample.id, one.sample.leaf) for one in sieved.kept)]
    everything += [(entry.id, entry.leaf) for found in sieved.refused.values() for entry in found]
    leaf_of = dict(everything)
    between: Counter[tuple[str, str, str]] = Counter()
    for name, kind, mark in ((DEDUP, "exact", " the same as "), (NEAR, "near", " alike to ")):
        for entry in sieved.refused[name]:
            first = leaf_of[entry.reason.partition(mark)[2]]
            if first != entry.leaf:
                between[entry.leaf, first, kind] += 1
    return {
        "exact": sum(count for (_, _, kind), count in between.items() if kind == "exact"),
        "near": sum(count for (_, _, kind), count in between.items() if kind == "near"),
        "pairs": [
            {"leaf": leaf, "of": first, "kind": kind, "count": count}
            for (leaf, first, kind), count in sorted(between.items())
        ],
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _lengths(texts: Sequence[str]) -> dict[str, Any]:
    """Least, median, ninth decile and most, in words and tokens; samples by words, up to powers of two."""
    counts = [len(text.split()) for text in texts]
    bounds = Counter(1 << max(0, count - 1).bit_length() for count in counts)
    return {
        "words": _ranks(counts),
        "tokens": _ranks([-(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) for text in texts]),
        "up_to_words": [[bound, count] for bound, count in sorted(bounds.items())],
    }


def _ranks(values: list[int]) -> dict[str, int]:
    """By nearest rank."""
    if not values:
        return {}
    ranked = sorted(values)
    last = len(ranked) - 1
    return {"least": ranked[0], "median": ranked[last // 2], "p90": ranked[last * 9 // 10], "most": ranked[-1]}
