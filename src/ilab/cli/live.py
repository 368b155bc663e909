"""What a run shows while it goes on, always on standard error: standard output carries results only.

On a terminal a live view: finished steps scroll by, the running ones keep a line each, and one that runs a flow a
table of its leaves. Those that are being worked on come first, the rest is summed in one line, so that ten thousand
leaves fit any screen. In a file or a pipe: plain lines, one now and then and at every tenth of the way.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ilab.cli.render import (
    amount_text,
    calls_text,
    console,
    finished_text,
    one_line,
    progress_text,
    share,
    teacher_text,
    verdicts_text,
)
from ilab.core.events import Event, Sink

PACES = ((60.0, 5.0), (600.0, 15.0), (float("inf"), 60.0))  # until that age of a step, seconds between two lines of it
MOST_LEAVES = 30  # shown at once, on however large a screen
SMALL = 10  # lines of a terminal below which there is a line for each step and no more
WIDE = 60  # columns of a terminal below which a leaf shows its rows alone
LINES = 7  # of a step with leaves, besides those of the leaves themselves


@contextlib.contextmanager
def view(quiet: bool = False) -> Iterator[Sink]:
    """A sink that shows events in the way that suits standard error; none at all where it is to be ``quiet``."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        with LiveView(console(stderr=True)) as live:
            yield live
    else:
        yield PlainLines()


@dataclass
class _Told:
    """When the last line of a step was written, and what stood in it."""

    began: float
    at: float
    tenth: int = 0
    waiting: bool = False


class PlainLines:
    """A line when a step starts and ends, now and then between, at every tenth of its way, and for an outage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, _Told] = {}

    def __call__(self, event: Event) -> None:
        now = self._clock()
        if event.kind == "progress":
            self._progress(event, now)
        elif event.kind == "metric" and "note" in event.data:
            self._say(event.step, f"note: {event.data['note']}")
        elif event.kind == "started":
            self._told[event.step] = _Told(now, now)
            self._say(event.step, "started")
        elif event.kind == "finished" and event.data["state"] != "reuse":
            self._say(event.step, finished_text(event.data))

    def _progress(self, event: Event, now: float) -> None:
        told = self._told.setdefault(event.step, _Told(now, now))
        pace = next(pace for age, pace in PACES if now - told.began < age)
        total = event.data.get("total")
        tenth = event.data["done"] * 10 // total if total else 0
        waiting = bool((event.data.get("teacher") or {}).get("waiting"))
        passed = tenth > told.tenth and now - told.at >= 1.0
        if now - told.at >= pace or passed or waiting != told.waiting:
            told.at, told.tenth, told.waiting = now, tenth, waiting
            self._say(event.step, progress_text(event.data))

    def _say(self, step: str, text: str) -> None:
        sys.stderr.write(f"{step}: {text}\n")
        sys.stderr.flush()


Counts = tuple[int, int, int, int]  # rows done, rows in all, accepted, rejected


@dataclass
class Leaves:
    """The leaves of a flow, from events that tell what changed. Active ones are those begun and not yet through."""

    active: dict[str, Counts] = field(default_factory=dict)  # the one that changed last at the end, as below
    through: dict[str, Counts] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)

    def take(self, changed: Mapping[str, Any]) -> None:
        for leaf, counts in changed.items():
            done, total, accepted, rejected = counts
            self.active.pop(leaf, None)
            (self.through if done >= total else self.active)[leaf] = (done, total, accepted, rejected)

    def choose(self, room: int) -> list[tuple[str, Counts]]:
        """At most ``room`` leaves by name: active before finished ones. Who is shown stays as long as it is active."""
        kept = [leaf for leaf in self.shown if leaf in self.active][:room]
        for others in (self.active, self.through):
            for leaf in reversed(others):
                if len(kept) >= room:
                    break
                if leaf not in kept:
                    kept.append(leaf)
        self.shown = kept
        return [(leaf, self.active.get(leaf) or self.through[leaf]) for leaf in sorted(kept)]


@dataclass
class _Running:
    began: float
    data: Mapping[str, Any] = field(default_factory=dict)
    leaves: Leaves = field(default_factory=Leaves)


class LiveView:
    """The live view on ``screen``; draws itself four times a second, however many events there are."""

    def __init__(self, screen: Console) -> None:
        self._console = screen
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._live = Live(
            console=screen, refresh_per_second=4, transient=True, redirect_stdout=False, get_renderable=self.draw
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if event.kind == "started":
                self._running[event.step] = _Running(time.monotonic())
            elif event.kind == "progress":
                running = self._running.setdefault(event.step, _Running(time.monotonic()))
                running.data = event.data
                running.leaves.take(event.data.get("leaves") or {})
            elif event.kind == "finished":
                self._running.pop(event.step, None)
        # Not under the lock: printing waits for a drawing under way, which waits for the lock.
        if event.kind == "finished" and event.data["state"] != "reuse":
            done = Text.assemble((" ✓ ", "green"), (f"{event.step:<18}", "bold"), (finished_text(event.data), "dim"))
            self._console.print(done)
        elif event.kind == "metric" and "note" in event.data:
            note = one_line(event.data["note"])
            self._console.print(Text(f" ! {event.step:<18}note: {note}", style="yellow"))

    def draw(self) -> RenderableType:
        """The running steps as they are now, never higher than the screen."""
        with self._lock:
            height = self._console.height - 1
            flows = sum("leaves" in running.data for running in self._running.values())
            room = (height - len(self._running)) // max(flows, 1) if height >= SMALL else 0
            lines: list[RenderableType] = []
            for step, running in self._running.items():
                lines += self._of_step(step, running, room)
        return Group(*lines[:height])

    def _of_step(self, step: str, running: _Running, room: int) -> Iterator[RenderableType]:
        data, age = running.data, time.monotonic() - running.began
        head = Text.assemble((" ● ", "cyan"), (f"{step:<18}", "bold"), f"{age:5.0f} s  ")
        if room < 4 or "leaves" not in data:
            yield self._cut(head.append(progress_text(data) if data else ""))
            return
        yield self._cut(head.append(amount_text(data)))
        told = data.get("teacher") or {}
        slow = told.get("waiting") or told.get("limit", 0) < told.get("ceiling", 0)
        for text, style in (
            (verdicts_text(data), "dim"),
            (calls_text(data), "dim"),
            (teacher_text(data), "yellow" if slow else "dim"),
        ):
            if text:
                yield self._cut(Text(f"   {text}", style=style))
        if room >= LINES + 2:
            yield self._table(running, min(room - LINES, MOST_LEAVES))
        if data.get("note"):
            leaf = _end(data.get("sample_leaf", ""), 30)
            yield self._cut(Text.assemble(("   ❝ ", "cyan"), (f"{leaf}: ", "dim"), one_line(data["note"])))

    def _table(self, running: _Running, room: int) -> Table:
        """``room`` leaves, a heading, and a line for all the others together."""
        data = running.data
        rows = running.leaves.choose(room)
        wide = self._console.width >= WIDE
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("   leaf", no_wrap=True)
        for name in ("rows", "accepted", "rejected") if wide else ("rows",):
            table.add_column(name, justify="right", no_wrap=True)

        def add(name: str, counts: Sequence[int], style: str) -> None:
            done, total, accepted, rejected = counts
            more = (f"{accepted:,}", share(rejected, accepted)) if wide else ()
            table.add_row(f"   {name}", f"{done:,}/{total:,}", *more, style=style)

        space = max(self._console.width - (45 if wide else 24), 12)
        for leaf, counts in rows:
            add(_end(leaf, space), counts, "dim" if counts[0] >= counts[1] else "")
        more = data["leaf_count"] - len(rows)
        if more:
            whole = (data["done"], data["total"], data["accepted"], data["rejected"])
            rest = [of_all - sum(counts[index] for _, counts in rows) for index, of_all in enumerate(whole)]
            add(f"{more:,} more {'leaf' if more == 1 else 'leaves'}", rest, "dim")
        return table

    def _cut(self, line: Text) -> Text:
        line.truncate(max(self._console.width - 1, 20), overflow="ellipsis")
        line.no_wrap = True
        return line


def _end(path: str, width: int) -> str:
    """The end of a path, which tells leaves apart, in at most ``width`` characters."""
    plain = one_line(path)
    return plain if len(plain) <= width else f"…{plain[-(width - 1) :]}"
