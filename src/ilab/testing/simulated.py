"""Simulated models of known accuracy: what a comparison and a gate must find, or must not.

Two models answer the same questions. Of those questions a share is ``discordant``, answered rightly by one of the two
alone; ``effect`` is how much oftener that is the second. So the truth is known, and how often a verdict is wrong can be
counted.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from ilab.data import Item, Score
from ilab.evaluation.statistics import DISCORDANT


def simulated_items(leaves: Mapping[str, int], per_cluster: int = 1) -> list[Item]:
    """So many multiple-choice items of each leaf, ``per_cluster`` of them about the same thing."""
    return [
        Item(
            id=f"{leaf}#{number:05}",
            leaf=leaf,
            split="test",
            kind="mcq",
            question="?",
            options=("right", "wrong"),
            gold="right",
            cluster=f"{leaf}/{number // per_cluster}",
        )
        for leaf, count in leaves.items()
        for number in range(count)
    ]


def simulated_pair(
    items: Sequence[Item], draw: random.Random, effects: Mapping[str, float], discordant: float = DISCORDANT
) -> dict[str, list[Score]]:
    """The scores of ``base`` and ``tuned``, the second better by the leaf's effect (-1 to 1; 0 where none is given).

    Items of one cluster are answered alike, the hardest case for an interval. Where both agree, half is right.
    """
    outcomes: dict[str, tuple[float, float]] = {}
    for item in items:
        if item.cluster not in outcomes:
            outcomes[item.cluster] = _outcome(draw, effects.get(item.leaf, 0.0), discordant)
    return {
        model: [
            Score.model_construct(
                item=item.id,
                leaf=item.leaf,
                model=model,
                kind=item.kind,
                cluster=item.cluster,
                value=outcomes[item.cluster][at],
                metrics={},
            )
            for item in items
        ]
        for at, model in enumerate(("base", "tuned"))
    }


def _outcome(draw: random.Random, effect: float, discordant: float) -> tuple[float, float]:
    differ = max(discordant, abs(effect))
    if draw.random() >= differ:
        same = float(draw.random() < 0.5)
        return same, same
    gained = draw.random() * differ < (differ + effect) / 2
    return float(not gained), float(gained)
