"""Pods that nobody waits for any more: they save their state and end, and their metrics are there while they train."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from ilab.config import TrainWhere
from ilab.core.events import Bus
from ilab.training.attendance import UNATTENDED, Attendance, Waiting, was_left
from ilab.training.encode import EncodedSet
from ilab.training.handover import told, write_job
from ilab.training.loop import TrainJob
from ilab.training.settings import TrainSettings

SETTINGS = {"epochs": 4000, "batch": 2, "learning_rate": 1e-3, "max_length": 128, "max_batch_tokens": 128}


def test_a_word_now_and_then_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waiting, attended, ever = Waiting(tmp_path), Attendance(tmp_path, 60), Attendance(tmp_path, None)
    waiting.tell()
    first = (tmp_path / "attended").read_text()
    waiting.tell()
    assert (tmp_path / "attended").read_text() == first, "not at every look"
    for _ in range(20):
        now[0] += 20
        waiting.tell()
        assert not attended.lost()
    now[0] += 59
    assert not attended.lost()
    now[0] += 2
    assert attended.lost() and not ever.lost()
    waiting.tell()
    assert attended.lost(), "the workers are ending: it stays so"
    assert not Attendance(tmp_path, 60).lost(), "others that begin count anew"


def test_a_file_system_that_is_away_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two long steps there is one look; with NFS it may meet the moment in which the word is replaced."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    attended, read = Attendance(tmp_path, 60), Path.read_bytes
    Waiting(tmp_path).tell()

    def stale(path: Path) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    now[0] += 300
    monkeypatch.setattr(Path, "read_bytes", stale)
    assert not attended.lost()
    monkeypatch.setattr(Path, "read_bytes", read)
    assert not attended.lost(), "the next look finds the word"
    now[0] += 300
    assert attended.lost()


def place(base: Path, port: int, *, submit: bool = True) -> TrainWhere:
    kubernetes = {"image": "x/y:1", "volumes": {"models": str(base.parents[2])}, "metrics_port": port}
    return TrainWhere.model_validate(
        {"launcher": "TrainJob", "submit": submit, "kubernetes": {**kubernetes, "unattended_seconds": 3.0}}
    )


def test_workers_end_when_nobody_is_there_and_show_metrics_until_then(
    tmp_path: Path, base: Path, data: EncodedSet
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    none, emit = EncodedSet((), (), (), ()), Bus().for_step("t")
    settings = TrainSettings.model_validate(SETTINGS)
    job = TrainJob(data, none, base, work, settings, emit, lambda: False, 1, place(base, port))
    by_hand = TrainJob(data, none, base, work, settings, emit, lambda: False, 1, place(base, port, submit=False))
    assert told(by_hand, "cpu")["where"]["kubernetes"]["unattended_seconds"] is None, "no command waits for these"
    folder = write_job(job, "cpu")
    worker = subprocess.Popen(
        [sys.executable, "-m", "ilab.training.worker", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    shown, waiting, end = "", Waiting(work), time.monotonic() + 60
    while worker.poll() is None and "ilab_step" not in shown and time.monotonic() < end:
        waiting.tell()
        time.sleep(0.1)
        try:
            shown = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        except OSError:
            continue
    assert 'run="ilab-train-' in shown and 'step="train"' in shown
    said, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, said  # any other, and the pods would be started again
    assert was_left(work) and not (work / "finished.json").exists() and not (work / "error.json").exists()
    steps = [path for path in work.iterdir() if path.name.startswith("state")]
    assert steps, sorted(path.name for path in work.iterdir())
    assert (work / UNATTENDED).is_file()
