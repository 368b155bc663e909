"""Both overlays build, every object is valid, and the ConfigMap says what the table of parameters says."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from custom_kinds import SCHEMAS
from deployment import DEPLOY, kubectl

from ilab.cli.app import main
from ilab.core.trust import BUNDLE
from ilab.doctor.deployment import TASKS, Right
from ilab.kubeflow.definition import VOLUME
from ilab.kubeflow.secret_names import MOUNTED, SECRETS, STORAGE, TOKENS
from ilab.parameters import TABLE, collect
from ilab.parameters.files import CONFIG_MAP, read_parameters
from ilab.parameters.infrastructure import cluster
from ilab.training.manifests import SCRAPED
from ilab.training.pods import TOKEN_VARIABLES
from ilab.where import METRICS_PORT

VERSIONS = ("1.28", "1.32", "1.34")
Objects = dict[str, list[dict[str, Any]]]


def check(found: dict[str, Any]) -> None:
    """Raise what is wrong with an object, by the strict schema of its kind."""
    if found["kind"] in SCHEMAS:
        jsonschema.validate(found, SCHEMAS[found["kind"]])
        return
    validator = pytest.importorskip("kubernetes_validate")
    for version in VERSIONS:
        validator.validate(found, version, strict=True)


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_generate", DEPLOY / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_every_object_of_an_overlay_is_valid(built: Objects, environment: str) -> None:
    kinds = [one["kind"] for one in built[environment]]
    assert {"ConfigMap", "CronJob", "NetworkPolicy", "Role", *SCHEMAS} <= set(kinds)
    for one in built[environment]:
        check(one)
        assert "namespace" not in one["metadata"]
    assert "Secret" not in kinds  # none is made from an example


def test_every_file_is_valid(written: Objects) -> None:
    assert any(name.startswith("secrets/") for name in written)
    for one in (one for objects in written.values() for one in objects):
        if one["kind"] == "DataSciencePipelinesApplication":  # the overlays say where objects are stored
            check({**one, "spec": {**one["spec"], "objectStorage": {"minio": {"image": "x"}}}})
        else:
            check(one)


@pytest.mark.parametrize("wrong", ["replicas", "schedul", "timeZone: 3"])
def test_the_check_finds_mistakes(written: Objects, wrong: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    made = written["base/nightly.yaml"][0]
    spec = {**made["spec"], **(yaml.safe_load(wrong) if ":" in wrong else {wrong: 1})}
    with pytest.raises(validator.ValidationError):
        check({**made, "spec": spec})
    rule = written["base/alerts.yaml"][0]
    with pytest.raises(jsonschema.ValidationError):
        check({**rule, "spec": {**rule["spec"], wrong: 1}})


# -- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_config_map_is_the_table(built: Objects, environment: Any) -> None:
    data = named(built[environment], "ConfigMap", CONFIG_MAP)["data"]
    given, default = collect({"ConfigMap": data}, environment), collect({}, environment)
    assert {name: one.value for name, one in given.items()} == {name: one.value for name, one in default.items()}
    assert {one.name for one in TABLE if one.prod is not None} <= set(data)
    assert not {one.name for one in TABLE if one.required} & set(data)


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_literals_are_the_table_also_without_kubectl(environment: Any) -> None:
    files = ("base", f"overlays/{environment}")
    data = {name: text for one in files for name, text in read_parameters(DEPLOY / one / "kustomization.yaml").items()}
    given, default = collect({"files": data}, environment), collect({}, environment)
    assert {name: one.value for name, one in given.items()} == {name: one.value for name, one in default.items()}


def test_what_is_generated_is_fresh(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = [path for path, text in generate.pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == []
    for name in ("base", "overlays/dev", "overlays/prod"):
        (tmp_path / name).mkdir(parents=True)
        text = (DEPLOY / name / "kustomization.yaml").read_text().replace("sdg_batch_size=", "sdg_batch_sice=")
        (tmp_path / name / "kustomization.yaml").write_text(text)
    monkeypatch.setattr(generate, "HERE", tmp_path)
    assert generate.run(["--check"]) == 1
    assert generate.run([]) == 0
    assert generate.run(["--check"]) == 0
    for name in ("base/kustomization.yaml", "overlays/prod/kustomization.yaml", "pipeline-parameters.env"):
        assert (tmp_path / name).read_text() == (DEPLOY / name).read_text()


def test_the_file_of_variables_is_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    assert runner.invoke(main, ["pipeline", "params", "--env-file", "written.env"]).exit_code == 0
    shipped = DEPLOY / "pipeline-parameters.env"
    assert (tmp_path / "written.env").read_text() == shipped.read_text()
    done = runner.invoke(main, ["--json", "pipeline", "params", "--parameters", str(shipped)])
    assert done.exit_code == 0, done.output
    assert {name: one.value for name, one in collect({"file": read_parameters(shipped)}).items()} == {
        name: one.value for name, one in collect({}).items()
    }


def test_the_documented_patch_changes_what_a_run_gets(built: Objects, tmp_path: Path) -> None:
    page = (DEPLOY.parent / "docs/how-to/deploy.md").read_text()
    patches = re.findall(r"oc patch configmap (\S+) .*?-p '(\{.*?\})'", page.replace("\\\n", " "))
    assert patches
    file = tmp_path / "params.yaml"
    for name, patch in patches:
        assert name == CONFIG_MAP
        file.write_text(yaml.safe_dump(named(built["prod"], "ConfigMap", name)))
        before = collect({"map": read_parameters(file)}, "prod")
        changed = kubectl("patch", "--local", "-f", str(file), "--type", "merge", "-p", patch, "-o", "yaml")
        file.write_text(changed)
        after = collect({"map": read_parameters(file)}, "prod")
        different = {key for key in after if after[key].value != before[key].value}
        assert different == set(yaml.safe_load(patch)["data"])
    assert cluster({name: one.value for name, one in after.items()}).trainers == 6


# -- names that belong together ------------------------------------------------------------------------------------


def test_examples_have_the_keys_that_tasks_read(written: Objects) -> None:
    from ilab.kubeflow import definition

    examples = {
        one["metadata"]["name"]: one for name in written if name.startswith("secrets/") for one in written[name]
    }
    default = {name: one.value for name, one in collect({}).items()}
    for parameter, keys in definition.SECRETS.items():
        assert set(keys) <= set(examples[default[parameter]]["stringData"]), parameter
    assert set(definition.STORAGE) <= set(examples["storage-secret"]["stringData"])
    registry = examples[default["output_oci_registry_secret"]]
    assert "auths" in yaml.safe_load(registry["stringData"][".dockerconfigjson"])
    assert all(".example." in name for name in written if name.startswith("secrets/"))


def test_the_bucket_of_prod_has_its_keys_in_the_example(built: Objects, written: Objects) -> None:
    storage = named(built["prod"], "DataSciencePipelinesApplication", "dspa")["spec"]["objectStorage"]
    secret = storage["externalStorage"]["s3CredentialsSecret"]
    example = written["secrets/storage-secret.example.yaml"][0]
    assert secret["secretName"] == example["metadata"]["name"]
    assert {secret["accessKey"], secret["secretKey"]} <= set(example["stringData"])


def rules(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in objects:
        if one["kind"] == "Role":
            yield from one["rules"]


def test_the_doctor_asks_for_the_rights_of_the_role(written: Objects) -> None:
    role = next(one for one in written["base/rbac.yaml"] if (one["kind"], one["metadata"]["name"]) == ("Role", "ilab"))
    granted = {
        Right(verb, group, resource, name)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
    assert granted == set(TASKS)


def test_roles_grant_nothing_wholesale(written: Objects) -> None:
    objects = [one for found in written.values() for one in found]
    assert not [one for one in objects if one["kind"].startswith("Cluster")]
    found = list(rules(objects))
    for rule in found:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not {"secrets", "roles", "rolebindings", "pods/exec"} & set(rule["resources"])
    granted = {(g, r): set(rule["verbs"]) for rule in found for g in rule["apiGroups"] for r in rule["resources"]}
    assert granted["", "configmaps"] == {"get"}
    assert [rule["resourceNames"] for rule in found if rule["resources"] == ["configmaps"]] == [[CONFIG_MAP]]
    for job in (("trainer.kubeflow.org", "trainjobs"), ("kubeflow.org", "pytorchjobs")):
        assert granted[job] == {"create", "delete", "get", "list"}
    assert granted["", "pods/log"] == {"get"}


def test_bindings_and_pods_name_what_is_there(built: Objects) -> None:
    objects = built["prod"]
    roles = {one["metadata"]["name"] for one in objects if one["kind"] == "Role"}
    accounts = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"}
    dspa = next(one for one in objects if one["kind"] == "DataSciencePipelinesApplication")["metadata"]["name"]
    for one in objects:
        if one["kind"] == "RoleBinding":
            assert one["roleRef"]["name"] in roles
            assert {subject["name"] for subject in one["subjects"]} <= {*accounts, f"pipeline-runner-{dspa}"}
    monitor = named(objects, "ServiceMonitor", "ilab")["spec"]
    for end, policy in (("", "tasks"), ("training-", "training"), ("training-v1-", "training-v1")):
        service = named(objects, "Service", f"ilab-{end}metrics")
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
        port = service["spec"]["ports"][0]["targetPort"]
        allowed = [
            one["port"]
            for rule in named(objects, "NetworkPolicy", f"ilab-{policy}")["spec"]["ingress"]
            if "namespaceSelector" in rule["from"][0]
            for one in rule["ports"]
        ]
        assert port == METRICS_PORT and allowed == [port]
        if end:
            assert service["spec"]["selector"][SCRAPED] == "true"
    tasks = named(objects, "NetworkPolicy", "ilab-tasks")["spec"]["podSelector"]["matchLabels"]
    assert tasks == named(objects, "Service", "ilab-metrics")["spec"]["selector"]


def test_the_nightly_build_waits_to_be_wanted_and_types_a_command_that_is_there(built: Objects) -> None:
    for environment in ("dev", "prod"):
        job = named(built[environment], "CronJob", "ilab-nightly")["spec"]
        assert job["suspend"] is True and job["concurrencyPolicy"] == "Forbid"
        pod = job["jobTemplate"]["spec"]["template"]["spec"]
        container = pod["containers"][0]
        variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        secret = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one}
        tasks = {name: key for keys in (*SECRETS.values(), STORAGE) for key, name in keys.items()}
        tasks |= {name: name for name in TOKEN_VARIABLES}
        assert {name: one["key"] for name, one in secret.items()} == tasks, "what tasks know, it knows"
        assert all(one["optional"] for one in secret.values())
        mounts = {one["mountPath"] for one in container["volumeMounts"]}
        assert mounts == {"/tmp", *map(str, (*MOUNTED.values(), TOKENS, BUNDLE))}
        assert variables["STORE"] == {"dev": "", "prod": "s3://instructlab/ilab"}[environment]
        assert pod["serviceAccountName"] == "ilab" and pod["securityContext"]["runAsNonRoot"]
        assert variables["ENVIRONMENT"] == environment
        assert variables["IMAGE"] == container["image"] and ":" in container["image"]
        command: Any = main
        for word in (word for word in container["args"] if not word.startswith("-")):
            command = command.get_command(None, word)
        known = {option for one in command.params for option in one.opts}
        assert {word.partition("=")[0] for word in container["args"] if word.startswith("-")} <= known


def test_the_volume_can_be_added(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    path = tmp_path / "deploy/overlays/dev/kustomization.yaml"
    component = "  - ../../components/image\n"
    path.write_text(path.read_text().replace(component, f"{component}  - ../../components/volume\n"))
    objects = list(yaml.safe_load_all(kubectl("kustomize", str(path.parent))))
    claim = named(objects, "PersistentVolumeClaim", "ilab")
    check(claim)
    job = named(objects, "CronJob", "ilab-nightly")
    check(job)
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert {"name": "CLAIM", "value": "ilab"} in pod["containers"][0]["env"]
    assert {"name": "ilab", "mountPath": VOLUME} in pod["containers"][0]["volumeMounts"]
    assert {"name": "ilab", "persistentVolumeClaim": {"claimName": "ilab"}} in pod["volumes"]
    assert claim["spec"]["storageClassName"] == collect({})["k8s_storage_class_name"].value
