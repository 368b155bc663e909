"""Metrics for other programs: TensorBoard, MLflow, W&B, and the textfile collector of Prometheus.

    training ──▶ metrics.jsonl ◀── one process for each of them: ``-m ilab.training.sinks NAME``

Each follows the file and has a process of its own: whatever a foreign library does (fail, hang, hold memory), the
training goes on. Such a process lives as long as its standard input is open, then sends what is left and ends; what
went wrong stands in ``sink-<name>.log`` beside the metrics.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ilab.config import TrainWhere, data_home
from ilab.core.files import read_json, write_json, write_text
from ilab.errors import SetupError
from ilab.training.metrics import FILE, SCHEMA

LOOK = 0.5  # seconds between looks at the file
PATIENCE = 30.0  # seconds that a sink has for what is left, at the end
QUIET = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
PLACES = ("step", "epoch")  # where a number stands, not a number itself
Row = Mapping[str, Any]


class Sink(Protocol):
    """Takes rows of ``metrics.jsonl`` and hands them on. May raise whatever it likes."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


def wanted(where: TrainWhere) -> tuple[str, ...]:
    """The names of the sinks that are asked for. Raises ``SetupError`` where a package is missing."""
    for name in where.report_to:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name, which they make, is no package
            raise SetupError(
                f"{name} is not installed",
                where="where.train.report_to",
                hint=f"pip install {name}, or leave it out: the metrics are in {FILE} anyway",
            )
    return (*where.report_to, *(("prometheus",) if where.prometheus_file else ()))


@contextlib.contextmanager
def following(where: TrainWhere, work: Path, done: int) -> Iterator[None]:
    """Let all sinks follow the metrics of ``work`` from behind step ``done`` on."""
    started = [_start(name, where, work, done) for name in wanted(where)]
    try:
        yield
    finally:
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
        end = time.monotonic() + PATIENCE
        for process in started:
            try:
                process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(name: str, where: TrainWhere, work: Path, done: int) -> subprocess.Popen[bytes]:
    folder = Path(where.report_dir).expanduser() if where.report_dir else data_home() / "reports"
    told = {
        "metrics": str(work / FILE),
        "done": done,
        "folder": str(folder.absolute()),
        "run": work.absolute().parent.name.partition(".")[0][:12],
        "online": where.report_online,
        "mlflow_uri": where.mlflow_uri,
        "prometheus_file": where.prometheus_file,
    }
    with (work / f"sink-{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ilab.training.sinks", name],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **QUIET},
            start_new_session=True,  # Ctrl-C is the training's; a sink ends with its input
        )
    # Not as an argument, which everybody on the machine may read: the address of a server can hold a password.
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
    return process


class TensorBoard:
    """An event file for TensorBoard. The package is enough, without PyTorch."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._event = import_module("tensorboard.compat.proto.event_pb2").Event
        self._summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
        writer = import_module("tensorboard.summary.writer.event_file_writer").EventFileWriter
        self._writer = writer(str(Path(told["folder"]) / "tensorboard" / told["run"]))

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            values = [self._summary.Value(tag=name, simple_value=value) for name, value in _numbers(row).items()]
            event = self._event(wall_time=time.time(), step=row["step"], summary=self._summary(value=values))
            self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """A run of the experiment ``ilab``; a training that goes on goes on in the same one."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._mlflow = import_module("mlflow")
        folder = Path(told["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        self._mlflow.set_tracking_uri(told["mlflow_uri"] or f"sqlite:///{folder / 'mlflow.db'}")
        self._mlflow.set_experiment("ilab")
        kept = folder / f"mlflow-{told['run']}.json"
        if kept.is_file():
            self._mlflow.start_run(run_id=read_json(kept)["run_id"])
        else:
            run = self._mlflow.start_run(run_name=told["run"])
            write_json(kept, {"run_id": run.info.run_id})

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._mlflow.log_metrics(_numbers(row), step=row["step"])

    def close(self) -> None:
        self._mlflow.end_run()


class WeightsAndBiases:
    """A run of the project ``ilab``; offline unless told otherwise."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        folder = Path(told["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        self._run = import_module("wandb").init(
            project="ilab",
            id=told["run"],
            name=told["run"],
            resume="allow",
            dir=str(folder),
            mode="online" if told["online"] else "offline",
        )

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log(_numbers(row), step=row["step"])

    def close(self) -> None:
        self._run.finish()


class Prometheus:
    """A file in Prometheus' text format with the last step's numbers, replaced as a whole."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._path, self._run = Path(told["prometheus_file"]).expanduser(), told["run"]

    def write(self, rows: Sequence[Row]) -> None:
        if rows:
            write_text(self._path, exposition(rows[-1], self._run))

    def close(self) -> None:
        """Nothing: the last numbers stay."""


def exposition(row: Row, run: str) -> str:
    """One line of the metrics in Prometheus' text format, version 0.0.4."""
    label = run.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    lines = []
    for column in SCHEMA:
        if column.name in row:
            name = f"ilab_training_{column.name}"
            lines += [f"# HELP {name} {column.meaning}", f"# TYPE {name} gauge"]
            lines.append(f'{name}{{run="{label}"}} {row[column.name]}')
    return "\n".join(lines) + "\n"


SINKS: dict[str, Callable[[Mapping[str, Any]], Sink]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
    "prometheus": Prometheus,
}


def follow(path: Path, done: int, sink: Sink, finished: Callable[[float], bool]) -> None:
    """Hand on every whole line of ``path`` behind step ``done``, until ``finished`` (which waits so many seconds)."""
    at, ended = 0, False
    while not ended:
        ended = finished(LOOK)  # asked before the file is read, so that what was written until then is not missed
        rows = []
        with path.open("rb") as file:
            file.seek(at)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                at += len(line)
                row = json.loads(line)
                if row["step"] > done:
                    rows.append(row)
        if rows:
            sink.write(rows)
    sink.close()


def _numbers(row: Row) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name not in PLACES}


def _closed(seconds: float) -> bool:
    """Whether standard input was closed, within so many seconds. Nothing else is ever written to it."""
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and not os.read(0, 1)


def main(name: str) -> None:
    told = bytearray()
    while not told.endswith(b"\n"):  # byte by byte: what is buffered is not seen by select
        read = os.read(0, 1)
        if not read:
            return
        told += read
    settings = json.loads(told)
    follow(Path(settings["metrics"]), settings["done"], SINKS[name](settings), _closed)


if __name__ == "__main__":
    main(sys.argv[1])
