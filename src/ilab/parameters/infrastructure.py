"""Of the cluster: volumes, machines, what pods get, and the secrets that they read. All of it is *where*.

``cluster`` turns the values into what a compiled pipeline sets: ``k8s_worker_resources`` and ``k8s_node_selector`` hold
for the tasks that do not train, ``train_*`` for training; where training has no selector or tolerations of its own it
takes the general ones. A laptop reads none of it, except where training is handed to pods (``where.train.launcher``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ilab.parameters.parameter import Parameter, json_of, positive, quantity, resources, secret_name

_OBJECT = "name of an object of Kubernetes, or nothing"
_QUANTITY = "an amount, as 20Gi"

INFRASTRUCTURE: tuple[Parameter, ...] = (
    Parameter(
        "k8s_storage_class_name", str, "gp3-csi", "storage class of the run's volume", "where", _OBJECT, secret_name
    ),
    Parameter(
        "k8s_storage_size", str, "20Gi", "size of the run's volume", "where", _QUANTITY, quantity, prod="100Gi"
    ),
    Parameter(
        "k8s_node_selector",
        str,
        "",
        "labels that machines must have: a JSON object",
        "where",
        'JSON, as {"disk": "ssd"}',
        json_of(dict),
    ),
    Parameter(
        "k8s_tolerations", str, "", "taints that do not matter: a JSON list", "where", "JSON list", json_of(list)
    ),
    Parameter(
        "k8s_worker_resources",
        str,
        '{"cpu":"4","memory":"120Gi"}',
        "processors and memory of each task that does not train: a JSON object",
        "where",
        'JSON, as {"cpu":"4","memory":"120Gi"}',
        resources,
        prod='{"cpu":"8","memory":"200Gi"}',
    ),
    Parameter(
        "train_gpu_identifier", str, "nvidia.com/gpu", "resource name of the GPUs that train", "where",
        "as nvidia.com/gpu, or nothing for none", lambda value: value == "" or "/" in value,
    ),
    Parameter("train_gpu_per_worker", int, 2, "GPUs of each training worker; 0: the CPU trains", "where",
              ">= 0", lambda value: value >= 0),
    Parameter("train_cpu_limit", int, 4, "processors of each training worker", "where", "> 0", positive, prod=8),
    Parameter(
        "train_memory_per_worker", str, "120Gi", "memory of each training worker", "where", _QUANTITY, quantity,
        prod="200Gi",
    ),
    Parameter(
        "train_node_selectors", str, "", "labels that training machines must have, in place of k8s_node_selector",
        "where", "JSON object", json_of(dict),
    ),
    Parameter(
        "train_tolerations", str, "", "taints that do not matter to training, in place of k8s_tolerations", "where",
        "JSON list", json_of(list),
    ),
    Parameter(
        "eval_gpu_identifier", str, "", "resource name of a GPU for each task that evaluates; empty: none", "where",
        "as nvidia.com/gpu, or nothing", lambda value: value == "" or "/" in value,
    ),
    Parameter(
        "sdg_teacher_secret", str, "teacher-secret", "Secret with api_token, model_name and endpoint of the teacher",
        "where", _OBJECT, secret_name,
    ),
    Parameter(
        "eval_judge_secret", str, "judge-secret", "Secret with api_token, model_name and endpoint of the judge",
        "where", _OBJECT, secret_name,
    ),
    Parameter(
        "sdg_repo_secret", str, "taxonomy-repo-secret",
        "Secret for a private taxonomy: username and password, or ssh-privatekey", "where", _OBJECT, secret_name,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Worker:
    """What one pod gets. ``gpu`` is a resource name, empty for none."""

    cpu: str
    memory: str
    gpu: str
    gpus: int
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Secrets:
    """Names of Secrets; empty: there is none."""

    teacher: str
    judge: str
    taxonomy: str
    registry: str


@dataclass(frozen=True)
class Cluster:
    """What a run needs of a cluster: ``task`` for steps that do not train, ``evaluation`` for those that measure."""

    storage_class: str
    storage_size: str
    task: Worker
    evaluation: Worker
    training: Worker
    trainers: int
    secrets: Secrets


def cluster(values: Mapping[str, Any]) -> Cluster:
    """The parameters' ``values``, checked before, as what a cluster is asked for."""
    selector, tolerations = _json(values["k8s_node_selector"], {}), tuple(_json(values["k8s_tolerations"], []))
    asked = _json(values["k8s_worker_resources"], {})
    eval_gpu = values["eval_gpu_identifier"]
    given = (str(asked.get("cpu", "")), str(asked.get("memory", "")))
    gpus = values["train_gpu_per_worker"] if values["train_gpu_identifier"] else 0
    return Cluster(
        storage_class=values["k8s_storage_class_name"],
        storage_size=values["k8s_storage_size"],
        task=Worker(*given, "", 0, selector, tolerations),
        evaluation=Worker(*given, eval_gpu, 1 if eval_gpu else 0, selector, tolerations),
        training=Worker(
            str(values["train_cpu_limit"]),
            values["train_memory_per_worker"],
            values["train_gpu_identifier"] if gpus else "",
            gpus,
            _json(values["train_node_selectors"], selector),
            tuple(_json(values["train_tolerations"], list(tolerations))),
        ),
        trainers=values["train_num_workers"],
        secrets=Secrets(
            values["sdg_teacher_secret"],
            values["eval_judge_secret"],
            values["sdg_repo_secret"],
            values["output_oci_registry_secret"],
        ),
    )


def _json(text: str, otherwise: Any) -> Any:
    return json.loads(text) if text.strip() else otherwise
