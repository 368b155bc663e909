"""The memo: what was flushed is there after any crash, and nothing half-written is ever read."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.core.memo import Memo

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=8))
def test_what_was_put_is_got_by_another_reader(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    folder = tmp_path_factory.mktemp("memo")
    memo = Memo(folder)
    for key, value in values.items():
        memo.put(key, value)
    assert {key: memo.get(key) for key in values} == values
    memo.close()
    again = Memo(folder)
    assert {key: again.get(key) for key in values} == values
    assert again.get("\0 never put") is None
    again.close()


def test_a_torn_last_line_is_as_if_never_written(tmp_path: Path) -> None:
    """Cut the segment at every byte of its last line; the first entry stays, the second is there whole or not at all."""
    memo = Memo(tmp_path / "whole")
    memo.put("a", {"text": "first"})
    memo.put("b", {"text": "second ü"})
    memo.close()
    segment = next((tmp_path / "whole").glob("*.jsonl"))
    content = segment.read_bytes()
    start = content.index(b"\n") + 1
    for cut in range(start, len(content) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / segment.name).write_bytes(content[:cut])
        torn = Memo(folder)
        assert torn.get("a") == {"text": "first"}
        assert torn.get("b") == ({"text": "second ü"} if cut == len(content) else None)
        torn.put("b", "again")
        torn.close()
        later = Memo(folder)
        assert later.get("b") == "again"
        assert later.get("a") == {"text": "first"}
        later.close()


def test_the_index_can_be_lost_or_spoiled(tmp_path: Path) -> None:
    memo = Memo(tmp_path)
    memo.put("a", 1)
    memo.close()
    for leftover in tmp_path.glob("index.sqlite*"):
        leftover.unlink()
    memo = Memo(tmp_path)
    assert memo.get("a") == 1
    memo.close()
    for leftover in tmp_path.glob("index.sqlite*"):
        leftover.unlink()
    (tmp_path / "index.sqlite").write_bytes(b"this is no database" * 100)
    memo = Memo(tmp_path)
    assert memo.get("a") == 1
    memo.close()


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ilab.core.memo import Memo\n"
        "memo = Memo(Path(sys.argv[1]))\n"
        "for n in range(200): memo.put(f'{sys.argv[2]}-{n}', n)\n"
        "memo.close()\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in ("x", "y")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    memo = Memo(tmp_path)
    assert all(memo.get(f"{name}-{n}") == n for name in ("x", "y") for n in range(200))
    memo.close()


def test_a_kill_loses_nothing_that_was_put(tmp_path: Path) -> None:
    """The write is a system call of its own: killing the process (not the machine) loses none."""
    program = (
        "import os, sys; from pathlib import Path; from ilab.core.memo import Memo\n"
        "memo = Memo(Path(sys.argv[1]))\n"
        "for n in range(50): memo.put(str(n), n)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9
    memo = Memo(tmp_path)
    assert [memo.get(str(n)) for n in range(50)] == list(range(50))
    memo.close()


def test_a_full_disk_is_told_and_spoils_nothing(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from pathlib import Path; from ilab.core.memo import Memo\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "memo = Memo(Path(sys.argv[1])); memo.put('small', 'x')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n    memo.put('large', 'x' * 1_000_000)\n"
        "except OSError as error:\n    print(error.errno)\n"
        "memo.put('after', 'y')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) in (errno.ENOSPC, errno.EFBIG)
    memo = Memo(tmp_path)
    assert (memo.get("small"), memo.get("large"), memo.get("after")) == ("x", None, "y")
    memo.close()


def test_a_group_reaches_other_open_memos_with_the_flush(tmp_path: Path) -> None:
    writer, reader = Memo(tmp_path), Memo(tmp_path)
    writer.put("a", 1)
    assert (writer.get("a"), reader.get("a")) == (1, None)
    writer.flush()
    assert reader.get("a") == 1
    writer.put("a", 2)
    writer.put("a", 3)
    writer.close()
    assert reader.get("a") == 3
    reader.close()


def test_an_index_that_is_spoiled_under_way_is_made_anew(tmp_path: Path) -> None:
    memo = Memo(tmp_path)
    for number in range(500):
        memo.put(f"old {number}", number)
    memo.flush()
    memo.put("new", "whole")
    memo._index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    index = tmp_path / "index.sqlite"
    index.write_bytes(index.read_bytes()[:4096] + b"\xff" * (index.stat().st_size - 4096))
    memo.flush()
    assert memo.get("new") == "whole"
    assert [memo.get(f"old {number}") for number in (0, 499)] == [0, 499]
    memo.close()
