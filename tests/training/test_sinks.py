"""Sinks follow the file from processes of their own; none of them can stop, or block, a training."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tiny_training import Trains

from ilab.config import TrainWhere
from ilab.errors import SetupError
from ilab.training import sinks
from ilab.training.metrics import FILE
from ilab.training.sinks import Prometheus, exposition, follow, wanted

ROW = {"step": 1, "epoch": 0, "loss": 2.5, "tokens": 10, "seconds": 0.5}


class Kept:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.closed = False

    def write(self, rows: Any) -> None:
        self.steps += [row["step"] for row in rows]

    def close(self) -> None:
        self.closed = True


def fake(folder: Path, name: str, body: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(body))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which this process and its children import."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", ":".join([str(folder), *(entry for entry in sys.path if entry)]))
    return folder


def test_whole_lines_are_handed_on_once_from_where_the_run_goes_on(tmp_path: Path) -> None:
    path, sink = tmp_path / FILE, Kept()
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4')
    looks = iter([False, False, True])

    def finished(_: float) -> bool:
        look = next(looks)
        if look:
            with path.open("a") as file:
                file.write('}\n{"step": 5}\n')
        return look

    follow(path, 1, sink, finished)
    assert sink.steps == [2, 3, 4, 5] and sink.closed


def test_the_textfile_is_prometheus_format(tmp_path: Path) -> None:
    text = exposition(ROW, 'a"b\\c')
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) ilab_training_\w+ .+|ilab_training_\w+\{run="[^\n]*"\} [-+.e0-9]+', line)
    assert 'ilab_training_loss{run="a\\"b\\\\c"} 2.5' in text
    sink = Prometheus({"prometheus_file": str(tmp_path / "x.prom"), "run": "r"})
    sink.write([ROW, {**ROW, "loss": 1.5}])
    assert 'ilab_training_loss{run="r"} 1.5\n' in (tmp_path / "x.prom").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["x.prom"]


def test_a_package_that_is_missing_is_told_before_the_start(
    trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()  # what W&B leaves in the folder it was used in: no package
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SetupError, match="wandb is not installed") as caught:
        trains(tmp_path, where=TrainWhere(report_to=("wandb",)))
    assert "pip install wandb" in caught.value.hint
    assert not (tmp_path / "work" / FILE).exists()
    assert wanted(TrainWhere(prometheus_file="x.prom")) == ("prometheus",)


def test_training_feeds_prometheus_mlflow_and_wandb(trains: Trains, tmp_path: Path, packages: Path) -> None:
    fake(
        packages,
        "mlflow",
        """
        import json, os, types
        LOG = os.path.join(os.path.dirname(__file__), "mlflow.log")
        def _say(*what):
            with open(LOG, "a") as file: file.write(json.dumps(what) + "\\n")
        def set_tracking_uri(uri): _say("uri", uri, os.environ["MLFLOW_DISABLE_TELEMETRY"])
        def set_experiment(name): _say("experiment", name)
        def start_run(**how):
            _say("start", how)
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))
        def log_metrics(values, step): _say("metrics", step, sorted(values))
        def end_run(): _say("end")
        """,
    )
    fake(
        packages,
        "wandb",
        """
        import json, os
        def _say(*what):
            with open(os.path.join(os.path.dirname(__file__), "wandb.log"), "a") as file:
                file.write(json.dumps(what) + "\\n")
        class Run:
            def log(self, values, step): _say("log", step, values["loss"])
            def finish(self): _say("finish")
        def init(**how):
            _say("init", how["project"], how["mode"])
            return Run()
        """,
    )
    where = TrainWhere(
        report_to=("mlflow", "wandb"), report_dir=str(tmp_path / "reports"), prometheus_file=str(tmp_path / "t.prom")
    )
    trains(tmp_path, where=where)
    said = [json.loads(line) for line in (packages / "mlflow.log").read_text().splitlines()]
    assert said[0] == ["uri", f"sqlite:///{tmp_path / 'reports' / 'mlflow.db'}", "true"], "and its makers hear nothing"
    assert [line[1] for line in said if line[0] == "metrics"] == list(range(1, 10)) and said[-1] == ["end"]
    rows = [json.loads(line) for line in (tmp_path / "work" / FILE).read_text().splitlines()]
    logged = [json.loads(line) for line in (packages / "wandb.log").read_text().splitlines()]
    assert logged[0] == ["init", "ilab", "offline"] and logged[-1] == ["finish"]
    assert [line[2] for line in logged[1:-1]] == [row["loss"] for row in rows]
    assert f"}} {rows[-1]['loss']}" in (tmp_path / "t.prom").read_text()


def test_a_sink_that_fails_or_hangs_stops_nothing(
    trains: Trains, tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(packages, "mlflow", "raise RuntimeError('no such server')")
    fake(packages, "wandb", "import time\nwhile True: time.sleep(1)")
    monkeypatch.setattr(sinks, "PATIENCE", 0.5)
    index = trains(tmp_path, where=TrainWhere(report_to=("mlflow", "wandb"), report_dir=str(tmp_path / "r")))
    assert [entry["name"] for entry in index] == ["epoch-001", "epoch-002", "epoch-003"]
    assert "no such server" in (tmp_path / "work" / "sink-mlflow.log").read_text()


def test_tensorboard_reads_what_is_written(trains: Trains, tmp_path: Path, packages: Path) -> None:
    pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    record = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    trains(tmp_path, where=TrainWhere(report_to=("tensorboard",), report_dir=str(tmp_path / "reports")))
    [path] = (tmp_path / "reports" / "tensorboard").glob("*/events*")
    rows = [json.loads(line) for line in (tmp_path / "work" / FILE).read_text().splitlines()]
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    losses = {}
    for raw in record.RawEventFileLoader(str(path)).Load():
        event = event_pb2.Event.FromString(raw)
        for one in event.summary.value:
            if one.tag == "loss":
                losses[event.step] = one.simple_value
    assert losses == {row["step"]: pytest.approx(row["loss"], rel=1e-6) for row in rows}
