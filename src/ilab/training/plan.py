"""The planner: one pure function from lengths to what is trained when.

    (lengths, trained tokens, seed, epoch, batch, cap, layout)  ->  steps of micro-batches with their divisors

It drives the loop, resume, the ETA and the estimate of tokens, so none of them can disagree. A *step* is one optimizer
update over ``batch`` samples. Its divisor, the number of trained tokens in the whole step, is known before the forward
pass, so the loss is exact however the step is cut into micro-batches.

Layouts: ``bucketed`` puts one sample in a row, rows of similar length together, padded on the right; ``packed`` puts
samples one behind the other in a row, with restarting positions. The composition of a step never depends on the
layout. On a CPU short samples train 1.3-2.3 times faster in buckets than packed with a dense mask, hence ``auto``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ilab.data import seed_from

Layout = Literal["auto", "packed", "bucketed"]
SHORT = 256  # mean tokens per sample below which buckets win on a CPU
WINDOW = 32  # steps whose samples are sorted by length together


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass. Each row holds sample indices; a bucketed row holds one, a packed row several."""

    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class StepPlan:
    """One optimizer update: its micro-batches, and the trained tokens they hold together (the loss divisor)."""

    micro_batches: tuple[MicroBatch, ...]
    divisor: int
    tokens: int


def choose_layout(lengths: Sequence[int], device: str) -> Literal["packed", "bucketed"]:
    """Buckets for short samples on a CPU, packing otherwise."""
    mean = sum(lengths) / max(len(lengths), 1)
    return "bucketed" if device == "cpu" and mean < SHORT else "packed"


def plan_epoch(
    lengths: Sequence[int], trained: Sequence[int], epoch: int, *, batch: int, cap: int, seed: int, layout: Layout
) -> list[StepPlan]:
    """The steps of one epoch (0-based). Every sample occurs exactly once.

    ``lengths`` and ``trained`` are tokens and trained tokens per sample; ``cap`` is the most tokens (padding included)
    of one micro-batch. Raises ``ValueError`` when a sample is longer than ``cap``.
    """
    if lengths and max(lengths) > cap:
        raise ValueError(f"a sample of {max(lengths)} tokens does not fit a micro-batch of {cap}")
    steps = []
    for members in _batches(lengths, epoch, batch, seed):
        rows = _bucketed(members, lengths, cap) if layout != "packed" else _packed(members, lengths, cap)
        steps.append(StepPlan(tuple(rows), sum(trained[i] for i in members), sum(lengths[i] for i in members)))
    return steps


def steps_per_epoch(samples: int, batch: int) -> int:
    return -(-samples // batch)


def _batches(lengths: Sequence[int], epoch: int, batch: int, seed: int) -> list[list[int]]:
    """Shuffle, sort by length inside windows of steps, cut into steps, shuffle the steps."""
    generator = random.Random(seed_from(f"epoch {epoch}", seed))
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), WINDOW * batch):
        window = sorted(order[start : start + WINDOW * batch], key=lambda index: lengths[index])
        batches.extend(window[at : at + batch] for at in range(0, len(window), batch))
    generator.shuffle(batches)
    return batches


def _bucketed(members: list[int], lengths: Sequence[int], cap: int) -> list[MicroBatch]:
    micro: list[MicroBatch] = []
    rows: list[tuple[int, ...]] = []
    for index in sorted(members, key=lambda index: (lengths[index], index)):
        if rows and (len(rows) + 1) * lengths[index] > cap:
            micro.append(MicroBatch(tuple(rows)))
            rows = []
        rows.append((index,))
    return [*micro, MicroBatch(tuple(rows))]


def _packed(members: list[int], lengths: Sequence[int], cap: int) -> list[MicroBatch]:
    """First fit, longest first: few rows, no sample split. One row is one micro-batch."""
    bins: list[list[int]] = []
    free: list[int] = []
    for index in sorted(members, key=lambda index: (-lengths[index], index)):
        for place, room in enumerate(free):
            if lengths[index] <= room:
                bins[place].append(index)
                free[place] -= lengths[index]
                break
        else:
            bins.append([index])
            free.append(cap - lengths[index])
    return [MicroBatch((tuple(members),)) for members in bins]
