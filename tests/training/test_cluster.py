"""Training by jobs of a cluster: made, followed, taken over, told what is wrong, and removed. The API server is a stub."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_stub import Stub
from cluster_trial import Trial, succeed

from ilab.errors import IlabError, InputError, ServiceError, SetupError, Stopped
from ilab.parameters import TABLE
from ilab.parameters.infrastructure import cluster as cluster_of
from ilab.training import cluster
from ilab.training.elsewhere import note_error, note_finished
from ilab.training.encode import EncodedSet
from ilab.training.pods import state_of, troubles
from ilab.where import in_cluster

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def trial(stub: Stub, work: Path, base: Path, data: EncodedSet) -> Trial:
    return Trial(stub, work, base, data)


@pytest.mark.parametrize("kind", ["TrainJob", "PyTorchJob"])
def test_a_job_is_made_followed_and_removed(trial: Trial, kind: str) -> None:
    trial.stub.script = succeed(trial, kind)
    trial.run(kind)
    assert trial.made() == 1 and trial.removed() == 1 and not trial.stub.jobs
    posted = trial.stub.queries[[method for method, _ in trial.stub.asked].index("POST")]
    assert posted == {"fieldValidation": "Strict"}
    steps = [event.data["done"] for event in trial.events if event.kind == "progress"]
    assert steps == [1, 2]  # each line once, though every look reads the last second again
    assert "a-0: a  [31mlibrary's remark" in trial.notes  # nothing that a terminal obeys
    assert (trial.work / "pods.log").read_text() == "a-0: a  [31mlibrary's remark\n"
    trial.run(kind)  # killed before the result was published: there is nothing left to train
    assert trial.made() == 1


def test_a_lost_connection_costs_a_look(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = succeed(trial, "TrainJob")

    def cut(stub: Stub) -> None:
        stub.cuts = 3

    def overloaded(stub: Stub) -> None:
        stub.refuse["GET", "/pods"] = (503, "etcd is slow")

    trial.stub.script = [first, cut, overloaded, lambda stub: stub.refuse.clear(), *rest]
    trial.run()
    assert trial.made() == 1
    assert sum("cannot be reached" in note for note in trial.notes) == 1 and "etcd is slow; trying again" in trial.notes
    monkeypatch.setattr(cluster, "LOST", 0.05)
    (trial.work / "finished.json").unlink()
    trial.stub.script = [first, lambda stub: setattr(stub, "cuts", 10_000)]
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        trial.run()
    assert "the pods go on" in caught.value.hint
    trial.stub.cuts = 0


@pytest.mark.parametrize("kind", ["TrainJob", "PyTorchJob"])
def test_pods_that_run_out_of_memory_are_told_and_the_job_is_kept(trial: Trial, kind: str) -> None:
    def die(stub: Stub) -> None:
        ended = {"exitCode": 137, "reason": "OOMKilled"}
        stub.pod("a-0", "Failed", containerStatuses=[{"restartCount": 2, "lastState": {"terminated": ended}}])
        stub.pod("a-1", "Failed", containerStatuses=[{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}])
        stub.condition("Failed", "JobsFailed", "jobset failed")

    trial.stub.script = [die]
    with pytest.raises(SetupError, match=r"a-0 ran out of memory and was killed \(started again 2 times\)") as caught:
        trial.run(kind)
    assert "train_memory_per_worker" in caught.value.hint
    [name] = trial.stub.jobs
    assert f"jobs.{'trainer.' if kind == 'TrainJob' else ''}kubeflow.org {name} -n team" in caught.value.hint
    assert trial.removed() == 0
    trial.stub.ending = 2  # its pods take a moment to end
    trial.stub.script = [lambda stub: None] * 3 + succeed(trial, kind)
    trial.run(kind)  # the same command: the failed one goes, another is made
    assert trial.made() == 2 and not trial.stub.jobs


def test_the_workers_own_error_goes_first(trial: Trial) -> None:
    def fail(stub: Stub) -> None:
        note_error(trial.work, InputError("the loss is no number at step 3", hint="lower train_learning_rate"))
        stub.condition("Failed")

    trial.stub.script = [fail]
    with pytest.raises(InputError, match="no number at step 3") as caught:
        trial.run()
    assert caught.value.hint.startswith("lower train_learning_rate; the job is kept")
    trial.stub.script = [lambda stub: stub.pod("b", "Running"), lambda stub: stub.condition("Failed", "X", "deadline")]
    trial.stub.script.insert(0, lambda stub: None)
    trial.stub.script.insert(0, lambda stub: None)
    trial.stub.logs["b"] = [("2026-11-21T10:00:00Z", "ValueError: no such thing")]
    trial.stub.on_create = lambda job: trial.stub.logs.update(b=[("2026-11-21T10:00:00Z", "ValueError: no")])
    with pytest.raises(SetupError, match="X: deadline: ValueError: no"):  # the old error is not told again
        trial.run()


def waiting(reason: str) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": "back-off"}}}]}


UNSCHEDULABLE = {
    "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient nvidia.com/gpu"}]
}
QUOTA = {"reason": "FailedCreate", "message": "exceeded quota: gpus", "involvedObject": {"name": "NAME-node-0"}}
MOUNT = {"reason": "FailedAttachVolume", "message": "Multi-Attach error", "involvedObject": {"name": "NAME-0"}}
OTHERS = {"reason": "FailedCreate", "message": "exceeded quota", "involvedObject": {"name": "another"}}
EARLIER = {**QUOTA, "lastTimestamp": "2026-11-21T09:59:59Z"}  # about a job of this name that is gone


@pytest.mark.parametrize(
    ("status", "event", "said", "hint"),
    [
        (waiting("ImagePullBackOff"), None, "-0 does not start: ImagePullBackOff: back-off", "image_pull_secrets"),
        (waiting("CreateContainerConfigError"), None, "CreateContainerConfigError", "kubectl get secrets"),
        (UNSCHEDULABLE, None, "-0: 0/3 nodes: Insufficient nvidia.com/gpu", "train_gpu_per_worker"),
        ({}, MOUNT, "Multi-Attach error", "ReadWriteMany"),
        (None, QUOTA, "exceeded quota: gpus", "kubectl describe quota"),
        (None, OTHERS, "there are none", "operator"),
        (None, EARLIER, "there are none", "operator"),
    ],
)
def test_pods_that_do_not_start_are_given_up(
    trial: Trial, status: dict[str, Any] | None, event: dict[str, Any] | None, said: str, hint: str
) -> None:
    def stuck(stub: Stub) -> None:
        if status is not None:
            stub.pod(f"{next(iter(stub.jobs))}-0", "Pending", **status)
        if event is not None:
            stub.events = [json.loads(json.dumps(event).replace("NAME", next(iter(stub.jobs))))]

    trial.stub.script = [stuck]
    with pytest.raises(SetupError, match="the pods cannot start") as caught:
        trial.run(start=0.05)
    assert said in caught.value.message and hint in caught.value.hint and "kubectl delete" in caught.value.hint
    assert trial.stub.jobs  # it is kept, and followed by the same command
    trial.stub.script = [lambda stub: None, *succeed(trial, "TrainJob")]
    trial.run()
    assert trial.made() == 1


def test_a_job_in_a_queue_is_waited_for(trial: Trial) -> None:
    def admitted(stub: Stub) -> None:
        next(iter(stub.jobs.values()))["status"]["conditions"].clear()

    queued = [lambda stub: stub.condition("Suspended", "Kueue", "no room yet")]
    nothing: list[Callable[[Stub], None]] = [lambda stub: time.sleep(0.05)] * 3
    trial.stub.script = [*queued, *nothing, admitted, *succeed(trial, "TrainJob")[1:]]
    trial.run(start=0.1)
    assert any("waits in the cluster's queue: Kueue: no room yet" in note for note in trial.notes)


def test_stopping_deletes_the_job(trial: Trial) -> None:
    stop: list[int] = []
    trial.stopping = lambda: bool(stop)
    trial.stub.script = [lambda stub: stub.pod("a-0", "Running"), lambda stub: stop.append(1)]
    with pytest.raises(Stopped, match="its job deleted"):
        trial.run()
    assert not trial.stub.jobs and trial.removed() == 1
    stop.clear()
    trial.stub.refuse["DELETE", ""] = (403, "not yours")
    trial.stub.script = [lambda stub: stop.append(1)]
    with pytest.raises(Stopped, match="still there: not yours") as caught:
        trial.run()
    assert "kubectl delete trainjobs.trainer.kubeflow.org ilab-train-" in caught.value.hint


def test_other_settings_make_another_job_and_never_two(trial: Trial) -> None:
    stop: list[int] = []
    trial.stopping = lambda: bool(stop)
    trial.stub.refuse["DELETE", ""] = (403, "no")
    trial.stub.script = [lambda stub: stop.append(1)]
    with pytest.raises(Stopped):
        trial.run()  # it is left behind
    stop.clear()
    trial.stub.refuse.clear()
    trial.stub.ending = 3
    there: list[int] = []
    trial.stub.on_create = lambda job: there.append(len(trial.stub.jobs))
    trial.stub.script = [lambda stub: None] * 4 + succeed(trial, "TrainJob")
    trial.run(nodes=2)
    assert there == [1] and trial.made() == 2  # the first was gone before the second was made
    assert any("of an earlier run is removed" in note for note in trial.notes)


@pytest.mark.parametrize(
    ("status", "message", "error", "said"),
    [
        (
            403,
            "trainjobs is forbidden: User u cannot create resource",
            SetupError,
            "kubectl auth can-i create trainjobs",
        ),
        (403, "exceeded quota: count/trainjobs", SetupError, "larger quota"),
        (404, "could not find the requested resource", SetupError, "launcher=PyTorchJob"),
        (422, "TrainJob is invalid: spec.trainer", InputError, "where.train.kubernetes"),
    ],
)
def test_what_the_server_refuses_is_told(
    trial: Trial, status: int, message: str, error: type[IlabError], said: str
) -> None:
    trial.stub.refuse["POST", "/trainjobs"] = (status, message)
    with pytest.raises(error) as caught:
        trial.run()
    assert said in caught.value.hint and type(caught.value) is error
    assert message in caught.value.message or status == 404


def test_without_the_right_to_read_logs_the_metrics_say_how_far_it_is(trial: Trial) -> None:
    begin = succeed(trial, "TrainJob")

    def step(stub: Stub) -> None:
        stub.refuse["GET", "/log"] = (403, "pods/log is forbidden")
        (trial.work / "metrics.jsonl").write_text('{"step": 3}\n')

    trial.stub.script = [step, *begin]
    trial.run()
    assert {event.data["done"] for event in trial.events if event.kind == "progress"} == {3}
    assert sum("may not read pods/log" in note for note in trial.notes) == 1


def test_a_result_that_is_not_here_and_a_job_that_somebody_deleted(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LATE", 0.05)
    trial.stub.script = [lambda stub: stub.condition("Complete")]
    with pytest.raises(SetupError, match="its result is not in this folder"):
        trial.run()
    trial.stub.jobs.clear()
    trial.stub.script = [lambda stub: stub.jobs.clear()]
    trial.stub.refuse["GET", "x"] = (404, "")
    trial.stub.on_create = lambda job: trial.stub.jobs.clear()
    with pytest.raises(Stopped, match="was deleted before it was done"):
        trial.run()


def test_what_happens_to_the_job_of_a_finished_training_matters_to_nobody(trial: Trial) -> None:
    def late(stub: Stub) -> None:
        note_finished(trial.work, 2)
        stub.condition("Failed", "JobsFailed", "a machine went away")

    trial.stub.script = [late]
    trial.run()
    assert any("the training is done; its job may still be" in note for note in trial.notes)
    trial.stub.refuse["GET", ""] = trial.stub.refuse["DELETE", ""] = (500, "gone")
    trial.run()
    assert trial.made() == 1


def test_the_parameters_of_a_pipeline_reach_the_job(trial: Trial) -> None:
    """Values of the run form, as the compiled pipeline writes them for its pods."""
    values: dict[str, Any] = {parameter.name: parameter.default for parameter in TABLE}
    asked = {"train_num_workers": 3, "train_gpu_per_worker": 4, "train_gpu_identifier": "amd.com/gpu"}
    asked |= {"train_cpu_limit": 8, "train_memory_per_worker": "64Gi", "train_node_selectors": '{"gpu": "h200"}'}
    made = in_cluster(cluster_of({**values, **asked, "k8s_tolerations": '[{"operator": "Exists"}]'}), "PyTorchJob")
    trial.stub.script = succeed(trial, "PyTorchJob")
    bodies: list[dict[str, Any]] = []
    trial.stub.on_create = bodies.append
    kubernetes = made.pop("kubernetes")
    trial.run(made.pop("launcher"), pods=kubernetes, **made)
    specs = bodies[0]["spec"]["pytorchReplicaSpecs"]
    pod = specs["Worker"]["template"]["spec"]
    assert (specs["Master"]["replicas"], specs["Worker"]["replicas"], bodies[0]["spec"]["nprocPerNode"]) == (1, 2, "4")
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "8", "memory": "64Gi", "amd.com/gpu": "4"}
    assert pod["nodeSelector"] == {"gpu": "h200"} and pod["tolerations"] == [{"operator": "Exists"}]
    alone = in_cluster(cluster_of({**values, **asked, "train_num_workers": 1}))
    assert alone == {"processes": 4}  # the task's own pod trains


def test_conditions_of_the_two_kinds() -> None:
    def job(*conditions: tuple[str, str]) -> dict[str, Any]:
        return {"status": {"conditions": [{"type": type_, "status": status} for type_, status in conditions]}}

    assert state_of(job(("Created", "True"), ("Running", "False"), ("Succeeded", "True")))[0] == "done"
    assert state_of(job(("Suspended", "False"), ("Failed", "True")))[0] == "failed"
    assert state_of(job(("Created", "True"), ("Running", "True"), ("Restarting", "False")))[0] == "goes on"
    assert state_of({})[0] == "goes on" and state_of({"status": {"conditions": "x"}})[0] == "goes on"
    assert troubles([{"metadata": {"name": "p"}, "status": {"containerStatuses": [None, {"state": "x"}]}}]) == []
