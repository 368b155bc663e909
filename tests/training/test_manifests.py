"""Manifests against the structure of the two APIs, written out here by hand, and against their own models where present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.config import TrainWhere
from ilab.core.events import Bus
from ilab.core.files import write_json
from ilab.errors import InputError
from ilab.training.encode import EncodedSet
from ilab.training.handover import write_job
from ilab.training.loop import TrainJob
from ilab.training.manifests import Kind, manifest
from ilab.training.settings import TrainSettings

RESOURCES = {"requests": {str: str}, "limits": {str: str}}
ENV = [{"name": str, "value?": str, "valueFrom?": {"secretKeyRef": {"name": str, "key": str}}}]
MOUNTS = [{"name": str, "mountPath": str}]
PLACING = {
    "serviceAccountName?": str,
    "imagePullSecrets?": [{"name": str}],
    "nodeSelector?": {str: str},
    "tolerations?": [{"key?": str, "operator?": str, "value?": str, "effect?": str}],
    "volumes?": [{"name": str, "persistentVolumeClaim?": {"claimName": str}, "emptyDir?": {"medium": str}}],
}
METADATA = {"name": str, "namespace?": str, "labels": {str: str}, "annotations": {"ilab.instructlab.ai/job": str}}
TRAIN_JOB = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "metadata": METADATA,
    "spec": {
        "runtimeRef": {"apiGroup": str, "kind": "ClusterTrainingRuntime", "name": str},
        "trainer": {
            "image": str,
            "command": [str],
            "env?": ENV,
            "numNodes": int,
            "numProcPerNode": int,
            "resourcesPerNode?": RESOURCES,
        },
        "runtimePatches": [
            {
                "manager": str,
                "trainingRuntimeSpec": {
                    "template": {
                        "spec": {
                            "replicatedJobs": [
                                {
                                    "name": "node",
                                    "template": {
                                        "spec": {
                                            "template": {
                                                "metadata?": {"labels": {str: str}},
                                                "spec": {
                                                    **PLACING,
                                                    "containers": [{"name": "node", "volumeMounts": MOUNTS}],
                                                },
                                            }
                                        }
                                    },
                                }
                            ]
                        }
                    }
                },
            }
        ],
    },
}
REPLICAS = {
    "replicas": int,
    "restartPolicy": "OnFailure",
    "template": {
        "spec": {
            **PLACING,
            "containers": [
                {
                    "name": "pytorch",  # the operator looks for this one
                    "image": str,
                    "command": [str],
                    "env?": ENV,
                    "resources?": RESOURCES,
                    "volumeMounts": MOUNTS,
                }
            ],
        }
    },
}
PYTORCH_JOB = {
    "apiVersion": "kubeflow.org/v1",
    "kind": "PyTorchJob",
    "metadata": METADATA,
    "spec": {
        "nprocPerNode": str,
        "runPolicy": {"cleanPodPolicy": "None", "backoffLimit": int},
        "pytorchReplicaSpecs": {"Master": REPLICAS, "Worker?": REPLICAS},
    },
}
SHAPES: dict[str, Any] = {"TrainJob": TRAIN_JOB, "PyTorchJob": PYTORCH_JOB}


def matches(found: Any, shape: Any, at: str = "") -> None:
    """``found`` has exactly what ``shape`` has: keys with ``?`` may be missing, types and constants must be right."""
    if isinstance(shape, type):
        assert type(found) is shape, at
    elif isinstance(shape, dict) and str in shape:
        assert isinstance(found, dict) and all(isinstance(key, str) for key in found), at
        for key, value in found.items():
            matches(value, shape[str], f"{at}.{key}")
    elif isinstance(shape, dict):
        assert isinstance(found, dict), at
        names = {name.removesuffix("?"): part for name, part in shape.items()}
        assert set(found) <= set(names), f"{at}: {set(found) - set(names)}"
        assert {name for name in shape if not name.endswith("?")} <= set(found), at
        for key, value in found.items():
            matches(value, names[key], f"{at}.{key}")
    elif isinstance(shape, list):
        assert isinstance(found, list) and found, at
        for number, value in enumerate(found):
            matches(value, shape[0], f"{at}[{number}]")
    else:
        assert found == shape, at


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = TrainSettings(epochs=1, batch=2, learning_rate=1e-3, max_length=8, max_batch_tokens=16)
    data = EncodedSet(("a",), ((1, 2),), ((True, True),), ())
    work = tmp_path / "store" / "work"
    work.mkdir(parents=True)
    write_json(tmp_path / "store" / "base" / "config.json", {})
    none = EncodedSet((), (), (), ())
    job = TrainJob(
        data, none, tmp_path / "store" / "base", work, settings, Bus().for_step("t"), lambda: False, 1, TrainWhere()
    )
    return write_job(job, "cuda")


def where(folder: Path, **more: Any) -> TrainWhere:
    usual = {
        "namespace": "team",
        "image": "quay.io/x/ilab:1",
        "volumes": {"models": str(folder.parents[1])},
        "secrets": {"WANDB_API_KEY": "wandb/key"},
        "image_pull_secrets": ["quay"],
        "service_account": "trainer",
        "gpus": 2,
        "cpus": "8",
        "memory": "200Gi",
        "tolerations": '[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]',
        "node_selector": '{"gpu": "h200"}',
        "env": {"NCCL_DEBUG": "WARN"},
    }
    return TrainWhere.model_validate({"nodes": 3, "processes": 2, "master": "m:29500", "kubernetes": {**usual, **more}})


@pytest.mark.parametrize("kind", ["TrainJob", "PyTorchJob"])
def test_a_manifest_has_what_the_api_has_and_nothing_else(kind: Kind, folder: Path) -> None:
    made = yaml.safe_load(manifest(kind, "phase-1", folder, where(folder)))
    matches(made, SHAPES[kind])
    text = str(made)
    for part in ("'nvidia.com/gpu': '2'", "200Gi", "h200", "NoSchedule", "/dev/shm", "quay.io/x/ilab:1"):
        assert part in text
    assert {"secretKeyRef": {"name": "wandb", "key": "key"}} in [
        entry.get("valueFrom") for entry in _environment(made, kind)
    ]


def _environment(made: dict[str, Any], kind: Kind) -> list[dict[str, Any]]:
    if kind == "TrainJob":
        return made["spec"]["trainer"]["env"]
    return made["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["env"]


def test_machines_and_processes_are_those_of_the_job(folder: Path) -> None:
    trainer = yaml.safe_load(manifest("TrainJob", "a", folder, where(folder)))["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 2)
    assert trainer["command"] == ["torchrun", "-m", "ilab.training.worker", str(folder)]
    spec = yaml.safe_load(manifest("PyTorchJob", "a", folder, where(folder)))["spec"]
    replicas = {name: part["replicas"] for name, part in spec["pytorchReplicaSpecs"].items()}
    assert replicas == {"Master": 1, "Worker": 2} and spec["nprocPerNode"] == "2"


@pytest.mark.parametrize("kind", ["TrainJob", "PyTorchJob"])
def test_one_machine_without_anything_special(kind: Kind, folder: Path) -> None:
    place = TrainWhere.model_validate({"kubernetes": {"image": "i", "volumes": {"v": str(folder.parents[1])}}})
    made = yaml.safe_load(manifest(kind, "a", folder, place))
    matches(made, SHAPES[kind])
    assert "Worker" not in str(made) and "gpu" not in str(made)


def test_the_api_models_read_it_back_whole(folder: Path) -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models")
    made = yaml.safe_load(manifest("TrainJob", "a", folder, where(folder)))
    assert models.TrainerV1alpha1TrainJob.from_dict(made).to_dict() == made


@pytest.mark.parametrize(
    ("more", "name", "said"),
    [
        ({"image": None}, "a", "no image"),
        ({"volumes": {"models": "/elsewhere"}}, "a", "on no volume"),
        ({"gpus": 4}, "a", "4 GPUs for 2 processes"),
        ({"secrets": {"TOKEN": "hf_abcdef"}}, "a", "as SECRET/KEY"),
        ({}, "Phase 1", "no name for a job"),
    ],
)
def test_what_could_not_run_is_refused(more: dict[str, Any], name: str, said: str, folder: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        manifest("TrainJob", name, folder, where(folder, **more))
    assert caught.value.hint and "where.train.kubernetes" in caught.value.where
    assert "hf_abcdef" not in str(caught.value)


def test_settings_that_are_no_json_are_named() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        TrainWhere.model_validate({"kubernetes": {"tolerations": "[{"}})
