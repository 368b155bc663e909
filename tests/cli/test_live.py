"""What is shown while a run goes on: any number of leaves, any terminal, no terminal, and nothing that spoils JSON."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ilab.cli.live import Leaves, LiveView, PlainLines, view
from ilab.cli.render import counted, finished_text, one_line, progress_text
from ilab.core.events import Event
from ilab.testing.teacher import Faults, answer_by_rule, serve

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
HOSTILE = "a\x1b]0;owned\x07b\x1b[2J\u202ec\n\r\x9bd\ud800"


def event(done: int = 50, total: int = 100, leaves: dict[str, list[int]] | None = None, **more: Any) -> Event:
    data = {
        "done": done, "total": total, "unit": "rows", "note": "", "accepted": done, "rejected": 0, "calls": done,
        "calls_from_memo": 0, "tokens": 10 * done, "leaf_count": len(leaves or {}), "leaves": leaves or {},
        "teacher": {"in_flight": 7, "limit": 8, "ceiling": 8, "waiting": False},
    }  # fmt: skip
    return Event("progress", "generate", {**data, **more})


def drawn(events: list[Event], width: int = 100, height: int = 30) -> list[str]:
    screen = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, record=True, highlight=False)
    live = LiveView(screen)
    live(Event("started", "generate"))
    for one in events:
        live(one)
    screen.print(live.draw())
    return screen.export_text().rstrip("\n").split("\n")


def test_leaves_with_their_counts_and_the_whole() -> None:
    leaves = {"knowledge/a": [10, 40, 18, 2], "knowledge/b": [40, 40, 30, 10], "skills/c": [0, 20, 0, 0]}
    lines = drawn([event(50, 100, leaves, accepted=48, rejected=12, calls=120, tokens=54_321, rate=12.3, eta=75.0)])
    text = "\n".join(lines)
    assert "50/100 rows · 12 rows/s · 1 min 15 s left" in lines[0]
    assert "48 accepted, 12 (20 %) rejected" in text
    assert "120 calls, 54,321 tokens" in text and "7 in flight" in text
    rows = {match[1]: match[0].split()[1:] for line in lines if (match := re.match(r"\s+(\S+/\w)\s.*", line))}
    assert rows == {
        "knowledge/a": ["10/40", "18", "2", "(10", "%)"],
        "knowledge/b": ["40/40", "30", "10", "(25", "%)"],
        "skills/c": ["0/20", "0", "0"],
    }
    assert "more" not in text


def test_ten_thousand_leaves_fit_and_add_up() -> None:
    leaves = {f"k/leaf{number:05}": [min(3, number % 5), 3, number % 5, 1] for number in range(9_000)}
    done, accepted = sum(v[0] for v in leaves.values()), sum(v[2] for v in leaves.values())
    whole = {"accepted": accepted, "rejected": 9_000, "leaf_count": 10_000}
    for height in (5, 9, 10, 12, 24, 80):
        lines = drawn([event(done, 30_000, leaves, **whole)], height=height)
        assert len(lines) < height
        shown = [line.split() for line in lines if re.match(r"\s+k/leaf", line)]
        rest = [line.split() for line in lines if "more leaves" in line]
        assert len(shown) <= 30
        if height >= 12:
            assert shown and all(cells[1] != "3/3" for cells in shown), "those under way come first"
            assert int(rest[0][0].replace(",", "")) + len(shown) == 10_000
            counted = sum(int(cells[1].split("/")[0]) for cells in shown) + int(
                rest[0][3].split("/")[0].replace(",", "")
            )
            assert counted == done
            assert sum(int(c[2]) for c in shown) + int(rest[0][4].replace(",", "")) == accepted


def test_several_flows_share_the_screen() -> None:
    leaves = {f"k/leaf{number}": [1, 3, 1, 0] for number in range(100)}
    both = [Event("progress", step, event(100, 300, leaves, note="x").data) for step in ("generate", "items")]
    for height in (10, 16, 24, 60):
        lines = drawn(both, height=height)
        assert len(lines) < height
        assert sum("100/300 rows" in line for line in lines) == 2
        tables = sum("more leaves" in line for line in lines)
        assert tables == (2 if height >= 24 else 0)


def test_active_leaves_come_first_and_stay() -> None:
    leaves = Leaves()
    leaves.take({f"done{n}": (2, 2, 1, 1) for n in range(5)})
    leaves.take({f"on{n}": (1, 2, 1, 0) for n in range(4)})
    assert [name for name, _ in leaves.choose(3)] == ["on1", "on2", "on3"]
    leaves.take({"on0": (1, 2, 1, 0)})
    assert [name for name, _ in leaves.choose(3)] == ["on1", "on2", "on3"], "no flicker"
    leaves.take({"on2": (2, 2, 1, 0)})
    assert [name for name, _ in leaves.choose(3)] == ["on0", "on1", "on3"]
    assert dict(leaves.choose(6))["on2"] == (2, 2, 1, 0)
    assert len(leaves.choose(100)) == 9
    assert leaves.choose(0) == []


@pytest.mark.parametrize("width", [20, 39, 40, 59, 60, 80, 200])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    leaves = {f"knowledge/{'x' * 70}/{name}": [1, 2, 3, 4] for name in "ab"} | {"知识/茶": [1, 2, 3, 4]}
    shown = event(9, 10, leaves, note="知" * 200, sample_leaf="k/知识", eta=1e6, rate=0.04, calls_from_memo=10**9)
    screen = Console(width=width, height=24, file=io.StringIO(), force_terminal=True, highlight=False)
    live = LiveView(screen)
    live(shown)
    screen.print(live.draw())
    file = screen.file
    assert isinstance(file, io.StringIO)
    from rich.cells import cell_len

    lines = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).split("\n")
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= 24


def test_the_state_of_the_teacher() -> None:
    def text(**state: Any) -> str:
        return progress_text(event(teacher={"in_flight": 7, "limit": 8, "ceiling": 8, "waiting": False, **state}).data)

    assert "7 in flight" in text() and "throttled" not in text()
    assert "throttled to 4 of 8" in text(limit=4)
    assert "does not answer, waiting for it" in text(limit=4, waiting=True)
    assert "in flight" not in progress_text(event(teacher={}).data)


def test_nothing_that_a_terminal_obeys() -> None:
    shown = [event(1, 2, {f"k/{HOSTILE}": [1, 2, 1, 0]}, note=HOSTILE, sample_leaf=f"k/{HOSTILE}")]
    for text in ("\n".join(drawn(shown)), progress_text(shown[0].data), one_line(HOSTILE)):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", text)
        assert "owned" in text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_now_and_then_and_at_tenths(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = PlainLines(clock)
    lines(Event("started", "generate"))
    for second in range(1, 3601):  # an hour: 3,600 events
        clock.now = float(second)
        lines(event(second, 36_000))
    told = capsys.readouterr().err.splitlines()
    assert 12 + 36 + 50 <= len(told) <= 12 + 36 + 50 + 3
    clock.now += 1
    down = {"in_flight": 0, "limit": 1, "ceiling": 8, "waiting": True}
    lines(event(3600, 36_000, teacher=down))
    lines(event(3600, 36_000, teacher=down))
    lines(event(3600, 36_000))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "waiting for it" in told[0] and "waiting" not in told[1]
    for tenth in range(2, 11):
        clock.now += 2
        lines(event(tenth * 3600, 36_000))
        lines(event(tenth * 3600, 36_000))
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in told] == [f"{n * 3600:,}/36,000" for n in range(2, 11)]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with view(quiet=True) as shown:
        shown(Event("started", "generate"))
        shown(event())
    with view() as shown:
        assert isinstance(shown, PlainLines)
    assert capsys.readouterr() == ("", "")


GENERATE = ("data", "generate", "--model", "teacher", "--pipeline", "simple", "--sdg-scale-factor", "1")


def on_terminal(
    *arguments: str, rows: int = 24, columns: int = 100, stdout: int | None = None, **environment: str
) -> tuple[int, str]:
    """Run ilab on a terminal of its own; its exit code, and all that it wrote there."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    started = subprocess.Popen(
        [sys.executable, "-m", "ilab", "-C", str(QUICKSTART), *arguments],
        stdin=theirs, stdout=theirs if stdout is None else stdout, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while True:
        try:
            more = os.read(mine, 65536)
        except OSError:  # that is how a terminal ends on Linux
            break
        if not more:
            break
        written += more
    os.close(mine)
    return started.wait(), written.decode()


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM"):
        monkeypatch.delenv(name, raising=False)
    return lambda text: re.findall(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;[\d;]+)m", text)


def test_on_a_terminal_with_json_on_standard_output(tmp_path: Path, colours: Callable[[str], list[str]]) -> None:
    def answer(body: dict[str, Any]) -> str:
        return answer_by_rule(body).replace("[ANSWER]\n", "[ANSWER]\n\x1b]0;owned\x07")

    with (
        serve(answer, latency=0.12, faults=Faults(outage_after=40, outage=1.5)) as teacher,
        (tmp_path / "out").open("wb") as out,
    ):
        arguments = ("--set", "where.teacher.in_flight=4", *GENERATE, "--endpoint-url", teacher.url)
        code, text = on_terminal("--json", "--store", str(tmp_path / "store"), *arguments, stdout=out.fileno())
    assert code == 0, text
    facts = json.loads((tmp_path / "out").read_text())
    assert facts["counts"]["calls"] == 114
    for word in ("● generate", "✓ generate", "rows/s", "accepted", "knowledge/technology/devices/tavrin_kiln", "❝"):
        assert word in text.replace("\x1b[1m", "").replace("\x1b[0m", ""), word
    assert "the teacher does not answer, waiting for it" in text
    assert re.search(r"rows/s · \d+(\.\d)? s left", text)
    assert "owned" in text and "\x1b]0;" not in text and "\x07" not in text
    assert colours(text)
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is there again, and no half-drawn table"


def test_without_colour_and_on_a_small_terminal(tmp_path: Path, colours: Callable[[str], list[str]]) -> None:
    with serve(latency=0.03) as teacher:
        arguments = ("--store", str(tmp_path), "--set", "where.teacher.in_flight=4", *GENERATE)
        code, text = on_terminal(*arguments, "--endpoint-url", teacher.url, rows=6, columns=40, NO_COLOR="1")
    assert code == 0, text
    assert "generate" in text and "leaf  " not in text
    assert colours(text) == []


def test_dumb_terminals_quiet_and_files_get_no_drawing(tmp_path: Path, colours: Callable[[str], list[str]]) -> None:
    store = ("--store", str(tmp_path / "store"))
    code, text = on_terminal(*store, "data", "generate", TERM="dumb")
    assert code == 0
    assert "generate: started" in text and "\x1b[?25l" not in text and "\x1b[2K" not in text
    code, text = on_terminal(*store, "data", "generate", "--sdg-scale-factor", "1", "--quiet")
    assert code == 0
    assert "●" not in text and "✓" not in text and "  Q: " not in text
    assert "samples: " in text


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"documents": 1, "leaves": 1, "calls_from_memo": 1}, "done: 1 document, 1 leaf, 1 call from memo"),
        ({"entries": 1, "batches": 1, "passes": 1, "registered": 1}, "done: 1 entry, 1 batch, 1 pass, 1 registered"),
        ({"documents": 1200, "left_out": 0}, "done: 1,200 documents, 0 left out"),
        ({"models": 0}, "done: nothing to do"),
        ({"pushed": 0, "bytes": 0}, "done: nothing to do"),
        ({"wrong": 0}, "done: 0 wrong"),
        ({}, "done"),
    ],
)
def test_counts_are_worded(counts: dict[str, int], text: str) -> None:
    assert finished_text({"state": "run", "counts": counts}) == text


def test_a_count_of_a_fraction_is_no_one() -> None:
    assert counted(1.5, "epochs") == "1.5 epochs"
