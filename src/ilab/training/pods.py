"""What a training job of Kubeflow and its pods say about themselves: how it ended, and what is wrong with them.

Sources: conditions of ``TrainJob`` (``trainer.kubeflow.org/v1alpha1``) and ``PyTorchJob`` (``kubeflow.org/v1``), and
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ilab.core.kubernetes import plain

State = Literal["done", "failed", "suspended", "goes on"]
Object = Mapping[str, Any]
TOKENS_SECRET = "ilab-tokens"  # noqa: S105 - a name: further tokens, which the cluster's settings refer to
TOKEN_VARIABLES = (  # those of its keys that other programs look for in the environment
    "HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY",
)  # fmt: skip
RUN = "pipeline/runid"  # label of all that belongs to a run of Kubeflow Pipelines


@dataclass(frozen=True)
class Kind:
    """One of Kubeflow's kinds: where its objects are, the label of its pods, and their container that trains."""

    group: str
    plural: str
    label: str
    container: str

    def path(self, namespace: str, name: str = "") -> str:
        return f"/apis/{self.group}/namespaces/{namespace}/{self.plural}{f'/{name}' if name else ''}"

    @property
    def resource(self) -> str:
        """What kubectl and roles call it."""
        return f"{self.plural}.{self.group.partition('/')[0]}"


KINDS = {
    "TrainJob": Kind("trainer.kubeflow.org/v1alpha1", "trainjobs", "jobset.sigs.k8s.io/jobset-name", "node"),
    "PyTorchJob": Kind("kubeflow.org/v1", "pytorchjobs", "training.kubeflow.org/job-name", "pytorch"),
}
CONDITIONS: tuple[tuple[str, State], ...] = (
    ("Complete", "done"),  # TrainJob
    ("Succeeded", "done"),  # PyTorchJob
    ("Failed", "failed"),
    ("Suspended", "suspended"),
)
IMAGE = "correct where.train.kubernetes.image; a private one needs where.train.kubernetes.image_pull_secrets"
MACHINES = (
    "ask for less (train_gpu_per_worker, train_memory_per_worker, train_cpu_limit), or change train_node_selectors and "
    "train_tolerations; kubectl describe nodes shows what there is"
)
MEMORY = "give more with -p train_memory_per_worker=200Gi, or train with less: -p train_max_batch_len=N"
VOLUMES = "pods on several machines need a volume that several may mount: a storage class with ReadWriteMany"
QUOTA = "the namespace has no room for it: kubectl describe quota; ask for less, or for a larger quota"
SECRETS = "a Secret that where.train.kubernetes.secrets names must exist in the namespace: kubectl get secrets"
WAITING = {  # why a container does not start -> what to do
    "ImagePullBackOff": IMAGE,
    "ErrImagePull": IMAGE,
    "InvalidImageName": IMAGE,
    "CreateContainerConfigError": SECRETS,
    "CreateContainerError": "kubectl describe pod shows more",
    "RunContainerError": "the image must hold torchrun and ilab[train]",
}
MOUNTING, UNMADE = ("FailedMount", "FailedAttachVolume"), "FailedCreate"  # reasons of events


@dataclass(frozen=True)
class Trouble:
    """``message`` says what is wrong with which pod. ``starting``: it keeps a pod from starting; else it ran."""

    message: str
    hint: str
    starting: bool = True


def state_of(job: Object) -> tuple[State, str]:
    """How ``job`` is, and what its condition says about that."""
    found = {one.get("type"): one for one in _listed(job, "status", "conditions") if one.get("status") == "True"}
    for name, state in CONDITIONS:
        if name in found:
            said = ": ".join(part for part in (found[name].get("reason"), found[name].get("message")) if part)
            return state, plain(said)
    return "goes on", ""


def troubles(pods: Sequence[Object], events: Iterable[Object] = ()) -> list[Trouble]:
    """What ``pods`` suffer from; with ``events`` about their job, what keeps them from being made, or from volumes."""
    found = [trouble for pod in pods for trouble in _of_pod(pod)]
    names = {name_of(pod) for pod in pods}
    for event in events:
        about, reason = _at(event, "involvedObject", "name"), event.get("reason")
        hint = VOLUMES if reason in MOUNTING and about in names else QUOTA if reason == UNMADE and not pods else ""
        if hint:
            found.append(Trouble(f"{about}: {plain(str(event.get('message', '')))}", hint))
    return found


def running(pods: Sequence[Object]) -> bool:
    """Whether any of them has begun."""
    return any(_at(pod, "status", "phase") in ("Running", "Succeeded", "Failed") for pod in pods)


def name_of(thing: Object) -> str:
    return str(_at(thing, "metadata", "name") or "")


def _of_pod(pod: Object) -> Iterator[Trouble]:
    name = name_of(pod)
    if _at(pod, "status", "reason") == "Evicted":
        yield Trouble(f"{name} was evicted: {plain(str(_at(pod, 'status', 'message')))}", MEMORY, starting=False)
    for one in _listed(pod, "status", "conditions"):
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            yield Trouble(f"no machine takes {name}: {plain(str(one.get('message', '')))}", MACHINES)
    for container in (*_listed(pod, "status", "initContainerStatuses"), *_listed(pod, "status", "containerStatuses")):
        waiting = _at(container, "state", "waiting")
        reason = waiting.get("reason") if isinstance(waiting, dict) else None
        if reason in WAITING:
            said = plain(f"{reason}: {waiting.get('message', '')}")
            yield Trouble(f"{name} does not start: {said}", WAITING[reason])
        for state in ("state", "lastState"):
            ended = _at(container, state, "terminated")
            if isinstance(ended, dict) and ended.get("exitCode") != 0:
                yield _ended(name, ended, int(container.get("restartCount") or 0))


def _ended(name: str, ended: Object, restarts: int) -> Trouble:
    again = f" (started again {restarts} times)" if restarts > 1 else " (started again)" if restarts else ""
    if ended.get("reason") == "OOMKilled":
        return Trouble(f"{name} ran out of memory and was killed{again}", MEMORY, starting=False)
    said = plain(str(ended.get("message") or ended.get("reason") or ""))
    return Trouble(f"{name} ended with status {ended.get('exitCode')}: {said}{again}", "look at its log", False)


def _at(thing: Any, *names: str) -> Any:
    """What lies there, None where something on the way is missing."""
    for name in names:
        thing = thing.get(name) if isinstance(thing, Mapping) else None
    return thing


def _listed(thing: Object, *names: str) -> list[Object]:
    found = _at(thing, *names)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
