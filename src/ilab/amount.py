"""How much to ask a teacher for, so that a wanted number of instructions is accepted and few calls are made for more.

    wanted ──▶ Ask(input rows of each leaf, samples of each row) ──generate──▶ accepted ──enough?──▶ a larger Ask

Every larger ask contains the smaller ones, and answers are kept, so asking again costs only what is new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

ROUNDS = 5  # asks until what is there must do
LEAST_RATE = 0.1  # of accepted samples that is reckoned with, however few there were
GROWTH = 3  # times as much is asked for in the next round, at most: what is new gets rarer the more there is


@dataclass(frozen=True)
class Ask:
    """``rows`` input rows of each leaf (None: all) with ``scale`` samples each."""

    rows: int | None
    scale: int

    def samples(self, inputs: Mapping[str, int]) -> int:
        """How many samples this asks for, where ``inputs`` has the number of input rows by leaf."""
        return self.scale * sum(min(count, self.rows or count) for count in inputs.values())


def ask_for(samples: int, inputs: Mapping[str, int]) -> Ask:
    """The smallest ask for ``samples``: first more input rows, each leaf as many, then more samples of each."""
    for rows in range(1, max(inputs.values(), default=0)):
        if Ask(rows, 1).samples(inputs) >= samples:
            return Ask(rows, 1)
    return Ask(None, max(1, math.ceil(samples / max(1, sum(inputs.values())))))


def ask_again(wanted: int, accepted: int, asked: Ask, inputs: Mapping[str, int]) -> Ask:
    """A larger ask, after ``asked`` had only ``accepted`` samples accepted."""
    before = asked.samples(inputs)
    rate = max(LEAST_RATE, accepted / before) if before else 1.0
    return ask_for(max(before + 1, min(math.ceil(wanted / rate), GROWTH * before)), inputs)


def worth_asking(gained: int, asked: int) -> bool:
    """Whether another round may bring enough, after one that ``asked`` for so many more and ``gained`` so many more."""
    return gained > 0 and gained >= LEAST_RATE * asked
