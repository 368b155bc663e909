"""How a run and its results look in a terminal, in a log file, and nowhere else.

Events go to standard error: a live view on a terminal, plain lines otherwise, at most one a step every few seconds.
Standard output carries results only.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ilab.core.events import Event, Sink
from ilab.core.run import Preview

QUIET = 5.0  # seconds between two progress lines of a step in a log
STATES = {"reuse": "reused", "link": "reused (same contents)", "run": "done"}


class PlainConsole(Console):
    """A console that leaves a closed pipe to ``cli/app.py`` instead of ending the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """A terminal's own width; a file or a pipe gets lines long enough for every table."""
    stream = sys.stderr if stderr else sys.stdout
    return PlainConsole(stderr=stderr, highlight=False, width=None if stream.isatty() else 160)


class PlainLines:
    """One line when a step starts and ends, and progress every few seconds."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            now = time.monotonic()
            if now - self._told.get(event.step, 0.0) < QUIET:
                return
            self._told[event.step] = now
            self._say(event.step, progress_text(event.data))
        elif event.kind == "started":
            self._told[event.step] = time.monotonic()
            self._say(event.step, "started")
        elif event.kind == "finished" and event.data["state"] != "reuse":
            self._say(event.step, finished_text(event.data))

    def _say(self, step: str, text: str) -> None:
        sys.stderr.write(f"{step}: {text}\n")
        sys.stderr.flush()


class LiveView:
    """Finished steps scroll by; the running ones keep a line each with rate, ETA and a sample as it is made."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._lock = threading.Lock()
        self._running: dict[str, tuple[float, dict[str, Any]]] = {}
        self._live = Live(console=self._console, refresh_per_second=4, transient=True, get_renderable=self._draw)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if event.kind == "started":
                self._running[event.step] = (time.monotonic(), {})
            elif event.kind == "progress" and event.step in self._running:
                self._running[event.step] = (self._running[event.step][0], event.data)
            elif event.kind == "finished":
                self._running.pop(event.step, None)
                if event.data["state"] != "reuse":
                    line = Text(" ✓ ", style="green").append(f"{event.step:<18}", style="bold")
                    self._console.print(line.append(finished_text(event.data), style="dim"))

    def _draw(self) -> Group:
        with self._lock:
            lines = []
            for step, (began, data) in self._running.items():
                text = progress_text(data) if data else ""
                line = Text(" ● ", style="cyan").append(f"{step:<18}", style="bold")
                line.append(f"{time.monotonic() - began:5.0f} s  {text}")
                line.truncate(max(self._console.width - 1, 20), overflow="ellipsis")
                lines.append(line)
        return Group(*lines)


def progress_text(data: Mapping[str, Any]) -> str:
    """``120/800 steps · 9 000 tokens/s · 40 s left · loss 2.1``"""
    total = data.get("total")
    parts = [f"{data['done']}/{total} {data['unit']}" if total else f"{data['done']} {data['unit']}"]
    if data.get("tokens_per_second"):
        parts.append(f"{data['tokens_per_second']:,} tokens/s")
    if data.get("eta"):
        parts.append(f"{seconds(data['eta'])} left")
    if data.get("note"):
        parts.append(" ".join(str(data["note"]).split())[:100])
    return " · ".join(parts)


def finished_text(data: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in (data.get("counts") or {}).items())
    took = f" in {seconds(data['seconds'])}" if data.get("seconds") is not None else ""
    return f"{STATES[data['state']]}{took}{': ' if counts else ''}{counts}"


def seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def plan_table(previews: Sequence[Preview]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "", "why", "expected"):
        table.add_column(name, overflow="fold")
    styles = {"reuse": "dim", "link": "green", "run": "yellow", "maybe": "cyan"}
    for preview in previews:
        what = preview.state if preview.state != "maybe" else "run, unless"
        why = preview.why
        if preview.unless:
            verb = "turns" if len(preview.unless) == 1 else "turn"
            why = f"{' and '.join(preview.unless)} {verb} out unchanged ({why})"
        table.add_row(
            preview.planned.name, Text(what, style=styles[preview.state]), why, expected_text(preview.expected)
        )
    return table


def expected_text(expected: Mapping[str, float]) -> str:
    parts = []
    for name in ("calls", "steps", "tokens"):
        if name in expected:
            parts.append(f"{expected[name]:,.0f} {name}")
    if "cost" in expected:
        parts.append(f"cost {expected['cost']:,.2f}")
    if "seconds" in expected:
        parts.append(f"about {seconds(expected['seconds'])}")
    return ", ".join(parts)


def result_table(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """The per-leaf table (rows of ``summary_rows``): one column per model, the change, the verdict, the baseline.

    Intervals of all models need 110 columns; a narrower terminal shows that of the change alone.
    """
    wide = width >= 110
    names = short_names([row["name"] for row in rows])
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("leaf", overflow="fold")
    table.add_column("items", justify="right")
    for cell in rows[0]["cells"]:
        table.add_column(cell["model"], justify="right", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    table.add_column("verdict")
    baseline = "open book" if "open book" in rows[0]["baselines"] else ""
    if baseline:
        table.add_column(baseline, justify="right", no_wrap=True)
    for row in rows:
        cells = [cell["text"] if wide else cell["text"].split(" [")[0] for cell in row["cells"]]
        change = row["change"]["text"] if row["change"] else "–"
        verdict = row["verdict_text"] if wide else row["verdict"]
        last = [row["baselines"][baseline]["text"]] if baseline else []
        style = "" if row["level"] == "leaf" else "bold"
        table.add_row(names[row["name"]], str(row["items"]), *cells, change, verdict, *last, style=style)
    return table


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path's last part, or as many of its last parts as it takes to tell it from the others."""
    names: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            tail = "/".join(parts[-count:])
            if sum(other == tail or other.endswith(f"/{tail}") for other in paths) == 1:
                break
        names[path] = tail
    return names


def sink() -> PlainLines | LiveView:
    return LiveView() if sys.stderr.isatty() else PlainLines()


__all__ = ["LiveView", "PlainLines", "Sink", "plan_table", "result_table", "sink"]
