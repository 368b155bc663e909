"""Blocks that compare the rows of a leaf, inside a flow that streams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from pydantic import Field

from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import seed_from
from ilab.sdg.block import Block, Context, Reject, Row
from ilab.sdg.blocks.dedup import Dedup
from ilab.sdg.blocks.majority import Majority
from ilab.sdg.engine import Result, Start, run_flow


class Slow(Block):
    """Takes a while that differs by row; gives ``n`` rows, or refuses where that is 0."""

    type: ClassVar[str] = "slow"
    delays: Mapping[str, float] = Field(default_factory=dict)

    def needs(self) -> frozenset[str]:
        return frozenset({"n"})

    def adds(self) -> frozenset[str]:
        return frozenset({"question"})

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        await asyncio.sleep(self.delays.get(row.id, 0))
        if row.columns["n"] == 0:
            raise Reject("none wanted")
        texts = [f"Q {seed_from(row.id, n) % 4}?" for n in range(row.columns["n"])]
        return [row.child(f"{self.name}-{n}", {"question": text}) for n, text in enumerate(texts)]


@pytest.fixture
def go(memos: Callable[[str], Memo]) -> Callable[..., Result]:
    def run(rows: list[Row], blocks: list[Block], open_rows: int = 100) -> Result:
        context = Context(memos("rows"), 42, 1)
        starts = [Start(row, tuple(blocks), "s") for row in rows]
        flow = run_flow(starts, context, open_rows=open_rows, emit=Bus().for_step("x"), stopping=lambda: False)
        return asyncio.run(asyncio.wait_for(flow, 20))

    return run


def told(result: Result) -> list[Any]:
    return [[(row.id, dict(row.columns)) for row in result.rows], [(e.id, e.reason) for e in result.rejected]]


def test_only_rows_of_one_leaf_are_compared(go: Callable[..., Result]) -> None:
    rows = [
        Row(f"{leaf}#{n}", leaf, {"question": text}) for leaf in "ab" for n, text in enumerate(["Why?", " why ", "How"])
    ]
    result = go(rows, [Dedup(name="dedup")])
    assert [row.id for row in result.rows] == ["a#0", "a#2", "b#0", "b#2"]
    assert [(e.id, e.block, e.reason) for e in result.rejected] == [
        ("a#1", "dedup", "duplicate: the same as a#0"),
        ("b#1", "dedup", "duplicate: the same as b#0"),
    ]
    assert (result.tallies["s/dedup"].entered, result.tallies["s/dedup"].left) == (6, 4)


def test_the_majority_is_that_of_the_leaf_and_ties_are_settled(go: Callable[..., Result]) -> None:
    values = {"a": [2, 3, 3], "b": ["y", "x"], "c": [["l"]]}
    rows = [Row(f"{leaf}#{n}", leaf, {"v": value}) for leaf, found in values.items() for n, value in enumerate(found)]
    result = go(rows, [Majority(name="m", column="v")])
    assert [row.columns["v"] for row in result.rows] == [3, 3, 3, "x", "x", ["l"]]


@pytest.mark.parametrize("open_rows", [1, 3, 1000])
def test_the_result_depends_on_neither_time_nor_room(go: Callable[..., Result], open_rows: int) -> None:
    """Rows fan out, are refused and come at random times before and between two blocks that gather."""
    rows = [Row(f"{leaf}#{n:02d}", leaf, {"n": n % 4}) for leaf in ("a", "b") for n in range(12)]

    def run(seed: int, room: int) -> Result:
        drawn = random.Random(seed)
        first = Slow(name="first", delays={row.id: drawn.random() / 50 for row in rows})
        second = Slow(name="second", delays={f"{row.id}/first-0": drawn.random() / 50 for row in rows})
        return go(rows, [first, Dedup(name="d1"), second, Dedup(name="d2"), Majority(name="m", column="n")], room)

    calm = run(1, 1000)
    assert told(calm) == told(run(open_rows, open_rows))
    assert calm.rows
    texts = [(row.leaf, row.columns["question"]) for row in calm.rows]
    assert len(texts) == len(set(texts))
    assert len({entry.block for entry in calm.rejected}) == 3


def test_everything_may_be_refused_before_it_gathers(go: Callable[..., Result]) -> None:
    rows = [Row(f"a#{n}", "a", {"n": 0}) for n in range(5)]
    result = go(rows, [Slow(name="slow"), Dedup(name="dedup")], 2)
    assert (result.rows, len(result.rejected)) == ([], 5)


def test_a_branch_waits_for_its_own_rows_alone(memos: Callable[[str], Memo]) -> None:
    rows = [Row(f"a#{n}", "a", {"n": 1, "question": "Q"}) for n in range(3)]
    chains: list[tuple[Block, ...]] = [(Slow(name="one"), Dedup(name="d1")), (Dedup(name="d2"),)]
    starts = [Start(row, chain, "s") for chain in chains for row in rows]
    flow = run_flow(starts, Context(memos("rows"), 1, 1), open_rows=1, emit=Bus().for_step("x"), stopping=lambda: False)
    result = asyncio.run(asyncio.wait_for(flow, 20))
    assert [row.id for row in result.rows][-1] == "a#0"


def test_alone_a_gathering_block_answers_for_the_row(memos: Callable[[str], Memo]) -> None:
    row = Row("a#0", "a", {"question": "Q"})
    assert asyncio.run(Dedup(name="d")(row, Context(memos("rows"), 1, 1))) == [row]
