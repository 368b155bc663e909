"""Commands of several machines, two of them for real on one, and what a run refuses before it starts."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import ROWS, SETTINGS, Trains

from ilab.config import TrainWhere, Where
from ilab.core.events import Bus
from ilab.errors import SetupError, Stopped
from ilab.training import forecast, probe
from ilab.training.encode import EncodedSet
from ilab.training.estimate import estimate
from ilab.training.forecast import expect
from ilab.training.launch import commands, run_job
from ilab.training.loop import TrainJob
from ilab.training.memory import Machine
from ilab.training.metrics import read_metrics
from ilab.training.settings import TrainSettings
from ilab.training.start import before_start, check_disk, not_enough

GIB = 1 << 30


def config(base: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((base / "config.json").read_text())
    return read


def test_each_machine_has_its_line() -> None:
    lines = commands(Path("/j"), TrainWhere(nodes=2, processes=4, master="host-0:29500"))
    assert [line[line.index("--node-rank") + 1] for line in lines] == ["0", "1"]
    for line in lines:
        assert line[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "4"]
        assert line[line.index("--master-addr") + 1 :][:3] == ["host-0", "--master-port", "29500"]
        assert line[-3:] == ["-m", "ilab.training.worker", "/j"]
    [alone] = commands(Path("/j"), TrainWhere(processes=2))
    assert "--standalone" in alone and "--node-rank" not in alone
    ipv6 = commands(Path("/j"), TrainWhere(nodes=2, master="[fd00::1]:29500"))[0]
    assert ipv6[ipv6.index("--master-addr") + 1] == "fd00::1"


@pytest.mark.parametrize("settings", [{"nodes": 2}, {"nodes": 2, "master": "host"}, {"nodes": 2, "master": ":1"}])
def test_machines_that_could_not_meet_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"where\.train\.master"):
        TrainWhere.model_validate(settings)


@pytest.mark.long
def test_two_machines_train_what_one_does(
    trains: Trains, data: EncodedSet, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two torchruns with an address of their own, one process each, that share a file system; here on one machine.

    The line of the second is typed first, when nothing is prepared yet.
    """
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    trains(tmp_path / "one")
    work = tmp_path / "two" / "work"
    work.mkdir(parents=True)
    where = TrainWhere(nodes=2, master=meeting())
    events: list[Any] = []
    second = subprocess.Popen(commands(work / "job", where)[1], stderr=subprocess.PIPE, text=True)
    train_on(data, base, work, where, events)
    assert second.communicate(timeout=120)[1] == "" and second.returncode == 0
    notes = [event.data.get("note", "") for event in events if event.kind == "metric"]
    assert any("on machine 1: " in note and "--node-rank 1" in note for note in notes)
    one, two = ([*read_metrics(tmp_path / name / "work")] for name in ("one", "two"))
    assert len(one) == len(two) == 9
    for first, second_ in zip(one, two, strict=True):
        assert first["loss"] == pytest.approx(second_["loss"], rel=1e-5)
        assert first["trained_tokens"] == second_["trained_tokens"]
    weights = [load_file(tmp_path / name / "work/candidates/epoch-003/model.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_a_machine_that_waits_for_the_others_can_be_stopped(data: EncodedSet, base: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    asked = threading.Timer(5, lambda: events.append("stop"))
    asked.start()
    with pytest.raises(Stopped, match="waiting for the other machines"):
        train_on(data, base, tmp_path, TrainWhere(nodes=2, master=meeting()), events, lambda: "stop" in events)
    assert not (tmp_path / "finished.json").exists()


def meeting() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def train_on(
    data: EncodedSet,
    base: Path,
    work: Path,
    where: TrainWhere,
    events: list[Any],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    settings, none = TrainSettings.model_validate(SETTINGS), EncodedSet((), (), (), ())
    emit = Bus([events.append]).for_step("t")
    run_job(TrainJob(data, none, base, work, settings, emit, stopping, 1, where), "cpu")


def test_a_disk_that_is_too_small_is_refused_before_the_start(
    trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100_000}))
    with pytest.raises(SetupError, match="98 KiB are free") as caught:
        trains(tmp_path)
    assert "train_keep_checkpoints" in caught.value.hint and "ilab pipeline gc" in caught.value.hint
    assert caught.value.where == str(tmp_path / "work") and not list((tmp_path / "work").iterdir())


def test_what_lies_there_from_before_counts(base: Path) -> None:
    settings = TrainSettings.model_validate(SETTINGS)
    made = estimate(config(base), settings, [10] * 20, Machine(disk=GIB), TrainWhere())
    needed = made.disk.total
    short = estimate(config(base), settings, [10] * 20, Machine(disk=needed - 10), TrainWhere())
    with pytest.raises(SetupError, match="are free"):
        check_disk(short, Path("/w"))
    check_disk(short, Path("/w"), held=10)


def test_a_run_writes_what_was_forecast(trains: Trains, tmp_path: Path, base: Path) -> None:
    """Of candidates and state: the forecast is above what lies there at the end, but not twice."""
    settings = TrainSettings.model_validate({**SETTINGS, "keep": 1})
    trains(tmp_path, keep=1, validation=0.2)
    disk = estimate(config(base), settings, [40] * 10, Machine(), TrainWhere()).disk
    [folder] = (tmp_path / "work").glob("state-*")
    state = sum(path.stat().st_size for path in folder.iterdir())
    assert state == pytest.approx(disk.state, rel=0.15)
    [*_, candidate] = sorted((tmp_path / "work" / "candidates").iterdir())
    assert (candidate / "model.safetensors").stat().st_size == pytest.approx(disk.candidate, rel=0.1)


def test_memory_that_is_too_small_is_refused_or_told(
    trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "free_memory", lambda _: 100 << 20)
    with pytest.raises(SetupError, match="100 MiB are free") as caught:
        trains(tmp_path)
    assert "where.train.forecast=warn" in caught.value.hint
    index = trains(tmp_path, where=TrainWhere(forecast="warn"))
    assert len(index) == 3


def test_one_real_step_corrects_the_estimate_and_leaves_nothing(data: EncodedSet, base: Path, tmp_path: Path) -> None:
    settings, none = TrainSettings.model_validate(SETTINGS), EncodedSet((), (), (), ())
    emit = Bus().for_step("t")
    made = [
        before_start(TrainJob(data, none, base, tmp_path, settings, emit, lambda: False, 1, where), "cpu")
        for where in (TrainWhere(), TrainWhere(probe=True), TrainWhere(probe=True, processes=2))
    ]
    by_form, seen, shared = (one for one in made if one is not None)
    assert by_form.seconds is None and by_form.machine.correction == 1
    # How far from 1 is the machine's: a model this small vanishes in what Python and PyTorch hold.
    assert seen.seconds is not None and probe.LEAST <= seen.machine.correction != 1
    assert shared.machine.size == 2 and shared.seconds is None and shared.machine.correction != 1
    assert not list(tmp_path.glob("state-*")) and not (tmp_path / "metrics.jsonl").exists()


def test_a_model_that_nothing_is_known_of_is_not_refused(data: EncodedSet, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "made-up"}')
    settings, none = TrainSettings.model_validate(SETTINGS), EncodedSet((), (), (), ())
    job = TrainJob(data, none, tmp_path, tmp_path, settings, Bus().for_step("t"), lambda: False)
    assert before_start(job, "cpu") is None


def test_a_password_has_no_place_in_an_address() -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_USERNAME"):
        TrainWhere(mlflow_uri="https://me:secret@mlflow.example.org")


def test_the_hint_names_the_settings(base: Path) -> None:
    shape = {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }
    settings = TrainSettings(epochs=1, batch=8, learning_rate=1e-5, max_length=2048, max_batch_tokens=5000)
    made = estimate(shape, settings, [2000] * 8, Machine("cuda", memory=16 * GIB), TrainWhere())
    assert "train_method=qlora" in not_enough(made).hint


def test_the_plan_tells_steps_and_tokens_and_after_a_run_the_time(trains: Trains, tmp_path: Path, base: Path) -> None:
    fields = TrainSettings.model_validate(SETTINGS).model_dump(mode="json")
    where = Where(device="cpu", threads=1)
    before = expect(fields, ROWS, base, where)
    trains(tmp_path)
    rows = list(read_metrics(tmp_path / "work"))
    assert before == {"steps": len(rows), "tokens": sum(row["tokens"] for row in rows)}
    after = expect(fields, ROWS, base, where)
    assert after["seconds"] == pytest.approx(sum(row["seconds"] for row in rows), rel=0.05)
    assert expect(fields, [], base, where)["steps"] == 0


def test_long_lists_are_told_by_a_part_of_their_rows(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = TrainSettings.model_validate(SETTINGS).model_dump(mode="json")
    whole = expect(fields, ROWS, base, Where(device="cpu"))
    monkeypatch.setattr(forecast, "SAMPLE", 5)
    part = expect(fields, ROWS, base, Where(device="cpu"))
    assert part["steps"] == whole["steps"] and part["tokens"] == pytest.approx(whole["tokens"], rel=0.3)
