"""A run that dies at any file operation goes on, and ends in the bytes of an unbroken one.

The run is a child process that ends itself, without any cleaning up, at its n-th change of a file or folder: Python
tells of each before it is done (PEP 578). The next run then finds whatever lies there.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_training import Trains

from ilab.config import TrainWhere
from ilab.core.store import digest_tree
from ilab.errors import InputError

ALWAYS = TrainWhere(state_seconds=0)  # a state after every step
CHANGES = {
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.truncate",
    "shutil.rmtree",
    "shutil.copyfile",
}


def in_child(run: Callable[[], Any], die_at: int | None = None) -> tuple[int, int]:
    """Run in a forked process that dies at its ``die_at``-th change. Returns its exit status and how many it came to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            changes = event in CHANGES or (event == "open" and any(letter in str(arguments[1]) for letter in "wax+"))
            if changes and "/work/" in f"{arguments[0]}/":
                seen += 1
                if seen == die_at:
                    os._exit(9)

        sys.addaudithook(hook)
        try:
            run()
        except BaseException:  # whatever it is, the parent must hear of it
            traceback.print_exc()
            os._exit(1)
        os.write(writer, str(seen).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as told:
        return os.waitstatus_to_exitcode(status), int(told.read() or 0)


def check(trains: Trains, tmp_path: Path, every: int) -> int:
    settings = {"epochs": 2, "save_every": 1, "keep": 1}
    status, changes = in_child(lambda: trains(tmp_path / "whole", where=ALWAYS, **settings))
    assert status == 0 and changes > 40
    whole = digest_tree(tmp_path / "whole" / "out")
    for die_at in range(1, changes + 1, every):
        folder = tmp_path / f"run{die_at}"
        status, _ = in_child(lambda: trains(folder, where=ALWAYS, **settings), die_at)  # noqa: B023 - called at once
        assert status == 9, f"it did not come to change {die_at}"
        shutil.rmtree(folder / "out", ignore_errors=True)  # the store gives every attempt an empty one
        trains(folder, where=ALWAYS, **settings)
        assert digest_tree(folder / "out") == whole, f"after dying at change {die_at} of {changes}"
    return changes


def test_a_run_that_dies_at_some_file_operations_goes_on(trains: Trains, tmp_path: Path) -> None:
    check(trains, tmp_path, every=17)


@pytest.mark.long
def test_a_run_that_dies_at_any_file_operation_goes_on(trains: Trains, tmp_path: Path) -> None:
    check(trains, tmp_path, every=1)


def test_a_state_that_is_not_what_was_written_is_refused(trains: Trains, tmp_path: Path) -> None:
    trains(tmp_path, epochs=1)
    state = next((tmp_path / "work").glob("state-*"))
    file = next(state.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="is damaged") as caught:
        trains(tmp_path, epochs=1)
    assert "remove" in caught.value.hint
    (state / "manifest.json").unlink()  # as if it had never been finished
    shutil.rmtree(tmp_path / "out")
    assert trains(tmp_path, epochs=1)
