"""Held-out items by a teacher: the flow ``eval`` over chunks of the knowledge leaves.

The answers are in the same memo as those of data generation, so an interruption repeats nothing. Every row that makes
no item is kept with the block and the reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ilab.core.step import Counts, Site
from ilab.data import Chunk, Item, Leaf, Rejected
from ilab.errors import InputError, ServiceError
from ilab.models.cached import Cached
from ilab.sdg.block import Context
from ilab.sdg.engine import Result, Start, run_and_close
from ilab.sdg.eval_items import items_of
from ilab.sdg.flow import FlowSet
from ilab.sdg.generate import starts_of
from ilab.sdg.teachers import open_teacher

SHOWN = 120  # characters of a raw answer in an error


@dataclass(frozen=True)
class ItemJob:
    """``per_chunk`` questions are asked for each of ``chunks``, of the leaves that ``flow`` has a file for."""

    leaves: Sequence[Leaf]
    chunks: Sequence[Chunk]
    flow: FlowSet
    per_chunk: int
    seed: int
    site: Site
    teacher_name: str
    teacher_family: str = ""


@dataclass(frozen=True)
class MadeItems:
    """By leaf, in the order of the chunks. ``counts`` are no content."""

    items: list[Item]
    dropped: list[Rejected]
    counts: Counts


def make_items(job: ItemJob) -> MadeItems:
    """Run the flow and look at what comes of it; see :func:`ilab.sdg.eval_items.items_of`.

    Raises ``InputError`` without a teacher, ``ServiceError`` when it cannot be used or none of its items could be, and
    ``Stopped`` when asked to stop.
    """
    leaves = [leaf for leaf in sorted(job.leaves, key=lambda leaf: leaf.path) if leaf.kind in job.flow.flows]
    starts = starts_of(leaves, job.chunks, job.flow)
    result, counts = _run(job, starts)
    items: list[Item] = []
    dropped = list(result.rejected)
    for leaf in leaves:
        made, refused = items_of(result.rows, leaf, job.seed)
        items += made
        dropped += refused
    if starts and not items:
        raise _nothing(job, dropped)
    return MadeItems(items, dropped, counts)


def _run(job: ItemJob, starts: Sequence[Start]) -> tuple[Result, Counts]:
    site = job.site
    flows, family = job.flow.flows.values(), job.teacher_family
    model = open_teacher(site.where, flows, job.teacher_name, job.per_chunk, site.emit, family)
    if model is None or site.where.teacher is None:
        raise InputError(
            "held-out questions are to be written by a teacher, and there is none",
            where="eval_items",
            hint="add --set where.teacher.url=URL, or -p eval_items=rule",
        )
    teacher, rows = Cached(model, site.memo("teacher"), family), site.memo("rows")
    context = Context(rows, job.seed, job.per_chunk, teacher, job.teacher_name)
    in_flight = site.where.teacher.in_flight or 64
    try:
        result = asyncio.run(run_and_close(starts, context, in_flight, site.emit, site.stopping))
    finally:
        rows.flush()
    return result, {"calls": teacher.calls, "calls_from_memo": teacher.from_memo, "tokens": teacher.tokens}


def _nothing(job: ItemJob, dropped: Sequence[Rejected]) -> ServiceError:
    block, most = Counter(entry.block for entry in dropped).most_common(1)[0]
    shown = "".join(
        f"\n  {entry.id}: {entry.reason} | {' '.join(str(entry.row.get('raw') or '').split())[:SHOWN]}"
        for entry in dropped[:3]
    )
    return ServiceError(
        f"{job.teacher_name} wrote no held-out question that can be used: {len(dropped)} rows were refused, {most} of "
        f"them by block {block!r}{shown}",
        where=job.flow.where,
        hint="take a stronger teacher (-p sdg_teacher_model=NAME), or -p eval_items=rule; good answers are kept",
    )
