"""Training by jobs of a cluster: made, followed, taken over, told what is wrong, and removed. The API server is a stub."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cluster_stub import TOKEN, Played, Stub, certificates, serving

from ilab.cli.app import hoisted, main
from ilab.config import TrainWhere, Where
from ilab.core.events import Bus, Event
from ilab.core.kubeconfig import find_account
from ilab.core.kubernetes import Api
from ilab.core.store import Store
from ilab.errors import IlabError, InputError, ServiceError, SetupError, Stopped
from ilab.parameters import TABLE
from ilab.parameters.infrastructure import cluster as cluster_of
from ilab.training import cluster
from ilab.training.elsewhere import note_error, note_finished
from ilab.training.encode import EncodedSet
from ilab.training.launch import run_job
from ilab.training.loop import TrainJob
from ilab.training.pods import state_of, troubles
from ilab.training.relay import like_this_pod
from ilab.training.settings import TrainSettings
from ilab.training.start import device_of
from ilab.where import in_cluster

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]
SETTINGS = {"epochs": 1, "batch": 2, "learning_rate": 1e-3, "max_length": 128, "max_batch_tokens": 128}
ROWS = [("What is the kiln made of?", "Steel."), ("Who built the lock?", "Ada Brook."), ("How hot is it?", "Hot.")]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    certificates(folder)
    return folder


@pytest.fixture
def stub(keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr(cluster, "LOOK", 0.01)
    with serving(Stub(keys)) as made:
        yield made


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


class Trial:
    """A training job that is handed to the stub; keeps the events that it told."""

    def __init__(self, stub: Stub, work: Path, base: Path, data: EncodedSet) -> None:
        self.stub, self.work, self.base, self.data = stub, work, base, data
        self.events: list[Event] = []
        self.stopping: Callable[[], bool] = lambda: False

    @property
    def notes(self) -> list[str]:
        return [event.data["note"] for event in self.events if event.kind == "metric" and "note" in event.data]

    def run(self, kind: str = "TrainJob", *, start: float = 60.0, **more: Any) -> None:
        place: dict[str, Any] = {
            "kubeconfig": str(self.stub.kubeconfig()),
            "image": "x/y:1",
            "volumes": {"models": str(self.base.parents[2])},
            "start_seconds": start,
        }
        place |= more.pop("pods", {})
        where = TrainWhere.model_validate({"launcher": kind, "submit": True, "kubernetes": place, **more})
        settings, none = TrainSettings.model_validate(SETTINGS), EncodedSet((), (), (), ())
        emit = Bus([self.events.append]).for_step("t")
        job = TrainJob(self.data, none, self.base, self.work, settings, emit, self.stopping, 1, where)
        run_job(job, device_of(Where(train=where)))

    def made(self) -> int:
        return sum(method == "POST" for method, _ in self.stub.asked)

    def removed(self) -> int:
        return sum(method == "DELETE" for method, _ in self.stub.asked)


@pytest.fixture
def trial(stub: Stub, work: Path, base: Path, data: EncodedSet) -> Trial:
    return Trial(stub, work, base, data)


def told(line: dict[str, Any]) -> str:
    return json.dumps({"event": "progress", "data": line})


def succeed(trial: Trial, kind: str) -> list[Callable[[Stub], None]]:
    """Pods come, train, and are done."""

    def begin(stub: Stub) -> None:
        stub.pod("a-0", "Running")
        stub.say("a-0", told({"done": 1, "total": 2, "unit": "steps"}))
        stub.say("a-0", "a \x1b[31mlibrary's remark")

    def end(stub: Stub) -> None:
        stub.say("a-0", told({"done": 2, "total": 2, "unit": "steps"}), stub.logs["a-0"][-1][0])  # at the same moment
        stub.pod("a-0", "Succeeded")
        stub.condition("Complete" if kind == "TrainJob" else "Succeeded")
        note_finished(trial.work, 2)

    return [lambda stub: None, begin, lambda stub: None, end]


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


# -- the way there ---------------------------------------------------------------------------------------------------


def test_a_pods_account_is_found_and_its_token_read_anew(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SetupError, match="no cluster is known"):
        find_account(pod=tmp_path)
    host, _, port = stub.address.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setenv("HOSTNAME", "task-1")
    with pytest.raises(SetupError, match="the pod's account cannot be read"):
        find_account(pod=tmp_path)
    (tmp_path / "namespace").write_text("team")
    shutil.copy(stub.folder / "server.pem", tmp_path / "ca.crt")
    (tmp_path / "token").write_text("outdated\n")
    stub.jobs["j"] = {"metadata": {"name": "j"}, "plural": "trainjobs"}
    stub.pod("task-1", "Running")
    stub.pods[0]["spec"] = {
        "containers": [
            {"name": "wait", "image": "argo"},
            {"name": "main", "image": "team/ilab:2", "volumeMounts": [
                {"name": "space", "mountPath": "/ilab"},
                {"name": "space", "mountPath": "/part", "subPath": "part"},
                {"name": "token", "mountPath": "/var/run"},
            ]},
        ],
        "volumes": [
            {"name": "space", "persistentVolumeClaim": {"claimName": "run-1"}},
            {"name": "token", "projected": {}},
        ],
        "imagePullSecrets": [{"name": "quay"}],
    }  # fmt: skip
    with Api(find_account(pod=tmp_path)) as api:
        with pytest.raises(ServiceError, match="Unauthorized"):
            api.get("/api/v1/namespaces/team/pods/task-1")
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        found = like_this_pod(api, TrainWhere()).kubernetes
    assert (found.image, found.volumes, found.image_pull_secrets) == ("team/ilab:2", {"run-1": "/ilab"}, ("quay",))
    assert TOKEN not in repr(api.account)


def test_kubeconfigs_that_cannot_be_used_say_why(stub: Stub, tmp_path: Path) -> None:
    for user, said in (({"exec": {"command": "aws"}}, "exec of the context"), ({"username": "u"}, "not supported")):
        with pytest.raises(SetupError, match=said) as caught:
            find_account(str(stub.kubeconfig(**user)))
        assert "kubectl create token" in caught.value.hint
    (stub.folder / "token").write_text(TOKEN)
    assert find_account(str(stub.kubeconfig(tokenFile="token"))).bearer() == TOKEN
    certified = {"client-certificate": "server.pem", "client-key": "server.key"}
    find_account(str(stub.kubeconfig(**certified)))
    for path, text, said in (
        (tmp_path / "none", None, "cannot be read"),
        (tmp_path / "list", "[]", "is no kubeconfig"),
        (tmp_path / "empty", "{}", "there is no context ''"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(SetupError, match=said):
            find_account(str(path))
    plain = yaml.safe_load(stub.kubeconfig().read_text())
    plain["clusters"][0]["cluster"]["server"] = "http://cluster.example"
    (tmp_path / "plain").write_text(yaml.safe_dump(plain))
    with pytest.raises(SetupError, match="no https address"):  # a token is not sent in the clear
        find_account(str(tmp_path / "plain"))


def test_a_server_with_another_certificate_gets_no_token(stub: Stub, tmp_path: Path) -> None:
    certificates(tmp_path)
    other = Stub(tmp_path)
    other.address = stub.address
    with Api(find_account(str(other.kubeconfig()))) as api, pytest.raises(ServiceError, match="CERTIFICATE_VERIFY"):
        api.get("/api/v1/namespaces/team/pods")
    assert not stub.asked


def test_conditions_of_the_two_kinds() -> None:
    def job(*conditions: tuple[str, str]) -> dict[str, Any]:
        return {"status": {"conditions": [{"type": type_, "status": status} for type_, status in conditions]}}

    assert state_of(job(("Created", "True"), ("Running", "False"), ("Succeeded", "True")))[0] == "done"
    assert state_of(job(("Suspended", "False"), ("Failed", "True")))[0] == "failed"
    assert state_of(job(("Created", "True"), ("Running", "True"), ("Restarting", "False")))[0] == "goes on"
    assert state_of({})[0] == "goes on" and state_of({"status": {"conditions": "x"}})[0] == "goes on"
    assert troubles([{"metadata": {"name": "p"}, "status": {"containerStatuses": [None, {"state": "x"}]}}]) == []


# -- the whole command -----------------------------------------------------------------------------------------------


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
