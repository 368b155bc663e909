"""``ilab model train --submit``: killed, stopped and finished, with pods that are real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from cluster_stub import Played, Stub

from ilab.cli.app import hoisted, main
from ilab.config import TrainWhere
from ilab.core.store import Store
from ilab.errors import InputError

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]
ROWS = [("What is the kiln made of?", "Steel."), ("Who built the lock?", "Ada Brook."), ("How hot is it?", "Hot.")]


def typed(here: Path, base: Path, stub: Stub, epochs: int = 2) -> list[str]:
    values = {
        "nodes": "2",
        "kubernetes.image": "x/y:1",
        "kubernetes.volumes": f"{{models: {here.parent}}}",
        "kubernetes.kubeconfig": str(stub.kubeconfig()),
    }
    sets = [part for name, value in values.items() for part in ("--set", f"where.train.{name}={value}")]
    settings = [
        "--num-epochs",
        str(epochs),
        "--effective-batch-size",
        "2",
        "--max-seq-len",
        "128",
        "--learning-rate",
        "3e-3",
    ]
    trained = ["model", "train", "--model-path", str(base), "--data-path", "k.jsonl", *settings]
    return ["-C", str(here), "--store", str(here / "store"), *trained, "--submit", "TrainJob", *sets]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in ROWS]
    (tmp_path / "k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def until(reached: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_one_says_who_makes_the_job(here: Path, base: Path, stub: Stub) -> None:
    done = CliRunner().invoke(main, hoisted([*typed(here, base, stub), "--manifest", "TrainJob"]))
    assert isinstance(done.exception, InputError) and "--submit makes it" in str(done.exception)
    with pytest.raises(ValueError, match=r"say which with where\.train\.launcher"):
        TrainWhere.model_validate({"submit": True})
    assert not stub.asked


@pytest.mark.long
def test_a_stopped_command_ends_the_pods_and_their_state_is_kept(here: Path, base: Path, stub: Stub) -> None:
    pods, command = Played(stub), typed(here, base, stub, epochs=30)
    first = subprocess.Popen(
        [sys.executable, "-m", "ilab", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    metrics = "store/train/*.partial/work/metrics.jsonl"
    until(lambda: first.poll() is not None or any(path.read_text().count("\n") > 2 for path in here.glob(metrics)))
    first.send_signal(signal.SIGTERM)
    _, complaint = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM and b"its job deleted" in complaint, complaint
    for thread in pods.threads:
        thread.join(60)
    [path] = here.glob(metrics)
    done = json.loads(path.read_text().splitlines()[-1])["step"]
    assert 3 <= done < 60
    kept = path.read_text()
    second_pods = Played(stub)
    second = subprocess.Popen(
        [sys.executable, "-m", "ilab", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, complaint = second.communicate(timeout=240)
    assert second.returncode == 0, complaint
    for thread in second_pods.threads:
        thread.join(60)
    store = Store(here / "store")
    [made] = [record for record in store.records() if record.type == "train"]
    rows = [json.loads(line) for line in (store.contents(made) / "metrics.jsonl").read_text().splitlines()]
    before = [json.loads(line) for line in kept.splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert [row["loss"] for row in rows[: len(before)]] == [row["loss"] for row in before]  # not trained again


@pytest.mark.long
def test_a_command_that_was_killed_is_followed_by_the_next_one(here: Path, base: Path, stub: Stub) -> None:
    """Two pods of one process each train, and never know; the losses are those of a training in one process."""
    command, pods = typed(here, base, stub), Played(stub)
    first = subprocess.Popen(
        [sys.executable, "-m", "ilab", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    until(lambda: any(path.endswith("/log") for _, path in stub.asked) or first.poll() is not None)
    os.kill(first.pid, signal.SIGKILL)
    _, complaint = first.communicate()
    assert first.returncode == -signal.SIGKILL, complaint
    done = CliRunner().invoke(main, hoisted(command))
    assert done.exception is None, (done.exception, done.stderr)
    for thread in pods.threads:
        thread.join(60)
    assert [process.returncode for process in pods.processes.values()] == [0, 0]
    assert sum(method == "POST" for method, _ in stub.asked) == 1 and not stub.jobs
    losses = []
    alone = [part for part in command if part not in ("--submit", "TrainJob", "where.train.nodes=2")]
    alone = [one for number, one in enumerate(alone) if not (one == "--set" and alone[number + 1] == "--set")]
    other = CliRunner().invoke(main, hoisted([*alone, "--store", str(here / "other")]))
    assert other.exception is None, (other.exception, other.stderr)
    for store in (Store(here / "store"), Store(here / "other")):
        [made] = [record for record in store.records() if record.type == "train"]
        lines = (store.contents(made) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses[0]) == 4
