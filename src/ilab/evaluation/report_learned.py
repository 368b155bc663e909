"""What the author looks at first: which answers changed and what taught them, and what is still wrong and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ilab.data import Item, Score
from ilab.evaluation.diagnose import CAUSES, Diagnosis, Tries, covers, diagnose
from ilab.evaluation.diagnose_taught import Taught, said

JSON = Mapping[str, Any]
Answers = Mapping[str, Mapping[str, str | None]]  # model to item id to answer

SHOWN = 160  # items of either list in all, dealt evenly to the leaves ...
MOST, FEWEST = 8, 2  # ... but never more or fewer than these of one
TEXT = 200  # characters of a sample that is shown as evidence
EVIDENCE = 2  # samples, and refused rows, that are shown for one wrong answer


def explained(
    comparison: JSON, items: Sequence[Item], scores: Mapping[str, Sequence[Score]], taught: Taught
) -> list[Diagnosis]:
    """Why each wrong answer of the candidate is wrong."""
    return diagnose(items, Tries.of(scores, comparison["reference"], comparison["candidate"]), taught)


def answers_of(scores: Mapping[str, Sequence[Score]]) -> Answers:
    """What each model answered, by item."""
    return {model: {score.item: score.answer for score in found} for model, found in scores.items()}


def changed(comparison: JSON, items: Sequence[Item], answers: Answers, taught: Taught) -> list[dict[str, Any]]:
    """Per leaf with changes: the items gained and lost, with gold, all answers, and the sample that taught it."""
    known = {item.id: item for item in items}
    moved = [leaf for leaf in comparison["leaves"] if leaf["gained"] or leaf["lost"]]
    shown = _per_leaf(len(moved))
    leaves = []
    for leaf in moved:
        entry: dict[str, Any] = {"leaf": leaf["name"]}
        for side in ("gained", "lost"):
            entry[f"{side}_count"] = len(leaf[side])
            found = [known[name] for name in leaf[side] if name in known][:shown]
            entry[side] = [{**_asked(item, comparison, answers), "taught_by": source(item, taught)} for item in found]
        leaves.append(entry)
    return leaves


def still_wrong(
    diagnoses: Sequence[Diagnosis], comparison: JSON, items: Sequence[Item], answers: Answers, taught: Taught
) -> list[dict[str, Any]]:
    """Per leaf with wrong answers: how many by cause, and a few of each cause in turn with the evidence's text."""
    known = {item.id: item for item in items}
    leaves: dict[str, list[Diagnosis]] = {}
    for found in diagnoses:
        leaves.setdefault(found.leaf, []).append(found)
    return [
        {
            "leaf": leaf,
            "count": len(found),
            "causes": counted(found),
            "items": [
                {**_asked(known[one.item], comparison, answers), **one.facts(), "evidence": _evidence(one, taught)}
                for one in _in_turn(found, _per_leaf(len(leaves)))
                if one.item in known
            ],
        }
        for leaf, found in sorted(leaves.items())
    ]


def counted(diagnoses: Sequence[Diagnosis]) -> dict[str, int]:
    """How many by cause, in the order of ``CAUSES``."""
    counts = Counter(one.cause for one in diagnoses)
    return {cause: counts[cause] for cause in CAUSES if counts[cause]}


def source(item: Item, taught: Taught) -> dict[str, Any] | None:
    """The sample that is likeliest to have taught ``item``, or ``None`` where none teaches it."""
    question = " ".join(filter(None, (item.question, item.context)))
    sample = next((one for one in taught.near(question, item.gold) if covers(one, item, taught)), None)
    if sample is None:
        return None
    chunk = taught.passage(sample)
    place = taught.place(sample.leaf, sample.question) if chunk is None else None
    heading = f" ({' > '.join(chunk.heading)})" if chunk and chunk.heading else ""
    return {
        "sample": sample.id,
        "text": _clipped(said(sample)),
        "source": f"{chunk.source}{heading}" if chunk else place or sample.leaf,
    }


def _evidence(found: Diagnosis, taught: Taught) -> list[dict[str, str]]:
    """The samples and refused rows that a diagnosis names, as one line each."""
    samples = [{"id": name, "text": _clipped(said(taught.by_id[name]))} for name in found.samples[:EVIDENCE]]
    refused = {row.id: row for row in taught.rejected_by_chunk.get((found.leaf, ""), ())}
    return samples + [
        {"id": name, "text": _clipped(f"refused by {refused[name].block}: {refused[name].reason}")}
        for name in found.rejected[:EVIDENCE]
    ]


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT else f"{line[: TEXT - 1]}…"


def _asked(item: Item, comparison: JSON, answers: Answers) -> dict[str, Any]:
    return {
        "id": item.id,
        "question": item.question,
        "context": item.context,
        "gold": item.gold,
        "before": answers.get(comparison["reference"], {}).get(item.id),
        "after": answers.get(comparison["candidate"], {}).get(item.id),
        "between": {model: answers.get(model, {}).get(item.id) for model in comparison["models"][1:-1]},
    }


def _per_leaf(leaves: int) -> int:
    return max(FEWEST, min(MOST, SHOWN // max(leaves, 1)))


def _in_turn(found: Sequence[Diagnosis], most: int) -> list[Diagnosis]:
    """The first of each cause, then the second of each: what is rare is seen as well."""
    by_cause = [[one for one in found if one.cause == cause] for cause in CAUSES]
    turns = max(map(len, by_cause), default=0)
    return [group[turn] for turn in range(turns) for group in by_cause if turn < len(group)][:most]
