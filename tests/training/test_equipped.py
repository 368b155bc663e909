"""What the pods of a training job get of the pod that makes the job: names of Secrets, never a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.config import TrainWhere
from ilab.core.files import write_json
from ilab.training.handover import JOB
from ilab.training.manifests import Kind, manifest
from ilab.training.relay import equipped_like


def reference(key: str, secret: str = "ilab-tokens") -> dict[str, Any]:
    return {"secretKeyRef": {"name": secret, "key": key, "optional": True}}


CA = {"name": "ilab-ca-bundle", "configMap": {"name": "ilab-ca-bundle", "optional": True}}
TOKENS = {"name": "ilab-tokens", "secret": {"secretName": "ilab-tokens", "optional": True}}
TASK = {
    "spec": {
        "containers": [
            {"name": "wait", "env": [{"name": "HF_TOKEN", "valueFrom": reference("WRONG")}]},
            {
                "name": "main",
                "env": [
                    {"name": "HF_TOKEN", "value": "written-out"},
                    {"name": "MLFLOW_TRACKING_TOKEN", "valueFrom": reference("MLFLOW_TRACKING_TOKEN")},
                    {"name": "WANDB_API_KEY", "valueFrom": reference("WANDB_API_KEY")},
                    {"name": "ILAB_TEACHER_TOKEN", "valueFrom": reference("api_token", "teacher")},
                ],
                "volumeMounts": [
                    {"name": "ilab-ca-bundle", "mountPath": "/var/run/ilab/ca"},
                    {"name": "ilab-tokens", "mountPath": "/var/run/ilab/tokens"},
                    {"name": "git-login", "mountPath": "/var/run/ilab/taxonomy"},
                ],
            },
        ],
        "volumes": [CA, TOKENS, {"name": "git-login", "secret": {"secretName": "git-login"}}],
    }
}


@pytest.mark.parametrize(("kind", "pods"), [("TrainJob", 1), ("PyTorchJob", 2)])
def test_training_pods_have_the_certificates_and_tokens_of_the_task(tmp_path: Path, kind: Kind, pods: int) -> None:
    write_json(tmp_path / JOB, {"base": str(tmp_path), "work": str(tmp_path)})
    place = {"image": "x/y:1", "volumes": {"space": str(tmp_path)}, "secrets": {"WANDB_API_KEY": "mine/key"}}
    where = TrainWhere.model_validate({"nodes": 2, "launcher": kind, "submit": True, "kubernetes": place})
    plain = yaml.safe_load(manifest(kind, "phase-1", tmp_path, where))
    made = equipped_like(TASK, plain)
    text = json.dumps(made)
    assert text.count('"claimName": "space"') == text.count('"mountPath": "/var/run/ilab/ca"') == pods
    assert text.count('"mountPath": "/var/run/ilab/tokens"') == text.count('"secretName": "ilab-tokens"') == pods
    assert "git-login" not in text and "teacher" not in text, "what training has no use for"
    assert "written-out" not in text and "WRONG" not in text
    trainer = (
        made["spec"].get("trainer")
        or made["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    )
    assert [(one["name"], one["valueFrom"]["secretKeyRef"]["name"]) for one in trainer["env"]] == [
        ("WANDB_API_KEY", "mine"),
        ("MLFLOW_TRACKING_TOKEN", "ilab-tokens"),
    ], "what the settings name goes before"
    assert equipped_like(None, plain) == plain and "ilab-tokens" not in yaml.safe_dump(plain)
