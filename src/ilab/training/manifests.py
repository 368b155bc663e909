"""A prepared training job as a manifest for Kubeflow: ``TrainJob`` (Trainer 2) or ``PyTorchJob`` (Training Operator 1);
and a command that comes again and again as a ``CronJob`` on the same pods.

Both start what :mod:`ilab.training.launch` starts by hand: ``torchrun`` with the worker, on every machine, on the job's
folder. That folder, the base and the work folder must lie on volumes that the pods mount at the same paths. Kubeflow
gives torchrun its arguments by environment variables (``PET_NNODES``, ``PET_NODE_RANK``, ``PET_MASTER_ADDR``, …), so
the command is the same in each pod.

Sources: the API models of kubeflow_trainer_api 2.3 (``trainer.kubeflow.org/v1alpha1``), and
https://github.com/kubeflow/trainer/tree/release-1.9 (``kubeflow.org/v1``); Kubernetes 1.26 and later (``batch/v1``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from ilab.config import KubernetesWhere, TrainWhere
from ilab.core.files import read_json
from ilab.core.step import fingerprint
from ilab.errors import InputError
from ilab.training.handover import JOB

Kind = Literal["TrainJob", "PyTorchJob"]
NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")  # a DNS label, with room for what the operators append
SCRAPED = "ilab.instructlab.ai/metrics"  # label of pods that serve /metrics; deploy/base/monitoring.yaml selects by it
MARK = "ilab.instructlab.ai/job"  # annotation that tells one training from another of the same name
SECRET = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+")


def manifest(kind: Kind, name: str, folder: Path, where: TrainWhere) -> str:
    """YAML of the job in ``folder`` (what ``write_job`` made), called ``name``.

    Raises ``InputError`` where the settings ``where.train.kubernetes`` are not enough for it.
    """
    found = read_json(folder / JOB)
    check(name, (folder, Path(found["base"]), Path(found["work"])), where)
    made = _train_job(name, folder, where) if kind == "TrainJob" else _pytorch_job(name, folder, where)
    made["metadata"]["annotations"] = {MARK: fingerprint(found)}
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True)


def _train_job(name: str, folder: Path, where: TrainWhere) -> dict[str, Any]:
    place = where.kubernetes
    pod = _present(
        serviceAccountName=place.service_account,
        imagePullSecrets=[{"name": secret} for secret in place.image_pull_secrets],
        nodeSelector=dict(place.node_selector),
        tolerations=[dict(one) for one in place.tolerations],
        volumes=_volumes(place),
        containers=[{"name": "node", "volumeMounts": _mounts(place)}],
    )
    patch = {
        "manager": "ilab.instructlab.ai/train",
        "trainingRuntimeSpec": {
            "template": {"spec": {"replicatedJobs": [_nested("node", pod, _scraped(place))]}},
        },
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": _metadata(name, place),
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": place.runtime,
            },
            "trainer": _present(
                image=place.image,
                command=_command(folder),
                env=_environment(place),
                numNodes=where.nodes,
                numProcPerNode=where.processes,
                resourcesPerNode=_resources(place),
            ),
            "runtimePatches": [patch],
        },
    }


def _pytorch_job(name: str, folder: Path, where: TrainWhere) -> dict[str, Any]:
    place = where.kubernetes
    container = _present(
        name="pytorch",
        image=place.image,
        command=_command(folder),
        env=_environment(place),
        resources=_resources(place),
        volumeMounts=_mounts(place),
    )
    pod = _present(
        serviceAccountName=place.service_account,
        imagePullSecrets=[{"name": secret} for secret in place.image_pull_secrets],
        nodeSelector=dict(place.node_selector),
        tolerations=[dict(one) for one in place.tolerations],
        containers=[container],
        volumes=_volumes(place),
    )

    def replicas(count: int) -> dict[str, Any]:
        # A worker that fails is started again, reads the newest state and goes on.
        return {"replicas": count, "restartPolicy": "OnFailure", "template": {**_scraped(place), "spec": pod}}

    specs = {"Master": replicas(1)}
    if where.nodes > 1:
        specs["Worker"] = replicas(where.nodes - 1)
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": _metadata(name, place),
        "spec": {
            "nprocPerNode": str(where.processes),
            "runPolicy": {"cleanPodPolicy": "None", "backoffLimit": 3},
            "pytorchReplicaSpecs": specs,
        },
    }


def cron_job(name: str, times: tuple[str, str], command: Sequence[str], folder: Path, where: TrainWhere) -> str:
    """YAML of a CronJob that runs ``command`` for the project in ``folder``; ``times`` are its five fields and a time
    zone (or none). Two never run at once. What a person has to decide (exit codes of :mod:`ilab.errors`) is not tried
    again; any other failure is, and goes on where the work stopped.

    Raises ``InputError`` as :func:`manifest` does.
    """
    check(name, (folder,), where)
    place = where.kubernetes
    container = _present(
        name="build",
        image=place.image,
        command=list(command),
        env=_environment(place),
        resources=_resources(place),
        volumeMounts=_mounts(place),
    )
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = _present(
        restartPolicy="Never",
        serviceAccountName=place.service_account,
        imagePullSecrets=[{"name": secret} for secret in place.image_pull_secrets],
        nodeSelector=dict(place.node_selector),
        tolerations=[dict(one) for one in place.tolerations],
        securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        containers=[container],
        volumes=_volumes(place),
    )
    pod["automountServiceAccountToken"] = False
    decided = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 5]}}
    job = {"backoffLimit": 2, "podFailurePolicy": {"rules": [decided]}, "template": {"spec": pod}}
    spec = _present(
        schedule=times[0],
        timeZone=times[1],
        concurrencyPolicy="Forbid",
        startingDeadlineSeconds=3600,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=3,
        jobTemplate={"spec": job},
    )
    metadata = _metadata(name, place)
    metadata["labels"]["app.kubernetes.io/component"] = "nightly"
    made = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True)


def _nested(name: str, pod: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The patch of one of a runtime's jobs: of its job's template's pod's template."""
    return {"name": name, "template": {"spec": {"template": {**metadata, "spec": dict(pod)}}}}


def _scraped(place: KubernetesWhere) -> dict[str, Any]:
    """The metadata of pods of which the first serves ``/metrics``; nothing where none does."""
    return {"metadata": {"labels": {SCRAPED: "true"}}} if place.metrics_port else {}


def _metadata(name: str, place: KubernetesWhere) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "ilab", "app.kubernetes.io/component": "training"}
    return _present(name=name, namespace=place.namespace, labels=labels)


def _command(folder: Path) -> list[str]:
    return ["torchrun", "-m", "ilab.training.worker", str(folder.resolve())]


def _environment(place: KubernetesWhere) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in sorted(place.env.items())]
    for name, reference in sorted(place.secrets.items()):
        secret, _, key = reference.partition("/")
        found.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return found


def _resources(place: KubernetesWhere) -> dict[str, Any]:
    gpus = str(place.gpus) if place.gpus else ""
    asked = _present(cpu=place.cpus, memory=place.memory, **{place.gpu_identifier: gpus})
    return {"requests": asked, "limits": dict(asked)} if asked else {}


def _volumes(place: KubernetesWhere) -> list[dict[str, Any]]:
    claims = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in place.volumes]
    if place.gpus:  # NCCL's shared memory: what a container gets otherwise, 64 MiB, is too little
        return [*claims, {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}]
    return claims


def _mounts(place: KubernetesWhere) -> list[dict[str, Any]]:
    mounts = [{"name": claim, "mountPath": path} for claim, path in place.volumes.items()]
    return [*mounts, {"name": "shared-memory", "mountPath": "/dev/shm"}] if place.gpus else mounts  # noqa: S108


def _present(**fields: Any) -> dict[str, Any]:
    """``fields`` without those that are empty."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def check(name: str, paths: Iterable[Path], where: TrainWhere) -> None:
    """Raises ``InputError`` where ``where`` is not enough for a manifest, or the pods could not see ``paths``."""
    place = where.kubernetes

    def refuse(message: str, setting: str, hint: str) -> None:
        raise InputError(message, where=f"where.train.kubernetes{setting}", hint=hint)

    if not NAME.fullmatch(name):
        refuse(f"{name!r} is no name for a job", "", "small letters, digits and hyphens, at most 50")
    if not place.image:
        refuse("there is no image to run", ".image", "--set where.train.kubernetes.image=REGISTRY/NAME:TAG")
    if place.gpus and place.gpus != where.processes:
        refuse(
            f"{place.gpus} GPUs for {where.processes} processes on each machine",
            ".gpus",
            f"--set where.train.processes={place.gpus}: one for each GPU",
        )
    for variable, reference in place.secrets.items():
        if not SECRET.fullmatch(reference):
            refuse(f"{variable}: a secret is named, as SECRET/KEY", ".secrets", "its value has no place here")
    for path in (path.resolve() for path in paths):
        if not any(path.is_relative_to(mount) for mount in place.volumes.values()):
            refuse(
                f"{path} lies on no volume that the pods mount",
                ".volumes",
                "give the claim and the path at which it is mounted here too: volumes: {CLAIM: PATH}",
            )
