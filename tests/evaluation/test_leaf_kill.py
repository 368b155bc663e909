"""A process that scores items, killed: no item is asked twice, and the scores are those of an unbroken run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ilab.artifacts import Report
from ilab.config import Where
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import Item
from ilab.evaluation.stage import evaluate

WRITTEN, CHOICES = 16, 6
PASSED = 5  # results after which the process is killed
JOB = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    from test_leaf_kill import run
    run(Path({model!r}), Path({memo!r}), Path({out!r}))
"""


def items() -> list[Item]:
    written = [("exact", f"How many locks has canal {at}?", ()) for at in range(WRITTEN)]
    chosen = [("mcq", f"Which lamp is lamp {at}?", ("14", "red", "café")) for at in range(CHOICES)]
    return [
        Item(
            id=f"a/{at}", leaf="a", split="test", kind=kind, question=question, options=options, gold="14",
            cluster=str(at),
        )
        for at, (kind, question, options) in enumerate([*written, *chosen])
    ]  # fmt: skip


def run(model: Path, memo: Path, out: Path) -> Any:
    kept = Memo(memo)
    where = Where(threads=1, device="cpu")
    site: Any = SimpleNamespace(where=where, emit=Bus().for_step("e"), stopping=lambda: False, memo=lambda name: kept)
    out.mkdir(parents=True)
    evaluate({"m": model}, ("test", items()), [], "", Report(out), site)
    kept.close()
    return kept


def lines(memo: Path) -> list[bytes]:
    """The results that were kept whole, of all processes."""
    return [
        line for path in memo.glob("*.jsonl") for line in path.read_bytes().splitlines(True) if line.endswith(b"\n")
    ]


def test_killed_and_run_again_no_item_is_asked_twice(tiny_model: Path, tmp_path: Path) -> None:
    memo, folder = tmp_path / "memo", str(Path(__file__).parent)
    script = JOB.format(folder=folder, model=str(tiny_model), memo=str(memo), out=str(tmp_path / "killed"))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        deadline = time.monotonic() + 120
        while len(lines(memo)) < PASSED and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    before = len(lines(memo))
    assert PASSED <= before < WRITTEN + CHOICES
    assert not (tmp_path / "killed" / "report.json").exists()
    resumed = run(tiny_model, memo, tmp_path / "resumed")
    assert resumed.writes == WRITTEN + CHOICES - before
    keys = [json.loads(line)["k"] for line in lines(memo)]
    assert len(keys) == len(set(keys)) == WRITTEN + CHOICES
    run(tiny_model, tmp_path / "fresh", tmp_path / "whole")
    contents = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("resumed", "whole")]
    assert contents[0] == contents[1] and contents[0]
