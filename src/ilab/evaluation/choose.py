"""Which checkpoint a training run hands on, and which leaves are still weak.

The one-standard-error rule (Breiman et al. 1984, section 3.4.3), paired: the earliest checkpoint that is behind the
best mean dev score by no more than the standard error of that very difference. All checkpoints answer the same items,
so most noise is shared, and the error of the difference, not of a mean, says what is noise (docs/decisions/0004).
The earliest good one has over-fitted least. Whether likelihoods, exact matches or a judge gave the scores makes no
difference here: a judged item's value is the judge's mark. Without scores the lowest held-out loss decides, the
earliest of equals; without that, the last checkpoint is taken and the result says so. What is no number counts as not
measured. Only dev items may come in here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ilab.data import Score
from ilab.errors import InputError
from ilab.evaluation.statistics import paired_difference

BY_SCORE = "earliest within one standard error (paired) of the best dev score"
BY_LOSS = "lowest held-out loss"
UNSELECTED = "not selected: no validation data"
LAST = "the last, as asked for"
COMPARABLE = 0.5  # of the most that any checkpoint has scores on: with fewer it is not measured

By = Literal["auto", "score", "loss", "last"]


@dataclass(frozen=True)
class Standing:
    """A checkpoint's mean dev score, how far it is ``behind`` the best, and the standard error of that difference."""

    score: float
    behind: float
    standard_error: float | None
    items: int

    @property
    def as_good(self) -> bool:
        return self.behind <= (self.standard_error or 0.0) + 1e-12


def choose(
    index: Sequence[Mapping[str, Any]], scores: Mapping[str, Sequence[Score]], by: By = "auto"
) -> dict[str, Any]:
    """Choose among ``index`` (earliest first: name, epoch, step, loss) by the dev ``scores`` of each name.

    ``by`` is the one thing to choose by, or ``auto`` for the first of scores and loss that there is. Returns plain
    JSON: ``name``, ``rule`` and ``table``: per checkpoint name, epoch, step, loss, score, behind, standard_error (of
    the difference to the best), items, chosen. Raises InputError when no checkpoint was saved, and where several were
    but there is nothing to choose by as asked for.
    """
    if not index:
        raise InputError("the training run saved no checkpoint", hint="train for at least one epoch")
    names = [entry["name"] for entry in index]
    standings = _standings(names, scores)
    losses = {entry["name"]: _finite(entry.get("loss")) for entry in index}
    name, rule = _decide(names, standings, losses, by)
    table = []
    for entry in index:
        standing = standings.get(entry["name"])
        table.append(
            {
                "name": entry["name"],
                "epoch": entry.get("epoch"),
                "step": entry.get("step"),
                "loss": losses[entry["name"]],
                "score": _rounded(standing.score if standing else None),
                "behind": _rounded(standing.behind if standing else None),
                "standard_error": _rounded(standing.standard_error if standing else None),
                "items": standing.items if standing else 0,
                "chosen": entry["name"] == name,
            }
        )
    return {"name": name, "rule": rule, "table": table}


def leaf_weights(scores: Iterable[Score], leaves: Iterable[str] = (), floor: float = 1.0) -> dict[str, float]:
    """How much more of a leaf the next mix takes: ``floor`` + (1 - mean dev score), rounded to two decimals.

    A leaf at 0 gets ``floor`` + 1, a leaf that is all right gets ``floor``; so does one of ``leaves`` on which
    nothing was measured.
    """
    values: dict[str, list[float]] = {leaf: [] for leaf in leaves}
    for score in scores:
        measured = values.setdefault(score.leaf, [])
        value = _finite(score.value)
        if value is not None:
            measured.append(value)
    return {
        leaf: round(floor + (1 - math.fsum(found) / len(found) if found else 0.0), 2)
        for leaf, found in sorted(values.items())
    }


def _standings(names: Sequence[str], scores: Mapping[str, Sequence[Score]]) -> dict[str, Standing]:
    """Where each checkpoint stands, over the items that every measured checkpoint has a score on.

    One with scores on less than half as many items as another (a judge broke off, a model computes no numbers) is
    not measured: it would leave the others to be compared on a few items.
    """
    values: dict[str, dict[str, float]] = {}
    clusters: dict[str, str] = {}
    for name in names:
        for score in scores.get(name, ()):
            value = _finite(score.value)
            if value is not None:
                values.setdefault(name, {})[score.item] = value
                clusters[score.item] = score.cluster
    most = max((len(found) for found in values.values()), default=0)
    values = {name: found for name, found in values.items() if len(found) >= COMPARABLE * most}
    shared = sorted(set.intersection(*(set(found) for found in values.values()))) if values else []
    if not shared:
        return {}
    groups = [clusters[item] for item in shared]
    vectors = {name: [found[item] for item in shared] for name, found in values.items()}
    means = {name: math.fsum(vector) / len(vector) for name, vector in vectors.items()}
    best = max((name for name in names if name in means), key=lambda name: means[name])  # the first of equals
    return {
        name: Standing(
            means[name],
            means[best] - means[name],
            paired_difference(vector, vectors[best], groups).standard_error,
            len(shared),
        )
        for name, vector in vectors.items()
    }


def _decide(
    names: Sequence[str], standings: Mapping[str, Standing], losses: Mapping[str, float | None], by: By
) -> tuple[str, str]:
    if by == "last":
        return names[-1], LAST
    if standings and by != "loss":
        return next(name for name in names if name in standings and standings[name].as_good), BY_SCORE
    known = {name: loss for name in names if (loss := losses[name]) is not None}
    if known and by != "score":
        return min(known, key=lambda name: known[name]), BY_LOSS
    if by != "auto" and len(names) > 1:
        raise _nothing_to_choose_by(by)
    return names[-1], UNSELECTED


def _nothing_to_choose_by(by: By) -> InputError:
    if by == "loss":
        return InputError(
            "no loss on held-out rows is known to choose a checkpoint by",
            where="train_select",
            hint="hold some rows out of training: -p train_validation_share=0.05",
        )
    return InputError(
        "no checkpoint has a score to be chosen by: there are no dev items",
        where="train_select",
        hint="add an eval.yaml beside qna.yaml, or -p train_select=loss -p train_validation_share=0.05",
    )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
