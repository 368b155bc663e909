"""How plans, progress and results look as text. What is shown while a run goes on is in :mod:`ilab.cli.live`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ilab.core.run import Preview

STATES = {"reuse": "reused", "link": "reused (same contents)", "run": "done"}


class PlainConsole(Console):
    """A console that leaves a closed pipe to ``cli/app.py`` instead of ending the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """A terminal's own width; a file or a pipe gets lines long enough for every table."""
    stream = sys.stderr if stderr else sys.stdout
    return PlainConsole(stderr=stderr, highlight=False, width=None if stream.isatty() else 160)


def progress_text(data: Mapping[str, Any]) -> str:
    """``120/800 rows · 9.5 rows/s · 1 min 12 s left · 110 accepted, 10 (8 %) rejected · 140 calls, 9,000 tokens``"""
    parts = [amount_text(data), verdicts_text(data), calls_text(data), teacher_text(data)]
    if data.get("note"):
        parts.append(one_line(data["note"])[:100])
    return " · ".join(part for part in parts if part)


def amount_text(data: Mapping[str, Any]) -> str:
    """How far, how fast, how long still."""
    total, unit = data.get("total"), data["unit"]
    parts = [f"{data['done']:,}/{total:,} {unit}" if total else f"{data['done']:,} {unit}"]
    if data.get("rate"):
        parts.append(f"{data['rate']:,.{0 if data['rate'] >= 10 else 1}f} {unit}/s")
    if data.get("tokens_per_second"):
        parts.append(f"{data['tokens_per_second']:,} tokens/s")
    if data.get("eta"):
        parts.append(f"{seconds(data['eta'])} left")
    return " · ".join(parts)


def verdicts_text(data: Mapping[str, Any]) -> str:
    """What became of the rows that are through."""
    if "accepted" not in data or not data["done"]:
        return ""
    return f"{data['accepted']:,} accepted, {share(data['rejected'], data['accepted'])} rejected"


def calls_text(data: Mapping[str, Any]) -> str:
    """What was asked for them. Answers kept from earlier cost no call and no tokens."""
    if not (data.get("calls") or data.get("calls_from_memo")):
        return ""
    kept = f" and {data['calls_from_memo']:,} kept answers" if data.get("calls_from_memo") else ""
    return f"{data['calls']:,} calls{kept}, {data['tokens']:,} tokens"


def share(rejected: int, accepted: int) -> str:
    """``24 (2 %)``: how many were rejected, of how many in all."""
    return f"{rejected:,} ({rejected / (rejected + accepted):.0%})".replace("%", " %") if rejected else "0"


def teacher_text(data: Mapping[str, Any]) -> str:
    """How the teacher does: ``64 in flight``, throttled, or down."""
    told = data.get("teacher")
    if not told:
        return ""
    if told["waiting"]:
        return "the teacher does not answer, waiting for it"
    if told["limit"] < told["ceiling"]:
        return f"{told['in_flight']:,} in flight, throttled to {told['limit']:,} of {told['ceiling']:,}"
    return f"{told['in_flight']:,} in flight"


def one_line(text: object) -> str:
    """``text`` of a model or a file on one line, without what a terminal would obey or what turns its direction."""
    line = " ".join(str(text).split())
    return line if line.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def counted(value: float, name: str) -> str:
    """``1 leaf``, ``2,000 leaves``, ``1 call from memo``: a count, and what is counted (given in the plural)."""
    return f"{value:,} {(_one_of(name) if value == 1 else name).replace('_', ' ')}"


def _one_of(name: str) -> str:
    """``call_from_memo`` for ``calls_from_memo``; what is no plural (``accepted``) stays what it is."""
    first, mark, rest = name.replace("_", " ").partition(" ")
    if first == "leaves":
        first = "leaf"
    elif first.endswith("ies"):
        first = f"{first[:-3]}y"
    elif first.endswith(("sses", "ches", "shes", "xes")):
        first = first[:-2]
    elif first.endswith("s") and not first.endswith("ss"):
        first = first[:-1]
    return f"{first}{mark}{rest}".replace(" ", "_")


def finished_text(data: Mapping[str, Any]) -> str:
    """``done in 2.0 s: 1 model, 20 items``; where every count is 0, that there was nothing to do."""
    given = data.get("counts") or {}
    idle = not any(given.values()) and any(name != _one_of(name) for name in given)
    counts = "nothing to do" if idle else ", ".join(counted(value, name) for name, value in given.items())
    took = f" in {seconds(data['seconds'])}" if data.get("seconds") is not None else ""
    return f"{STATES[data['state']]}{took}{': ' if counts else ''}{counts}"


def seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def plan_table(previews: Sequence[Preview], currency: str = "") -> Table:
    """A line for each step: what would happen, why, and what is expected (cost in ``currency``)."""
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
            preview.planned.name,
            Text(what, style=styles[preview.state]),
            why,
            expected_text(preview.expected, currency),
        )
    return table


def expected_text(expected: Mapping[str, float], currency: str = "") -> str:
    parts = []
    for name in ("calls", "steps", "tokens"):
        if name in expected:
            parts.append(f"{expected[name]:,.0f} {name}")
    if "cost" in expected:
        parts.append(f"cost {money(expected['cost'])} {currency}".rstrip())
    if "seconds" in expected:
        parts.append(f"about {seconds(expected['seconds'])}")
    return ", ".join(parts)


def money(amount: float) -> str:
    """Two decimals, or four where two would say nothing."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.4f}"


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
