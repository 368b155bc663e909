"""What is told of a training before it begins, and that it is what then happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_training import ROWS, SETTINGS, Trains

from ilab.artifacts import Candidates, Checkpoint, Dataset
from ilab.cli.live import PlainLines
from ilab.config import TrainWhere, Where
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.core.step import Site
from ilab.errors import InputError, SetupError
from ilab.training import probe
from ilab.training.elsewhere import HandedOver
from ilab.training.encode import EncodedSet
from ilab.training.forecast import expect, forecast
from ilab.training.launch import run_job
from ilab.training.loop import TrainJob
from ilab.training.metrics import read_metrics
from ilab.training.settings import TrainSettings
from ilab.training.stage import train_phase

pytestmark = pytest.mark.filterwarnings(  # the file of a run's events stays open until the process ends
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
HERE = Where(device="cpu", threads=1)


def fields(**more: Any) -> dict[str, Any]:
    return TrainSettings.model_validate({**SETTINGS, **more}).model_dump(mode="json")


def test_rows_that_are_held_out_are_not_counted(trains: Trains, tmp_path: Path, base: Path) -> None:
    told = expect(fields(validation=0.5), ROWS, base, HERE)
    trains(tmp_path, validation=0.5)
    rows = list(read_metrics(tmp_path / "work"))
    assert told["steps"] == len(rows) < expect(fields(), ROWS, base, HERE)["steps"]
    assert told["tokens"] == sum(row["tokens"] for row in rows)
    assert f"{len(rows)} steps, {told['tokens']:,} tokens" in forecast(fields(validation=0.5), ROWS, base, HERE)[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"max_length": 4}, "nothing to train on: 10 of 10 rows left out"),
        ({"max_length": 30, "over_length": "error"}, "rows over train_sequence_length 30"),
        ({"validation": 0.999999}, "every row is held out"),
    ],
)
def test_data_that_a_run_refuses_is_refused_in_the_forecast(base: Path, more: dict[str, Any], said: str) -> None:
    fits, verdict = forecast(fields(**more), ROWS, base, HERE)
    assert fits is False and said in verdict and len(verdict.splitlines()) == 2
    with pytest.raises(InputError, match=said):
        expect(fields(**more), ROWS, base, HERE)


def test_the_device_of_pods_is_not_looked_for_here(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("work", "out", "data"):
        (tmp_path / name).mkdir()
    dataset, made = Dataset(tmp_path / "data"), Candidates(tmp_path / "out")
    dataset.write(ROWS, {})
    volumes = {"tests": str(tmp_path), "bases": str(base.parents[1])}
    pods = TrainWhere.model_validate({"launcher": "TrainJob", "kubernetes": {"image": "x/y:1", "volumes": volumes}})
    for where, ends in ((pods, HandedOver), (TrainWhere(), SetupError)):
        site = site_of(Where(device="cuda", train=where, cache=str(tmp_path / "cache")), tmp_path / "work")
        with pytest.raises(ends, match="is prepared" if where is pods else "there is no cuda device"):
            train_phase(fields(), dataset, checkpoint(base, tmp_path), made, site)
        (tmp_path / "work" / "job" / "job.json").unlink(missing_ok=True)


def test_a_share_that_holds_no_row_out_is_told(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("work", "out", "data"):
        (tmp_path / name).mkdir()
    dataset, made = Dataset(tmp_path / "data"), Candidates(tmp_path / "out")
    dataset.write(ROWS, {})
    site = site_of(Where(device="cpu", cache=str(tmp_path / "cache")), tmp_path / "work")
    counts = train_phase(fields(epochs=1, validation=1e-9), dataset, checkpoint(base, tmp_path), made, site)
    assert counts["held_out"] == 0
    assert "10 rows are too few for train_validation_share=1e-09" in capsys.readouterr().err


def site_of(where: Where, work: Path) -> Site:
    emit = Bus([PlainLines()]).for_step("train")
    return Site(where, work, {}, emit, memo=refused, stopping=lambda: False, history=list)


def checkpoint(base: Path, folder: Path) -> Checkpoint:
    place = folder / "base" / "model"
    if not place.is_symlink():
        place.parent.mkdir()
        place.symlink_to(base)
    return Checkpoint(place.parent)


def refused(name: str) -> Memo:
    raise AssertionError(f"training has no memo {name}")


def lines_of(data: EncodedSet, base: Path, work: Path, capsys: pytest.CaptureFixture[str], **more: Any) -> str:
    """What somebody sees who runs it with its output in a file."""
    work.mkdir()
    settings, none = TrainSettings.model_validate({**SETTINGS, "epochs": 1, **more}), EncodedSet((), (), (), ())
    emit = Bus([PlainLines()]).for_step("train")
    where = TrainWhere(forecast="warn")
    run_job(TrainJob(data, none, base, work, settings, emit, lambda: False, 1, where), "cpu")
    return capsys.readouterr().err


def test_plan_and_warning_are_shown_without_a_terminal_too(
    data: EncodedSet, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "free_memory", lambda _: 100 << 20)
    told = lines_of(data, base, tmp_path / "work", capsys)
    assert "train: note: 3 steps, " in told and "of disk" in told
    assert "train: note: training will hold about" in told and "100 MiB are free" in told


def test_bf16_that_is_imitated_is_told(
    data: EncodedSet, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for peak, said in ((1e9, True), (1e12, False)):
        monkeypatch.setattr(probe, "matrix_peak", lambda _, *, low, peak=peak: peak if low else 1e10)
        told = lines_of(data, base, tmp_path / str(said), capsys, precision="bf16")
        assert ("only imitates bf16" in told) is said
    assert "imitates" not in lines_of(data, base, tmp_path / "fp32", capsys)
