"""``ilab model train`` as a part of a project's build, what garbage collection keeps, and a kill in each phase."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ilab.cli.app import main
from ilab.core.store import Store
from ilab.errors import IlabError

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
SMALL = {
    "sdg_scale_factor": 1,
    "mix_question_variants": 1,
    "train_epochs_phase_1": 1,
    "train_epochs_phase_2": 1,
    "output_checkpoint_frequency": 1,
    "eval_num_samples": 2,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "p"
    shutil.copytree(QUICKSTART, folder, ignore=shutil.ignore_patterns(".ilab"))
    config = yaml.safe_load((folder / "ilab.yaml").read_text())
    config["parameters"] |= SMALL
    config["where"] = {"threads": 1, "jobs": 1}
    (folder / "ilab.yaml").write_text(yaml.safe_dump(config))
    return folder


def told(folder: Path, *arguments: str) -> Any:
    done = CliRunner().invoke(main, ["-C", str(folder), "--json", *arguments])
    if done.exception is not None and not isinstance(done.exception, (IlabError, SystemExit)):
        raise done.exception
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def states(folder: Path, *arguments: str) -> dict[str, str]:
    return {row["step"]: row["state"] for row in told(folder, "pipeline", "plan", *arguments)}


def test_a_build_goes_on_from_what_was_trained(project: Path) -> None:
    made = told(project, "model", "train")
    assert [phase["step"] for phase in made["phases"]] == ["select-phase-1", "select-phase-2"]
    assert all(phase["table"][0]["items"] for phase in made["phases"])  # the project's questions chose
    left = {name for name, state in states(project).items() if state != "reuse"}
    scored = {"previous", "score-base", "score-previous", "score-phase-1", "score-phase-2"}
    judged = {"judge", "mt-bench", "mt-bench-branch"}
    assert left == {*scored, *judged, "final-evaluation", "gate", "package", "push", "register"}
    assert made["best"] == str((project / ".ilab/store/latest/select-phase-2").resolve() / "model")


def test_the_same_options_mean_the_same_parameters(project: Path) -> None:
    plan = told(project, "model", "train", "--num-epochs", "3", "--max-seq-len", "300", "--dry-run")
    given = ("train_epochs_phase_1=3", "train_epochs_phase_2=3", "train_sequence_length=300")
    expected = states(project, *(word for one in given for word in ("-p", one)))
    assert {name: step["state"] for name, step in plan.items()} == {name: expected[name] for name in plan}
    assert plan["train-phase-1"]["state"] == "run" and plan["mix-knowledge"]["state"] == "reuse"


def test_the_project_s_questions_choose_for_given_files_too(project: Path) -> None:
    """And what was trained beside the build is kept by `gc` until something else is trained beside it."""
    rows = [{"user": f"What is {n}?", "assistant": f"It is {n}."} for n in range(6)]
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("model", "train", "--data-path", "rows.jsonl", "--select", "score", "--num-epochs", "2")
    made = told(project, *arguments)
    (phase,) = made["phases"]
    assert phase["rule"].startswith("earliest within one standard error") and phase["table"][0]["items"]
    told(project, "pipeline", "gc")
    assert (Path(made["best"]) / "model.safetensors").is_file()
    assert told(project, *arguments)["best"] == made["best"]
    told(project, "model", "train", "--data-path", "rows.jsonl", "--num-epochs", "1")
    told(project, "pipeline", "gc")
    assert not Path(made["best"]).exists()


def command(folder: Path, store: Path) -> list[str]:
    return [
        sys.executable, "-m", "ilab", "-C", str(folder), "--store", str(store), "--set", "where.train.state_seconds=0",
        "model", "train", "--model-path", "tiny", "--phased-phase1-data", "k.jsonl", "--phased-phase2-data", "s.jsonl",
        "--num-epochs", "30", "--effective-batch-size", "4", "--learning-rate", "1e-3", "--save-samples", "120",
    ]  # fmt: skip


def finished(folder: Path, store: Path) -> str:
    done = subprocess.run(command(folder, store), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = Store(store).latest("select-2")
    assert record is not None
    return record.digest


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_each_phase_it_ends_as_if_it_had_not_been(tmp_path: Path, number: signal.Signals) -> None:
    for name in "ks":
        rows = [{"user": f"{name} {n}?", "assistant": f"{name} {n * n}."} for n in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = finished(tmp_path, tmp_path / "whole")
    store = tmp_path / "cut"
    for step in ("train-1", "train-2"):
        running = subprocess.Popen(
            command(tmp_path, store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while running.poll() is None and not _is_training(store, step):
            time.sleep(0.02)
        os.killpg(running.pid, number)
        assert running.wait() == (-number if number == signal.SIGKILL else 128 + number)
        assert Store(store).latest(step) is None
    assert finished(tmp_path, store) == expected
    assert len([one for one in Store(store).records() if one.type == "train"]) == 2


def _is_training(store: Path, step: str) -> bool:
    """Whether the newest run has told a step of this training."""
    runs = sorted((store / "runs").glob("*/events.jsonl"))
    return bool(runs) and f'"kind": "metric", "step": "{step}"' in runs[-1].read_text()
