"""A training that pods do: handed over, played by processes with Kubeflow's environment, and taken back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from status_server import environment, make_certificate, serving

from ilab.cli.app import hoisted, main
from ilab.config import TrainWhere, Where
from ilab.core.events import Bus
from ilab.core.files import read_json, write_json
from ilab.core.store import Store
from ilab.errors import IlabError, InputError, SetupError, Stopped
from ilab.training.elsewhere import HandedOver, job_name, note_error, note_finished
from ilab.training.encode import EncodedSet
from ilab.training.launch import run_job
from ilab.training.loop import TrainJob
from ilab.training.memory import Machine
from ilab.training.probe import pod, quantity
from ilab.training.settings import TrainSettings
from ilab.training.start import device_of

pytestmark = pytest.mark.filterwarnings(  # the file of a run's events stays open until the process ends
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
ROWS = [("What is the kiln made of?", "Steel."), ("Who built the lock?", "Ada Brook."), ("How hot is it?", "Hot.")]
SETTINGS = {"epochs": 1, "batch": 2, "learning_rate": 1e-3, "max_length": 128, "max_batch_tokens": 128}


def place(folder: Path, **more: Any) -> TrainWhere:
    return TrainWhere.model_validate(
        {"launcher": "TrainJob", "kubernetes": {"image": "x/y:1", "volumes": {"models": str(folder)}}, **more}
    )


def run(work: Path, base: Path, data: EncodedSet, where: TrainWhere, emit: Any = None) -> None:
    settings, none = TrainSettings.model_validate(SETTINGS), EncodedSet((), (), (), ())
    emit = emit or Bus().for_step("t")
    run_job(TrainJob(data, none, base, work, settings, emit, lambda: False, 1, where), device_of(Where(train=where)))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_what_was_handed_over_stays_as_it_is_until_it_is_done(work: Path, base: Path, data: EncodedSet) -> None:
    where = place(base.parents[2])
    with pytest.raises(HandedOver, match="is prepared") as first:
        run(work, base, data, where)
    assert first.value.exit_code == Stopped.exit_code and str(first.value.manifest) in first.value.hint
    made = yaml.safe_load(first.value.manifest.read_text())
    assert made["metadata"]["name"] == job_name(work, where)
    assert made["spec"]["trainer"]["command"][-1] == str(work / "job")
    arrays = {path.name: path.stat().st_ino for path in (work / "job").glob("*.npy")}
    with pytest.raises(HandedOver, match="have not begun"):
        run(work, base, data, where)
    (work / "metrics.jsonl").write_text('{"step": 3}\n')
    with pytest.raises(HandedOver, match="step 3 is done"):
        run(work, base, data, where)
    assert {path.name: path.stat().st_ino for path in (work / "job").glob("*.npy")} == arrays
    with pytest.raises(SetupError, match="handed over to pods") as refused:  # nobody trains in the same folder
        run(work, base, data, TrainWhere())
    assert "kubectl delete" in refused.value.hint
    note_finished(work, 2)
    run(work, base, data, where)
    run(work, base, data, TrainWhere())  # whoever asks: it is done
    assert not (work / "candidates").exists()  # nothing was trained here


def test_arrays_that_are_read_are_replaced_not_written_over(work: Path, base: Path, data: EncodedSet) -> None:
    for processes in (1, 2):  # another number: the job is another one
        with pytest.raises(HandedOver, match="is prepared"):
            run(work, base, data, place(base.parents[2], processes=processes))
        if processes == 1:
            [held] = [(work / "job" / "data.ids.npy").open("rb")]
            before = (work / "job" / "data.ids.npy").stat().st_ino
    with held:
        assert (work / "job" / "data.ids.npy").stat().st_ino != before and len(held.read()) > 100
    assert yaml.safe_load((work / "job.yaml").read_text())["spec"]["trainer"]["numProcPerNode"] == 2


def test_an_error_of_the_pods_is_told_once(work: Path, base: Path, data: EncodedSet) -> None:
    where = place(base.parents[2])
    with pytest.raises(HandedOver):
        run(work, base, data, where)
    note_error(work, InputError("the loss is no number at step 3", hint="lower train_learning_rate"))
    with pytest.raises(InputError, match="no number at step 3") as caught:
        run(work, base, data, where)
    assert (
        caught.value.hint.startswith("lower train_learning_rate; ") and "kubectl replace --force" in caught.value.hint
    )
    with pytest.raises(HandedOver, match="is prepared"):
        run(work, base, data, where)
    write_json(work / "error.json", {"kind": "__import__", "message": "m", "where": "", "hint": ""})
    with pytest.raises(IlabError, match="m"):  # a name in a file is no class to call
        run(work, base, data, where)


def test_what_pods_could_not_run_is_refused_before_anything_is_written(
    work: Path, base: Path, data: EncodedSet
) -> None:
    with pytest.raises(InputError, match="on no volume"):
        run(work, base, data, place(work / "elsewhere"))
    assert not list(work.iterdir())
    with pytest.raises(ValueError, match="probe tries a step on this machine"):
        place(work, probe=True)
    TrainWhere.model_validate({"launcher": "PyTorchJob", "nodes": 3})  # Kubeflow knows where they meet


def test_memory_is_that_of_the_pods(work: Path, base: Path, data: EncodedSet) -> None:
    assert [quantity(text) for text in ("200Gi", "1.5G", "64k", "1000")] == [200 << 30, 1_500_000_000, 64_000, 1000]
    with pytest.raises(InputError, match="no amount of memory"):
        quantity("lots")
    small = place(base.parents[2], processes=2, kubernetes={"memory": "512Mi", "image": "i", "volumes": {"v": "/"}})
    machine = pod("cpu", work, small)
    assert machine == Machine("cpu", 2, 256 << 20, machine.disk)
    with pytest.raises(SetupError, match="256 MiB are free"):
        run(work, base, data, small)
    gpus = place(base.parents[2], kubernetes={"gpus": 1, "image": "i", "volumes": {"v": "/"}})
    assert pod("cuda", work, gpus).memory is None
    with pytest.raises(HandedOver):
        run(work, base, data, gpus)
    assert read_json(work / "job" / "job.json")["device"] == "cuda"


def ilab(folder: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(main, hoisted(["-C", str(folder), "--store", str(folder / "store"), *arguments]))
    if done.exception is not None and not isinstance(done.exception, (IlabError, SystemExit)):
        raise done.exception
    return done


@pytest.fixture
def here(tmp_path: Path) -> Path:
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in ROWS]
    (tmp_path / "k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def train(base: Path, *more: str) -> list[str]:
    settings = ["--num-epochs", "2", "--effective-batch-size", "2", "--max-seq-len", "128", "--learning-rate", "3e-3"]
    return ["model", "train", "--model-path", str(base), "--data-path", "k.jsonl", *settings, *more]


def sets(folder: Path) -> list[str]:
    values = ("nodes=2", "kubernetes.image=x/y:1", f"kubernetes.volumes={{models: {folder}}}")
    return [part for value in values for part in ("--set", f"where.train.{value}")]


def test_a_dry_run_says_what_fits_and_what_to_type_where(here: Path, base: Path) -> None:
    several = ["--set", "where.train.nodes=2", "--set", "where.train.master=host-0:29500"]
    done = ilab(here, *train(base, "--dry-run", *several))
    assert done.exception is None, done.exception
    assert "it fits: " in done.stdout and "about " in done.stdout and "of disk" in done.stdout
    assert "machine 0, this command starts" in done.stdout and "machine 1, to type there" in done.stdout
    told = json.loads(ilab(here, "--json", *train(base, "--dry-run", *several)).stdout)["train"]
    (key,) = {line.rpartition("/train/")[2].partition(".partial")[0] for line in told["commands"]}
    assert told["fits"] is True and f"{key}.partial/work/job" in told["commands"][1]
    assert "--node-rank 1" in told["commands"][1] and told["steps"] == 4
    assert not list((here / "store" / "train").glob("*"))
    alone = json.loads(ilab(here, "--json", *train(base, "--dry-run")).stdout)["train"]
    assert alone["commands"] == [] and alone["fits"] is True


def test_a_dry_run_says_what_does_not_fit(here: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.training import probe

    monkeypatch.setattr(probe, "free_memory", lambda _: 100 << 20)
    done = ilab(here, *train(base, "--dry-run"))
    assert "it does not fit: training will hold about" in done.stdout and "where.train.forecast=warn" in done.stdout


def pods(manifest: dict[str, Any], folder: Path, more: dict[str, str]) -> Sequence[tuple[int, str]]:
    """Play Kubeflow: the manifest's command in a process for each machine, with the environment that it sets."""
    trainer = manifest["spec"]["trainer"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = [folder / f"pod-{rank}.log" for rank in range(trainer["numNodes"])]
    running = []
    for rank, path in enumerate(said):
        given = {
            **os.environ,
            **more,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        with path.open("w") as log:
            running.append(subprocess.Popen(trainer["command"], stdout=log, stderr=log, env=given, cwd=folder))
    return [(process.wait(240), path.read_text()) for process, path in zip(running, said, strict=True)]


@pytest.mark.long
def test_the_same_command_delivers_what_the_pods_have_trained(here: Path, base: Path) -> None:
    """Two pods of one process each; the losses are those of the training in this process."""
    command = train(
        base, "--manifest", "TrainJob", "--output", "job.yaml", "--ckpt-output-dir", "out", *sets(here.parent)
    )
    first = ilab(here, *command)
    assert first.exception is None, first.exception
    assert "Next: kubectl apply -f" in first.stderr and "Best final" not in first.stdout
    store = Store(here / "store")
    assert not [record for record in store.records() if record.type == "train"]
    make_certificate(here)
    with serving(here) as controller:
        ended = pods(yaml.safe_load((here / "job.yaml").read_text()), here, environment(controller, here))
    status = controller.got[-1][2]["trainerStatus"]
    assert status["progressPercentage"] == 100 and "loss" in {one["name"] for one in status["metrics"]}
    assert len(controller.got) < 10 and {authorization for _, authorization, _ in controller.got} == {"Bearer sesame"}
    assert [code for code, _ in ended] == [0, 0], ended
    assert '"processes have found each other' not in ended[1][1] and "2 processes have found" in ended[0][1]
    last = ilab(here, *command)
    assert last.exception is None, last.exception
    assert f"Best final checkpoint: {here / 'out' / 'hf_format' / 'samples_6'}" in last.stdout
    [made] = [record for record in store.records() if record.type == "train"]
    assert made.counts["steps"] == 4 and made.seconds < 60
    losses = [json.loads(line)["loss"] for line in (store.contents(made) / "metrics.jsonl").read_text().splitlines()]
    alone = ilab(here, "--store", str(here / "other"), *train(base))
    assert alone.exception is None, alone.exception
    [other] = [record for record in Store(here / "other").records() if record.type == "train"]
    path = Store(here / "other").contents(other) / "metrics.jsonl"
    assert losses == pytest.approx([json.loads(line)["loss"] for line in path.read_text().splitlines()], rel=1e-5)
