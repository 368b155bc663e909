"""How far a run of a flow is: rows of every leaf, calls, tokens, rate, what the teacher is doing.

    one row through ──▶ counted at once       told at most twice a second, later every two seconds; and now and then
                                              when nothing moves

An event names only the leaves whose counts have changed since the one before, so that ten thousand leaves cost no more
than one; who reads all events knows all leaves. The time left is told when enough rows came through lately to know a
rate, and not while the teacher is down: a guess would be worse than none.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ilab.core.events import Emit
from ilab.models.cached import Cached

TELL, SLOWEST = 0.5, 2.0  # seconds between two events, at first and later: a run of a night fills no disk
AGEING = 240.0  # how many times as old as that a run must be, for so long a time between two
STILL = 5.0  # seconds after which the same is told again, so that a rate falls while nothing comes
WINDOW = 60.0  # seconds back that a rate is measured over
ENOUGH_ROWS, ENOUGH_SECONDS = 10, 3.0  # of a window, for a rate that says something
SAMPLE = 160  # characters of a sample


class Pace:
    """Rows per second over the last minute."""

    def __init__(self, now: float) -> None:
        self._marks = deque([(now, 0)])

    def mark(self, now: float, done: int) -> float | None:
        """The rate with ``done`` rows at ``now``; None while too little is known."""
        self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        if done - before < ENOUGH_ROWS or now - then < ENOUGH_SECONDS:
            return None
        return (done - before) / (now - then)


class Progress:
    """Counts of one run. ``leaves`` holds the leaf of every input row."""

    def __init__(
        self, leaves: Iterable[str], teacher: Cached | None, emit: Emit, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._totals = Counter(leaves)
        self._total = sum(self._totals.values())
        self._teacher = teacher
        self._emit = emit
        self._clock = clock
        self._began = clock()
        self._pace = Pace(self._began)
        self._by_leaf: dict[str, list[int]] = {}
        self._changed: set[str] = set()
        self._counts = [0, 0, 0]  # rows through, accepted, rejected
        self._sample: tuple[str, Mapping[str, Any]] = ("", {})
        self._told_at = float("-inf")
        self._told: object = None

    def finished(self, leaf: str, accepted: int, rejected: int, columns: Mapping[str, Any]) -> None:
        """An input row of ``leaf`` is through; ``columns`` are those of a row that came of it, if any did."""
        counts = self._by_leaf.setdefault(leaf, [0, 0, 0])
        for index, more in enumerate((1, accepted, rejected)):
            counts[index] += more
            self._counts[index] += more
        self._changed.add(leaf)
        if "question" in columns and "answer" in columns:
            self._sample = leaf, columns
        now = self._clock()
        if self._counts[0] == self._total or now - self._told_at >= self._rest(now):
            self._tell()

    def pulse(self) -> None:
        """Called now and then, also while no row comes through: an outage is news, too."""
        now = self._clock()
        since = now - self._told_at
        if since >= STILL or (since >= self._rest(now) and self._state() != self._told):
            self._tell()

    def _rest(self, now: float) -> float:
        return min(SLOWEST, max(TELL, (now - self._began) / AGEING))

    def _state(self) -> object:
        """What is news when it changes, besides the rows."""
        teacher = self._teacher
        condition = teacher.condition() if teacher else {}
        return teacher and teacher.calls, condition.get("waiting"), condition.get("limit"), self._counts[0]

    def _counts_of(self, leaf: str) -> list[int]:
        done, accepted, rejected = self._by_leaf[leaf]
        return [done, self._totals[leaf], accepted, rejected]

    def _tell(self) -> None:
        now = self._clock()
        done, accepted, rejected = self._counts
        rate = self._pace.mark(now, done)
        sampled, columns = self._sample
        more: dict[str, Any] = {"accepted": accepted, "rejected": rejected, "leaf_count": len(self._totals)}
        more["leaves"] = {leaf: self._counts_of(leaf) for leaf in sorted(self._changed)}
        note = ""
        if sampled:
            note = " ".join(f"{columns['question']} → {columns['answer']}".split())[:SAMPLE]
            more["sample_leaf"] = sampled
        waiting = False
        if self._teacher is not None:
            more["calls"], more["tokens"] = self._teacher.calls, self._teacher.tokens
            more["calls_from_memo"] = self._teacher.from_memo
            more["teacher"] = self._teacher.condition()
            waiting = bool(more["teacher"].get("waiting"))
        if rate is not None:
            more["rate"] = round(rate, 2)
            if not waiting and done < self._total:
                more["eta"] = round((self._total - done) / rate, 1)
        self._told_at, self._told = now, self._state()
        self._changed.clear()
        self._emit.progress(done, self._total, "rows", note, **more)
