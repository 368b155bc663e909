"""What a run of a flow tells of its progress: counts by leaf, the rate, an honest time left, the teacher's state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ilab.config import Endpoint
from ilab.core.events import Bus, Event
from ilab.core.memo import Memo
from ilab.models.cached import Cached
from ilab.models.chat import Request, Sampling
from ilab.models.openai import OpenAIModel
from ilab.sdg.progress import ENOUGH_ROWS, STILL, TELL, WINDOW, Pace, Progress
from ilab.testing.scripted import ScriptedModel
from ilab.testing.teacher import Faults, serve

PAIR = {"question": "What has\na lamp?", "answer": "a lens", "document": "x" * 10_000}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Listener:
    """All events, and the leaves as somebody knows them who adds up what each event says has changed."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.leaves: dict[str, list[int]] = {}

    def __call__(self, event: Event) -> None:
        assert event.kind == "progress"
        self.told.append(event.data)
        self.leaves |= event.data["leaves"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, leaves: list[str], teacher: Cached | None = None) -> tuple[Progress, Listener]:
    listener = Listener()
    return Progress(leaves, teacher, Bus([listener]).for_step("generate"), clock), listener


def test_every_leaf_is_known_from_the_changes(clock: Clock) -> None:
    leaves = [f"leaf{number % 7}" for number in range(70)]
    progress, listener = make(clock, leaves)
    for number, leaf in enumerate(leaves):
        clock.now += 0.1
        progress.finished(leaf, 2, int(number % 7 == 3), PAIR if number % 2 else {})
    assert listener.leaves == {f"leaf{n}": [10, 10, 20, 10 if n == 3 else 0] for n in range(7)}
    last = listener.told[-1]
    assert (last["done"], last["total"], last["accepted"], last["rejected"]) == (70, 70, 140, 10)
    assert (last["leaf_count"], last["sample_leaf"]) == (7, "leaf6")
    assert last["note"] == "What has a lamp? → a lens"
    assert "eta" not in last and "calls" not in last


def test_many_rows_make_few_and_small_events(clock: Clock) -> None:
    leaves = [f"leaf{number // 3}" for number in range(30_000)]
    progress, listener = make(clock, leaves)
    for leaf in leaves:
        clock.now += 0.001
        progress.finished(leaf, 1, 0, PAIR)
    assert len(listener.told) <= 30 / TELL + 2
    assert max(len(told["leaves"]) for told in listener.told) <= TELL / 0.001 / 3 + 2
    assert max(len(str(told)) for told in listener.told) < 10_000
    assert len(listener.leaves) == 10_000


def test_a_long_run_tells_less_often(clock: Clock) -> None:
    progress, listener = make(clock, ["a"] * 40_000)
    for _ in range(36_000):  # ten hours
        clock.now += 1.0
        progress.finished("a", 1, 0, {})
        progress.pulse()
    assert 36_000 / 2.0 * 0.95 < len(listener.told) < 36_000 / 2.0 * 1.05


def test_the_time_left_is_unknown_until_enough_is_known(clock: Clock) -> None:
    progress, listener = make(clock, ["a"] * 1000)
    for number in range(1, 200):
        clock.now += 0.5
        progress.finished("a", 1, 0, {})
        told = listener.told[-1]
        assert told["done"] == number
        if number < ENOUGH_ROWS:
            assert "eta" not in told and "rate" not in told
    assert told["rate"] == pytest.approx(2.0, rel=0.01)
    assert told["eta"] == pytest.approx((1000 - 199) / 2, rel=0.01)


def test_a_burst_of_kept_answers_is_no_rate(clock: Clock) -> None:
    """What comes from the memo at once says nothing of how fast the rest will be."""
    progress, listener = make(clock, ["a"] * 10_000)
    for _ in range(5000):
        progress.finished("a", 1, 0, {})
    clock.now += TELL
    progress.finished("a", 1, 0, {})
    assert "eta" not in listener.told[-1]
    for _ in range(300):
        clock.now += 1.0
        progress.finished("a", 1, 0, {})
    assert listener.told[-1]["rate"] == pytest.approx(1.0, rel=0.02)


def test_a_standstill_is_told_and_the_rate_falls(clock: Clock) -> None:
    progress, listener = make(clock, ["a"] * 1000)
    for _ in range(100):
        clock.now += 0.1
        progress.finished("a", 1, 0, {})
    events, rate = len(listener.told), listener.told[-1]["rate"]
    for _ in range(100):
        clock.now += 0.2
        progress.pulse()
    assert len(listener.told) - events == pytest.approx(20 / STILL, abs=1)
    assert listener.told[-1]["rate"] < rate / 2
    assert listener.told[-1]["leaves"] == {}
    for _ in range(600):
        clock.now += 0.2
        progress.pulse()
    assert "rate" not in listener.told[-1] and "eta" not in listener.told[-1]


def test_pace_forgets_what_is_long_ago() -> None:
    pace = Pace(0.0)
    for second in range(1, 1000):
        rate = pace.mark(float(second), second * (1 if second <= 900 else 3) - (1800 if second > 900 else 0))
    assert rate == pytest.approx(3.0, rel=0.05)
    assert WINDOW < 99


def test_an_outage_and_throttling_are_told(tmp_path: Any, clock: Clock) -> None:
    """With a real client: what it is doing is seen while nothing comes through."""
    with serve(faults=Faults(outage_after=8, outage=1.0), latency=0.01) as server:
        memo = Memo(tmp_path)
        model = OpenAIModel(Endpoint(url=server.url, in_flight=4))
        teacher = Cached(model, memo)
        progress, listener = make(clock, ["a"] * 40, teacher)

        async def ask(number: int) -> None:
            sampling = Sampling(temperature=1.0, max_tokens=5, top_p=None, seed=number, stop=())
            from ilab.data import Message

            await teacher.complete(Request("teacher", (Message(role="user", content="hello"),), sampling))
            progress.finished("a", 1, 0, {})

        async def run() -> None:
            tasks = [asyncio.create_task(ask(number)) for number in range(40)]
            while not all(task.done() for task in tasks):
                clock.now += TELL
                progress.pulse()
                await asyncio.sleep(0.02)
            await asyncio.gather(*tasks)
            await teacher.close()

        asyncio.run(run())
        memo.close()
    down = [told for told in listener.told if told["teacher"]["waiting"]]
    assert down and all("eta" not in told for told in down)
    assert all(told["teacher"]["in_flight"] <= 4 == told["teacher"]["ceiling"] for told in listener.told)
    last = listener.told[-1]
    assert not last["teacher"]["waiting"]
    assert (last["done"], last["calls"], last["calls_from_memo"]) == (40, 40, 0)
    assert last["tokens"] > 40


def test_models_that_say_nothing_of_themselves(tmp_path: Any, clock: Clock) -> None:
    memo = Memo(tmp_path)
    progress, listener = make(clock, ["a"], Cached(ScriptedModel(lambda request: "x"), memo))
    progress.finished("a", 0, 1, {})
    assert listener.told[-1]["teacher"] == {}
    memo.close()
