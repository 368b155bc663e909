"""`data generate` on a disk that fills up, and on a store in which something was torn: nothing is lost or believed that
should not be.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ilab.core.memo import Memo
from ilab.testing.teacher import Teacher, serve

PASSAGES, CALLS = 30, 210
IN_FLIGHT = 16
# Runs the command behind ``$3`` on a disk as small as ``$1``, and again once it is larger; the store is copied to ``$2``.
SMALL = """
mkdir -p disk && mount -t tmpfs -o size="$1" tmpfs disk || exit 77
"${@:3}"
echo "exit $?" >&2
mount -o remount,size=64m disk
"${@:3}" || exit
cp -r disk/store "$2"
"""


@pytest.fixture
def unbroken(generating: Callable[[int, int], Any], teacher_script: Any) -> Any:
    whole = generating(1, PASSAGES).beside("whole")
    with serve(teacher_script) as teacher:
        whole.end(teacher)
        assert len(teacher.calls) == CALLS
    return whole


def on_small_disk(project: Any, teacher: Teacher, size: str) -> str:
    """What it said. The store is left in the project's own folder."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) to mount a small disk with")
    namespace = [unshare, "--user", "--map-root-user", "--mount", "bash", "-c", SMALL, "bash"]
    here = project.folder / project.store_name
    command = [part.replace(str(here), str(project.folder / "disk" / "store")) for part in project.arguments(teacher)]
    done = subprocess.run(
        [*namespace, size, str(here), *command],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.long
@pytest.mark.parametrize("size", ["500k", "700k", "900k"])
def test_a_disk_that_fills_up_half_way(unbroken: Any, teacher_script: Any, size: str) -> None:
    """The journal grows by 4 kB a call. What it held is not asked again once there is room."""
    project = unbroken.beside("store")
    with serve(lambda body: f"{teacher_script(body).strip()}{'x' * 4000}") as teacher:
        said = on_small_disk(project, teacher, size)
        assert "the disk is full" in said and "exit 3" in said
        assert "ilab pipeline gc" in said and "run the same command again" in said
        assert len(teacher.calls) <= CALLS + IN_FLIGHT
    counts = project.record().counts
    assert 20 < counts["calls_from_memo"] < CALLS, "the disk was full before or after"
    assert project.content() == unbroken.content()


@pytest.mark.long
@pytest.mark.parametrize("size", ["160k", "320k", "400k"])
def test_a_disk_that_is_full_before_or_after(unbroken: Any, teacher_script: Any, size: str) -> None:
    """In front of the first call, while the index is written, while the result is."""
    project = unbroken.beside("store")
    with serve(teacher_script) as teacher:
        said = on_small_disk(project, teacher, size)
        assert "the disk is full" in said and "exit 3" in said
        assert len(teacher.calls) <= CALLS + IN_FLIGHT
    assert project.content() == unbroken.content()
    assert project.record().digest == unbroken.record().digest


def segment(project: Any) -> Path:
    (only,) = project.journal()
    return Path(only)


@pytest.mark.long
@pytest.mark.parametrize("index", [True, False])
def test_a_torn_line_of_the_journal(unbroken: Any, teacher_script: Any, index: bool) -> None:
    """The last line cut in its middle, with an index that knows of all of it and without one: that call alone is new."""
    project = unbroken.beside("store")
    shutil.copytree(unbroken.folder / "whole", unbroken.folder / "store", symlinks=True)
    shutil.rmtree(unbroken.folder / "store" / "generate")
    journal = segment(project)
    content = journal.read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1
    journal.write_bytes(content[: (start + len(content)) // 2])
    if not index:
        for leftover in journal.parent.glob("index.sqlite*"):
            leftover.unlink()
    with serve(teacher_script) as teacher:
        project.end(teacher)
        assert len(teacher.calls) == 1
    assert project.content() == unbroken.content()


def test_the_journal_cut_anywhere(unbroken: Any, tmp_path: Path) -> None:
    """At every byte of its last record, with the index that knew the whole of it: the record is there or it is not, and
    those before it always are.
    """
    content = segment(unbroken).read_bytes()
    lines = content.splitlines(keepends=True)
    before, last = b"".join(lines[-3:-1]), lines[-1]
    memo = Memo(tmp_path / "cut")
    memo.close()
    journal = tmp_path / "cut" / "writer.jsonl"
    journal.write_bytes(before + last)
    memo = Memo(tmp_path / "cut")
    *kept, lost = [line.split(b'"', 4)[3].decode() for line in lines[-3:]]
    assert memo.get(lost) is not None
    memo.close()
    index = (tmp_path / "cut" / "index.sqlite").read_bytes()
    for cut in range(len(before), len(before + last)):
        journal.write_bytes((before + last)[:cut])
        (tmp_path / "cut" / "index.sqlite").write_bytes(index)
        memo = Memo(tmp_path / "cut")
        found = [memo.get(key) is not None for key in (*kept, lost)]
        memo.close()
        # Without its newline a line does not count, even where all else of it is there.
        assert found in ([True, True, False], [True, True, True]), cut
        assert found[2] is False or cut == len(before + last) - 1


@pytest.mark.long
def test_a_torn_result(unbroken: Any, teacher_script: Any) -> None:
    """Cut after it was published, a result is told as damaged, with its line; made anew it costs no call."""
    expected = unbroken.content()
    folder = unbroken.store.contents(unbroken.record())
    samples = folder / "samples.jsonl"
    samples.write_bytes(expected["samples.jsonl"][: len(expected["samples.jsonl"]) // 2])
    with serve(teacher_script) as teacher:
        done = unbroken.end(teacher, code=3)
        assert f"{samples}:" in done.stderr
        assert "remove that artifact's folder and run again" in done.stderr
        shutil.rmtree(folder)
        unbroken.end(teacher)
        assert len(teacher.calls) == 0
    assert unbroken.content() == expected


@pytest.mark.long
def test_torn_unfinished_work(unbroken: Any, teacher_script: Any) -> None:
    """Files in an unfinished result, as a kill leaves them, are never taken for the result."""
    project = unbroken.beside("store")
    shutil.copytree(unbroken.folder / "whole", unbroken.folder / "store", symlinks=True)
    record = unbroken.record()
    made = project.store.directory(record.type, record.key)
    partial = made.with_name(f"{made.name}.partial")
    (partial / "artifact").mkdir(parents=True)
    (partial / "artifact" / "samples.jsonl").write_bytes(unbroken.content()["samples.jsonl"][:1000])
    (partial / "artifact" / "stray.txt").write_text("left behind")
    shutil.rmtree(made)
    with serve(teacher_script) as teacher:
        project.end(teacher)
        assert len(teacher.calls) == 0
    assert project.content() == unbroken.content()
    assert project.store.partials() == []
