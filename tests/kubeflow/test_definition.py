"""The compiled pipeline: what Kubeflow's own schemas say of it, and that it is the pipeline that runs here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from on_kubeflow import IMAGE, documents, made, shipped

from ilab.core.pipeline import sources
from ilab.errors import InputError
from ilab.parameters import TABLE, collect
from ilab.parameters.infrastructure import cluster

Documents = list[dict[str, Any]]
AROUND = {"secrets", "resolve", "results", "condition-2"}  # the last one holds the importer


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """The tasks inside of the exit handler, by name."""
    found: dict[str, Any] = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return found


def test_both_documents_are_what_kubeflows_schemas_allow(compiled: Documents) -> None:
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec, platform = compiled
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(executors) > 20
    for config in executors.values():
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_steps_and_edges_are_those_of_the_pipeline_file(compiled: Documents) -> None:
    found = tasks(compiled[0])
    pipeline = shipped()
    assert set(found) - AROUND == set(pipeline.steps)
    for name, step in pipeline.steps.items():
        assert set(found[name]["dependentTasks"]) == {"resolve", *sources(step.get("from") or {})}, name
        assert found[name].get("cachingOptions", {}) == {}, "KFP's cache is off"
    titles = {task["taskInfo"]["name"].partition(":")[0] for task in found.values()}
    assert titles >= {
        "Data Preparation",
        "SDG - Synthetic Data Generation",
        "Training Phase 1",
        "Evaluation",
        "Training Phase 2",
        "Final Evaluation",
        "Model Packaging",
        "Model Registration",
    }


def test_every_parameter_is_an_input_of_the_run_form(compiled: Documents) -> None:
    inputs = compiled[0]["root"]["inputDefinitions"]["parameters"]
    assert set(inputs) == {parameter.name for parameter in TABLE}
    kinds = {int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN", str: "STRING"}
    for parameter in TABLE:
        one = inputs[parameter.name]
        assert len(one["description"]) > 10
        if parameter.default is None:
            assert (one["parameterType"], one.get("defaultValue", "")) == ("STRING", "")
        else:
            assert (one["parameterType"], one.get("defaultValue", "")) == (kinds[parameter.type], parameter.default)


def test_the_four_outputs_and_figures(compiled: Documents) -> None:
    outputs = compiled[0]["components"]["comp-results"]["outputDefinitions"]["artifacts"]
    assert set(outputs) == {
        "trained_model", "evaluation_results", "training_logs", "artifacts", "metrics", "report",
    }  # fmt: skip
    assert outputs["trained_model"]["artifactType"]["schemaTitle"] == "system.Model"


def test_the_same_pipeline_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        documents(made(shipped("quickstart")), tmp_path / name)
    assert (tmp_path / "one" / "pipeline.yaml").read_bytes() == (tmp_path / "two" / "pipeline.yaml").read_bytes()


def executor(compiled: Documents, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(container, Kubernetes settings) of a task."""
    label = f"exec-{name}"
    container = compiled[0]["deploymentSpec"]["executors"][label]["container"]
    return container, compiled[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label]


def test_pods_get_what_resolve_found(compiled: Documents, tmp_path: Path) -> None:
    from ilab.kubeflow.definition import Target

    several = documents(made(shipped(), target=Target(IMAGE, access_mode="ReadWriteMany")), tmp_path)
    for name, kind, documents_ in (
        ("train-phase-1", "training", compiled),
        ("train-phase-1", "task", several),  # with more workers it only starts their job, and waits
        ("generate", "task", compiled),
        ("score-base", "evaluation", compiled),
    ):
        container, platform = executor(documents_, name)
        assert container["image"] == IMAGE
        text = json.dumps(container["resources"])
        assert f"resolve-{kind}_cpu" in text and f"resolve-{kind}_memory" in text
        assert ("accelerator" in container["resources"]) is (kind == "training")
        assert f"{kind}_node_selector" in json.dumps(platform["nodeSelector"])
        assert f"{kind}_tolerations" in json.dumps(platform["tolerations"])
        secrets = json.dumps(platform["secretAsEnv"])
        assert "sdg_teacher_secret" in secrets and "ILAB_TEACHER_TOKEN" in secrets and '"optional": true' in secrets


def volumes(platform: dict[str, Any]) -> set[str]:
    """What the pods of the tasks have volumes of."""
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {kind for settings in executors.values() for kind in settings} & {"pvcMount", "genericEphemeralVolume"}


def test_the_volume_is_one_that_the_default_class_can_give(compiled: Documents, tmp_path: Path) -> None:
    from ilab.kubeflow.definition import Target

    asked = compiled[1]["platforms"]["kubernetes"]["pipelineConfig"]["workspace"]
    assert asked["kubernetes"]["pvcSpecPatch"] == {"accessModes": ["ReadWriteOnce"], "storageClassName": "gp3-csi"}
    assert volumes(compiled[1]) == set()
    target = Target(IMAGE, access_mode="ReadWriteMany", store="s3://bucket/models")
    for given in (target, Target(IMAGE, access_mode="ReadWriteMany")):
        _, platform = documents(made(shipped(), target=given, k8s_storage_size="7Gi"), tmp_path)
        asked = platform["platforms"]["kubernetes"]["pipelineConfig"]["workspace"]
        assert asked["size"] == "7Gi" and volumes(platform) == set()
        assert asked["kubernetes"]["pvcSpecPatch"]["accessModes"] == ["ReadWriteMany"]


def test_a_volume_and_a_store_of_ones_own(tmp_path: Path) -> None:
    from ilab.kubeflow.definition import Target

    target = Target(IMAGE, claim="shared", store="s3://bucket/models", storage_secret="bucket-keys")
    spec, platform = documents(made(shipped(), target=target), tmp_path)
    assert "workspace" not in json.dumps(platform["platforms"]["kubernetes"].get("pipelineConfig", {}))
    _, settings = executor([spec, platform], "generate")
    assert settings["pvcMount"][0]["mountPath"] == "/ilab" and "shared" in json.dumps(settings["pvcMount"])
    assert "bucket-keys" in json.dumps(settings["secretAsEnv"])
    assert "s3://bucket/models" in json.dumps(tasks(spec)["resolve"]["inputs"])


def test_with_a_store_in_a_bucket_tasks_share_no_volume(tmp_path: Path) -> None:
    from ilab.kubeflow.definition import Target

    target = Target(IMAGE, store="s3://bucket/models")
    spec, platform = documents(made(shipped(), target=target, k8s_storage_class_name=""), tmp_path)
    assert "workspace" not in json.dumps([spec, platform]) and volumes(platform) == {"genericEphemeralVolume"}
    for name in (*shipped().steps, "resolve", "results", "finish"):
        [own] = executor([spec, platform], name)[1]["genericEphemeralVolume"]
        assert own == {
            "volumeName": "ilab-own", "mountPath": "/ilab", "accessModes": ["ReadWriteOnce"], "size": "20Gi",
            "defaultStorageClass": True,
        }  # fmt: skip
    assert "s3://bucket/models" in json.dumps(spec["root"]["dag"]["tasks"]["finish"]["inputs"]), "the plan lies there"


def test_more_machines_than_see_the_volume_are_refused(tmp_path: Path) -> None:
    from ilab.kubeflow.definition import Target

    with pytest.raises(InputError, match="6 workers") as caught:
        made(shipped(), train_num_workers=6)
    assert "--access-mode ReadWriteMany" in caught.value.hint and "-p train_num_workers=1" in caught.value.hint
    with pytest.raises(InputError, match="3 workers"):
        made(shipped(), target=Target(IMAGE, store="s3://b/p"), train_num_workers=3)
    made(shipped(), target=Target(IMAGE, access_mode="ReadWriteMany"), train_num_workers=6)


def test_every_task_gets_the_workspace(compiled: Documents) -> None:
    """Kubeflow mounts it into tasks that have its path among their inputs, and into no others."""
    for name, task in tasks(compiled[0]).items():
        if name not in ("condition-2", "secrets"):
            assert "{{$.workspace_path}}" in json.dumps(task["inputs"]), name


def test_a_gate_that_says_no_is_not_asked_often(compiled: Documents) -> None:
    found = tasks(compiled[0])
    assert found["package"]["retryPolicy"]["maxRetryCount"] == 1
    again = found["generate"]["retryPolicy"]
    assert (again["maxRetryCount"], again["backoffDuration"]) == (2, "10s")


def test_the_key_of_a_private_taxonomy_reaches_git(
    compiled: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Secret with ``ssh-privatekey``: mounted in the first task, whose plan names the commit, and in the others."""
    from ilab.kubeflow import tasks as bodies

    for name in ("resolve", "taxonomy"):
        mounted = json.dumps(executor(compiled, name)[1]["secretAsVolume"])
        assert "sdg_repo_secret" in mounted and str(bodies.TAXONOMY) in mounted
    (tmp_path / "ssh-privatekey").write_text("a key")
    monkeypatch.setattr(bodies, "TAXONOMY", tmp_path)
    monkeypatch.setenv("GIT_SSH_KEY", "")
    monkeypatch.delenv("GIT_SSH_KEY")
    seen: list[str] = []
    monkeypatch.setattr(bodies, "_command", lambda arguments: seen.append(os.environ["GIT_SSH_KEY"]))
    bodies.run_step(tmp_path, "taxonomy")
    assert seen == [str(tmp_path / "ssh-privatekey")]


def test_the_importer_gets_what_resolve_found(compiled: Documents) -> None:
    """Kubeflow's takes the address from an input of the graph that it is in, and fails where that is empty."""
    spec = compiled[0]
    around = tasks(spec)["condition-2"]
    [(name, source)] = around["inputs"]["parameters"].items()
    assert source == {"taskOutputParameter": {"producerTask": "resolve", "outputParameterKey": "base_model"}}
    assert around["triggerPolicy"]["condition"] == f"inputs.parameter_values['{name}'] != ''"
    inside = spec["components"]["comp-condition-2"]
    assert name in inside["inputDefinitions"]["parameters"]
    assert inside["dag"]["tasks"]["importer"]["inputs"]["parameters"]["uri"] == {"componentInputParameter": name}
    importer = spec["deploymentSpec"]["executors"]["exec-importer"]["importer"]
    assert importer["artifactUri"] == {"runtimeParameter": "uri"}


def test_secrets_are_those_that_a_task_found(compiled: Documents) -> None:
    """Kubeflow makes no pod for an empty name, which the run form may give: so no pod takes one from the form."""
    for name in (*shipped().steps, "resolve", "results"):
        settings = executor(compiled, name)[1]
        found = [one for kind in ("secretAsEnv", "secretAsVolume") for one in settings[kind]]
        sources = [one["secretNameParameter"] for one in found]
        producer = "secrets" if name == "resolve" else "resolve"
        asked = {one["taskOutputParameter"]["outputParameterKey"] for one in sources if "taskOutputParameter" in one}
        assert asked == {"sdg_teacher_secret", "eval_judge_secret", "sdg_repo_secret", "output_oci_registry_secret"}
        assert {one["taskOutputParameter"]["producerTask"] for one in sources if "taskOutputParameter" in one} == {
            producer
        }
        assert {one["runtimeValue"]["constant"] for one in sources if "runtimeValue" in one} == {
            "ilab-tokens", "storage-secret",
        }  # fmt: skip
        assert all(one["optional"] for one in found)


def test_certificates_are_mounted_in_every_task(compiled: Documents) -> None:
    for name in (*shipped().steps, "resolve", "results", "finish"):
        [bundle] = executor(compiled, name)[1]["configMapAsVolume"]
        assert (bundle["configMapName"], bundle["mountPath"]) == ("ilab-ca-bundle", "/var/run/ilab/ca")
        assert bundle["optional"] is True


def test_names_of_secrets_are_names_of_volumes() -> None:
    from ilab.kubeflow.secret_names import secret_names

    values = {name: one.value for name, one in collect({}).items()}
    found = secret_names({**values, "sdg_repo_secret": "", "output_oci_registry_secret": ""})
    assert len(set(found.values())) == 4, "a pod has no two volumes of one name"
    assert (found["sdg_repo_secret"], found["sdg_teacher_secret"]) == ("no-sdg-repo-secret", "teacher-secret")
    for wrong, said in (("oci-registry-secret", "are one Secret"), ("a.b", "no name"), ("x" * 64, "no name")):
        with pytest.raises(InputError, match=said):
            secret_names({**values, "sdg_repo_secret": wrong})
    secret_names({**values, "sdg_teacher_secret": "judge-secret"})


def test_what_cannot_be_a_task_is_told(tmp_path: Path) -> None:
    from ilab.core.pipeline import Pipeline

    for name in ("Results", "results", "a b", "x--y"):
        with pytest.raises(InputError, match="cannot be the name of a task"):
            made(Pipeline("mine", {}, {name: {"step": "taxonomy", "tree": "$sdg_repo_url"}}, "mine.yaml"))


def test_the_kind_of_training_jobs_can_be_chosen(tmp_path: Path) -> None:
    from ilab.kubeflow.definition import Target

    for launcher in ("", "PyTorchJob"):
        spec = documents(made(shipped(), target=Target(IMAGE, launcher=launcher)), tmp_path)[0]
        compiled = tasks(spec)["resolve"]["inputs"]["parameters"]["compiled"]["runtimeValue"]["constant"]
        assert compiled["launcher"] == launcher


def test_a_signal_to_the_whole_pod_reaches_the_command_once(tmp_path: Path) -> None:
    """The second would mean that it is to end at once, with nothing saved."""
    command = tmp_path / "command"
    command.write_text(
        f"#!/bin/sh\ntrap 'echo x >> {tmp_path}/got' TERM\ntouch {tmp_path}/ready\n"
        f"while [ ! -e {tmp_path}/got ]; do sleep 0.05; done\nsleep 0.5\n"
    )
    command.chmod(0o755)
    program = "import sys; from ilab.kubeflow import tasks; sys.executable = sys.argv[1]; tasks._command([])"
    task = subprocess.Popen([sys.executable, "-c", program, str(command)], start_new_session=True)
    while not (tmp_path / "ready").exists():
        assert task.poll() is None
        time.sleep(0.05)
    os.killpg(task.pid, signal.SIGTERM)
    assert task.wait(60) == 0 and (tmp_path / "got").read_text() == "x\n"


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_what_resolve_gives_is_what_the_table_says(environment: Any) -> None:
    from ilab.kubeflow.pods import outputs

    values = {name: one.value for name, one in collect({}, environment).items()}
    then = cluster({**values, "eval_gpu_identifier": "amd.com/gpu"})
    found = outputs(cluster(values), then)
    assert (found["evaluation_gpu"], found["evaluation_gpus"]) == ("amd.com/gpu", "0"), "none of what it was made with"
    assert (found["training_cpu"], found["training_memory"]) == (
        ("4", "120Gi") if environment == "dev" else ("8", "200Gi")
    )
    assert (found["training_gpu"], found["training_gpus"]) == ("nvidia.com/gpu", "2")
    assert (found["task_gpu"], found["task_gpus"], found["task_tolerations"]) == ("", "0", [])
