"""Running a flow: rows stream through their blocks, each at its own pace.

There is no barrier between blocks: a row goes on as soon as it is ready, and a slow answer delays only its own
row. So many input rows are open at once that the teacher's budget stays full, and no more, which bounds the
memory. Before a block that compares rows, those of its leaf wait for each other (:mod:`ilab.sdg.gathering`); the
next input rows come in meanwhile. The output is in the order of the input whatever came back first. A row that fails
is data with a reason; only what no other row could survive (the server is gone for good) ends the run, and by then
every answer is in the memo.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ilab.core.events import Emit
from ilab.data import Rejected, seed_from
from ilab.errors import ServiceError, Stopped
from ilab.models.chat import Refused
from ilab.sdg.block import Block, Context, GatherBlock, Reject, Row, resolve_count
from ilab.sdg.gathering import Gathering
from ilab.sdg.progress import Progress
from ilab.sdg.trial import UNASKED, Trial

TEXTS = frozenset({"document", "raw_document", "base_document", "icl_document", "examples", "seeds"})
OPEN_ROWS = 4  # input rows that are open at once, for each request in flight
COLLECT = 50_000  # new objects before Python looks for unreachable cycles among them (by default 700)
PULSE = 0.2  # seconds between looks at whether to stop, and whether there is progress to tell


@dataclass(frozen=True)
class Start:
    """An input row and the chain of blocks before it. ``section`` names the chain in counts (``knowledge``)."""

    row: Row
    blocks: tuple[Block, ...]
    section: str


class _Place:
    """An input row on its way, in one of the ``open_rows`` places until it is through or first waits for others."""

    def __init__(self, start: Start, gate: asyncio.Semaphore, gathering: Gathering | None) -> None:
        self.blocks = start.blocks
        self.section = start.section
        self.gathering = gathering
        self._gate: asyncio.Semaphore | None = gate

    def leave(self) -> None:
        if self._gate is not None:
            self._gate.release()
            self._gate = None


def _branch(start: Start) -> tuple[str, str, str] | None:
    """Leaf and branch whose rows wait for each other, or None where no block of the chain gathers."""
    if not any(isinstance(block, GatherBlock) for block in start.blocks):
        return None
    return start.row.leaf, start.section, start.blocks[0].name  # names are unique within a section


@dataclass
class Tally:
    """Rows into, out of and refused by one block; ``leaves`` are those out of it, by leaf."""

    entered: int = 0
    left: int = 0
    rejected: int = 0
    leaves: Counter[str] = field(default_factory=Counter)


@dataclass
class Outcome:
    """What came of one input row."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(frozen=True, repr=False)  # asyncio.run has its task's result written out when it restores a signal handler
class Result:
    """All of them, in the order of the input; ``tallies`` by ``section/block``."""

    rows: list[Row]
    rejected: list[Rejected]
    tallies: dict[str, Tally]


async def run_flow(
    starts: Sequence[Start],
    context: Context,
    *,
    open_rows: int,
    emit: Emit,
    stopping: Callable[[], bool],
    trial: Trial | None = None,
) -> Result:
    """Run every row of ``starts`` to its end, at most ``open_rows`` of them at once.

    Raises ``Stopped`` when ``stopping()`` turns true, and what ends the run otherwise, such as a failed ``trial``.
    """
    run = _Run(context, emit, starts)
    gate = asyncio.Semaphore(open_rows)

    async def through(index: int, start: Start) -> Outcome:
        place = _Place(start, gate, run.gathering(start))
        try:
            outcome = Outcome()
            await run.advance(start.row, place, 0, outcome)
            columns = outcome.rows[0].columns if outcome.rows else {}
            run.progress.finished(start.row.leaf, len(outcome.rows), len(outcome.rejected), columns)
            if trial is not None:
                trial.finished(index, len(outcome.rows), outcome.rejected)
            return outcome
        finally:
            place.leave()

    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(stopping, run.progress))
            tasks = []
            for index, start in enumerate(starts):
                await gate.acquire()
                tasks.append(group.create_task(through(index, start)))
            if tasks:
                await asyncio.wait(tasks)
            watch.cancel()
    except BaseExceptionGroup as group_of:
        raise _first(group_of) from None
    outcomes = [task.result() for task in tasks]
    return Result(
        [row for outcome in outcomes for row in outcome.rows],
        [rejected for outcome in outcomes for rejected in outcome.rejected],
        run.tallies,
    )


async def run_and_close(
    starts: Sequence[Start],
    context: Context,
    in_flight: int,
    emit: Emit,
    stopping: Callable[[], bool],
    trial: Trial | None = None,
) -> Result:
    """:func:`run_flow` with as many rows open as keep ``in_flight`` requests busy; closes the teachers at the end."""
    try:
        with seldom_collected():
            rows = OPEN_ROWS * in_flight
            return await run_flow(starts, context, open_rows=rows, emit=emit, stopping=stopping, trial=trial)
    finally:
        for model in (context.teacher, context.verifier):
            if model is not None:
                await model.close()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Let Python look for unreachable cycles less often, meanwhile.

    Rows stay until the end and hold no cycles, and every look goes through all of the newer ones: a tenth of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(COLLECT, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Run:
    """The counts of one run, and how a row goes through it."""

    def __init__(self, context: Context, emit: Emit, starts: Sequence[Start]) -> None:
        self.tallies: dict[str, Tally] = {}
        self._context = context
        self.progress = Progress((start.row.leaf for start in starts), context.teacher, emit)
        coming = Counter(_branch(start) for start in starts)
        self._gatherings = {branch: Gathering(count, context) for branch, count in coming.items() if branch}

    def gathering(self, start: Start) -> Gathering | None:
        branch = _branch(start)
        return self._gatherings[branch] if branch else None

    async def advance(self, row: Row, place: _Place, index: int, outcome: Outcome) -> None:
        """Take ``row`` from block ``index`` to the end. Children are put in ``outcome`` in order."""
        while index < len(place.blocks):
            children = await self._apply(row, place.blocks[index], place, outcome)
            index += 1
            if len(children) != 1:
                await self._fan_out(children, place, index, outcome)
                return
            row = children[0]
        outcome.rows.append(row)

    async def _fan_out(self, children: list[Row], place: _Place, index: int, outcome: Outcome) -> None:
        parts = [Outcome() for _ in children]
        if index < len(place.blocks):
            try:
                async with asyncio.TaskGroup() as group:
                    for child, part in zip(children, parts, strict=True):
                        group.create_task(self.advance(child, place, index, part))
            except BaseExceptionGroup as group_of:
                raise _first(group_of) from None
        else:
            for child, part in zip(children, parts, strict=True):
                part.rows.append(child)
        for part in parts:
            outcome.rows += part.rows
            outcome.rejected += part.rejected

    async def _apply(self, row: Row, block: Block, place: _Place, outcome: Outcome) -> list[Row]:
        tally = self.tallies.setdefault(f"{place.section}/{block.name}", Tally())
        tally.entered += 1
        try:
            if isinstance(block, GatherBlock) and place.gathering is not None:
                children = [await self._meet(row, block, place, place.gathering)]
            else:
                children = await block(row, self._context)
        except Reject as refusal:
            refused = [rejected(row, block.name, refusal.reason, **refusal.shown)]
            children = []
        except ServiceError as error:
            if not (error.retryable or isinstance(error, Refused)):
                raise
            refused = [rejected(row, block.name, f"{UNASKED}: {error.message}")]
            children = []
        else:
            children, over = self._cut(children, block)
            refused = [rejected(child, block.name, "over the limit: " + str(block.at_most)) for child in over]
        outcome.rejected += refused
        tally.left += len(children)
        tally.leaves[row.leaf] += len(children)
        tally.rejected += len(refused)
        if place.gathering is not None and len(children) != 1:
            place.gathering.became(len(children))
        return children

    async def _meet(self, row: Row, block: GatherBlock, place: _Place, gathering: Gathering) -> Row:
        place.leave()
        answer = await gathering.meet(row, block)
        if isinstance(answer, Reject):
            raise answer
        return answer

    def _cut(self, children: list[Row], block: Block) -> tuple[list[Row], list[Row]]:
        """At most ``block.at_most`` of ``children``: chosen by their ids, so that one more changes few others."""
        most = resolve_count(block.at_most, self._context.scale) if block.at_most else len(children)
        if len(children) <= most:
            return children, []
        ranked = sorted(children, key=lambda child: (seed_from(child.id, self._context.seed), child.id))
        kept = {child.id for child in ranked[:most]}
        return [c for c in children if c.id in kept], [c for c in children if c.id not in kept]


def rejected(row: Row, block: str, reason: str, **shown: Any) -> Rejected:
    """The record of a refused row: what it says of itself, without the text of its document."""
    columns = {name: value for name, value in row.columns.items() if name not in TEXTS and value not in (None, "", [])}
    return Rejected(id=row.id, leaf=row.leaf, block=block, reason=reason, row={**columns, **shown})


async def _watch(stopping: Callable[[], bool], progress: Progress) -> None:
    while not stopping():
        progress.pulse()
        await asyncio.sleep(PULSE)
    raise Stopped("stopped", hint="every answer so far is kept; run the same command to go on")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, of its groups within."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
