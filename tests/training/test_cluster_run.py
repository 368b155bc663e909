"""A training job belongs to the run of a pipeline: it bears its label and owner, goes with it, and needs these rights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_stub import JOB, Stub
from cluster_trial import Trial, succeed

from ilab.core.kubeconfig import Account, find_account
from ilab.core.kubernetes import Api
from ilab.doctor.deployment import TASKS, Right
from ilab.errors import Stopped
from ilab.kubeflow import tasks, training_jobs
from ilab.kubeflow.kept import Kept
from ilab.kubeflow.training_jobs import end_jobs, end_jobs_of, known_launcher
from ilab.parameters.files import CONFIG_MAP
from ilab.training import cluster
from ilab.training.attendance import leave
from ilab.training.encode import EncodedSet
from ilab.training.pods import KINDS, RUN

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]
WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "lab-x7", "uid": "u-1"}
ROLE = Path(__file__).resolve().parents[2] / "deploy" / "base" / "rbac.yaml"


@pytest.fixture
def trial(stub: Stub, tmp_path: Path, base: Path, data: EncodedSet) -> Trial:
    (tmp_path / "work").mkdir()
    return Trial(stub, tmp_path / "work", base, data)


@pytest.fixture
def in_a_pod(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Account]:
    """This process is the pod ``task-1`` of the run ``run-1``."""
    metadata = {
        "labels": {RUN: "run-1"},
        "ownerReferences": [{**WORKFLOW, "controller": True, "blockOwnerDeletion": True}],
    }
    stub.pods.append({"metadata": {"name": "task-1", **metadata}, "status": {"phase": "Running"}})

    def account(kubeconfig: str | None = None, context: str | None = None) -> Account:
        return replace(find_account(kubeconfig or str(stub.kubeconfig()), context), pod="task-1")

    monkeypatch.setattr(cluster, "find_account", account)
    monkeypatch.setattr(training_jobs, "find_account", account)
    return account


def test_a_job_has_the_runs_label_and_owner(trial: Trial, in_a_pod: Callable[[], Account]) -> None:
    bodies: list[dict[str, Any]] = []
    trial.stub.on_create = bodies.append
    trial.stub.script = succeed(trial, "TrainJob")
    trial.run()
    metadata = bodies[0]["metadata"]
    assert metadata["labels"][RUN] == "run-1" and metadata["ownerReferences"] == [WORKFLOW], "it does not hold it up"
    assert (trial.work / "attended").is_file()


def test_pods_that_ended_because_nobody_was_there_are_made_again(trial: Trial) -> None:
    def left(stub: Stub) -> None:
        leave(trial.work)
        stub.condition("Complete")

    trial.stub.script = [left]
    with pytest.raises(Stopped, match="because nobody waited"):
        trial.run()
    trial.stub.script = [lambda stub: None] * 3 + succeed(trial, "TrainJob")
    trial.run()
    assert trial.made() == 2 and any("of an earlier run is removed" in note for note in trial.notes)


@pytest.mark.parametrize("kind", ["TrainJob", "PyTorchJob"])
def test_a_cancelled_run_leaves_no_pods_that_train(
    stub: Stub,
    in_a_pod: Callable[[], Account],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its task was killed, and its job is there; finish, or the command that cancels, looks for what is left."""
    for last in ("finish", "cancel"):
        job = {"metadata": {"name": f"left-{last}", "labels": {RUN: "run-1"}}, "plural": KINDS[kind].plural}
        failed = {**job, "metadata": {"name": "failed", "labels": {RUN: "run-1"}}}
        failed["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
        other = {**job, "metadata": {"name": "other", "labels": {RUN: "run-2"}}}
        stub.jobs = {one["metadata"]["name"]: one for one in (job, failed, other)}
        stub.ending = 0
        if last == "finish":
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
            tasks.finish(Kept("", str(tmp_path), "run-1"), "params", "FAILED", "a pod was lost")
            assert f"{kind} left-finish was still there, and is deleted" in capsys.readouterr().out
        else:
            monkeypatch.setenv("KUBECONFIG", str(stub.kubeconfig()))
            assert end_jobs_of("run-1", "team", "", "") == ([f"{kind} left-cancel"], "")
        assert set(stub.jobs) == {"failed", "other"}, "a failed one has no pods, and is there to look at"


def test_what_may_not_be_looked_for_is_told(
    stub: Stub, in_a_pod: Callable[[], Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(stub.kubeconfig()))
    stub.refuse["GET", "/trainjobs"] = (403, "trainjobs is forbidden")
    ended, note = end_jobs_of("run-1", "team", "", "")
    assert ended == [] and "end by themselves: trainjobs is forbidden" in note


def test_the_kind_of_job_is_what_the_cluster_knows(
    stub: Stub, in_a_pod: Callable[[], Account], capsys: pytest.CaptureFixture[str]
) -> None:
    def asked() -> tuple[str | None, str]:
        with Api(in_a_pod()) as api:
            return known_launcher(api), training_jobs.launcher_of("")

    assert asked() == ("TrainJob", "TrainJob")
    del stub.known[KINDS["TrainJob"].group]
    assert asked() == ("PyTorchJob", "PyTorchJob") and "knows no TrainJob" in capsys.readouterr().out
    assert training_jobs.launcher_of("TrainJob") == "TrainJob", "whoever says which is not corrected"
    stub.known.clear()
    assert asked() == (None, "TrainJob") and "knows neither" in capsys.readouterr().out
    stub.refuse["GET", "v1alpha1"] = (403, "no discovery")
    assert training_jobs.launcher_of("") == "TrainJob" and "no discovery" in capsys.readouterr().out


def used(stub: Stub) -> set[Right]:
    """What an account needs for what was asked of the stub."""
    found = set()
    for method, path in stub.asked:
        if match := JOB.fullmatch(path):
            group, resource, named = match["group"].partition("/")[0], match["plural"], bool(match["name"])
        elif path.startswith("/api/v1/"):
            group, (resource, *more) = "", path.removeprefix("/api/v1/namespaces/team/").split("/")
            resource, named = "/".join([resource, *more[1:]]), bool(more)
        else:
            continue  # discovery, which everybody may read
        verb = {"POST": "create", "DELETE": "delete"}.get(method, "get" if named else "list")
        found.add(Right(verb, group, resource))
    return found


def test_the_role_grants_what_is_used_and_no_more(trial: Trial, in_a_pod: Callable[[], Account]) -> None:
    stub = trial.stub
    for kind in KINDS:
        pod = stub.pods[0]
        slow: list[Callable[[Stub], None]] = [lambda stub: None, lambda stub: stub.pod("a-0", "Pending")]
        stub.script = [*slow, *succeed(trial, kind)]
        trial.run(kind)
        (trial.work / "finished.json").unlink()
        stub.pods, stub.logs = [pod], {}
    with Api(in_a_pod()) as api:
        end_jobs(api, "team", "run-1")
    role = next(one for one in yaml.safe_load_all(ROLE.read_text()) if one["kind"] == "Role")
    granted = {
        Right(verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    parameters = {Right("get", "", "configmaps")}
    assert used(stub) | parameters == granted == {replace(one, name="") for one in TASKS}
    assert Right("get", "", "configmaps", CONFIG_MAP) in TASKS
