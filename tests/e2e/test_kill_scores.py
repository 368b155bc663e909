"""A real `ilab run`, killed while it scores: every item is asked once, counted by what the memo was given."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

KILL = """
import os
from ilab.core import memo
left = int(arguments[0])
real = memo.Memo.put
def put(self, key, value):
    global left
    real(self, key, value)
    if self.folder.name == "scores":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
memo.Memo.put = put
"""


def kept(project: Any) -> list[str]:
    """The keys of all scores that any process has put into the memo."""
    folder = project.store.root / "memo" / "scores"
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_bytes().splitlines(True)]
    return [json.loads(line)["k"] for line in lines if line.endswith(b"\n")]


@pytest.mark.long
@pytest.mark.parametrize("after", [1, 7, 30])
def test_no_item_is_asked_twice(project: Any, reference: Any, after: int) -> None:
    assert project.instrumented("run", before=KILL, given=(str(after),)).returncode == -signal.SIGKILL
    assert len(kept(project)) == after
    project.built()
    assert project.digests() == reference.digests()
    found = kept(project)
    assert len(found) == len(set(found)) and set(found) == set(kept(reference))
