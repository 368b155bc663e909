"""What ``deploy/`` puts into a namespace, and what runs need there: parameters, Secrets, rights, server, storage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ilab.config_where import KubeflowWhere
from ilab.core.kubernetes import Api
from ilab.doctor.finding import Finding
from ilab.errors import IlabError, InputError, InputErrors, ServiceError
from ilab.kubeflow.settings import parsed, read_document
from ilab.kubeflow.volume import HOW, SEVERAL, machines
from ilab.parameters import collect
from ilab.parameters.files import CONFIG_MAP, SETTINGS_KEY
from ilab.parameters.infrastructure import cluster

NEEDED = "pipeline submit"
DSPA, DSPA_GROUP = "dspa", "datasciencepipelinesapplications.opendatahub.io"
RUNNER = f"pipeline-runner-{DSPA}"  # the account that tasks run as
APPLY = "make deploy-dev NAMESPACE={}   or deploy-prod"
EXPIRED = "the token counts no more"
MODEL_KEYS = ("api_token", "model_name", "endpoint")
STORED = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})
STORAGE_SETTING = "where.kubeflow.storage_secret"
FOR_ONE = ("ebs.csi.aws.com", "disk.csi.azure.com", "pd.csi.storage.gke.io", "csi.vsphere.vmware.com")


@dataclass(frozen=True)
class Right:
    """To do ``verb`` with a kind of object, or with the one of that ``name``."""

    verb: str
    group: str
    resource: str
    name: str = ""

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {kind}{f'/{self.name}' if self.name else ''}"

    def attributes(self, namespace: str) -> dict[str, str]:
        """As the API wants it: a part of a kind (``pods/log``) stands in a field of its own."""
        resource, _, part = self.resource.partition("/")
        given = {"namespace": namespace, "verb": self.verb, "group": self.group, "resource": resource}
        return {**given, **({"subresource": part} if part else {}), **({"name": self.name} if self.name else {})}


FOLLOWED = ("create", "delete", "get", "list")
TASKS: tuple[Right, ...] = (  # the Role `ilab`
    Right("get", "", "configmaps", CONFIG_MAP),
    *(Right(verb, "trainer.kubeflow.org", "trainjobs") for verb in FOLLOWED),
    *(Right(verb, "kubeflow.org", "pytorchjobs") for verb in FOLLOWED),
    *(Right(verb, "", "pods") for verb in ("get", "list")),
    Right("get", "", "pods/log"),
    Right("list", "", "events"),
)


def look(api: Api, namespace: str, place: KubeflowWhere, more: tuple[Right, ...] = ()) -> Iterator[Finding]:
    """All of it, in the order in which it is put there. ``place`` says how runs are made, ``more`` are rights that the
    user needs. Changes nothing."""
    mode = place.access_mode
    try:
        first = _my_rights(api, namespace, (TASKS[0], *more))
        yield first
        if first.found == EXPIRED:  # nothing else would be answered
            return
        data, finding = _parameters(api, namespace)
        yield finding
        values = {name: one.value for name, one in collect(_layers(data)).items()}
        yield from _secrets(api, namespace, {**values, STORAGE_SETTING: place.storage_secret})
        yield _tasks_rights(api, namespace)
        yield _server(api, namespace)
        yield _storage(api, values, mode)
        yield _machines(values, mode)
    except ServiceError as error:
        yield Finding("cluster rights", "bad", error.message, NEEDED, "kubectl cluster-info")


def _layers(data: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    try:
        collect({"ConfigMap": data})
    except IlabError:  # told already
        return {}
    return {"ConfigMap": data}


def _denied(api: Api, kind: str, spec: Mapping[str, Any], rights: tuple[Right, ...], namespace: str) -> list[str]:
    """Those of ``rights`` that the server denies. Raises PermissionError where it will not say."""
    missing = []
    place = f"/namespaces/{namespace}" if kind.startswith("Local") else ""
    for right in rights:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": kind,
            "metadata": {"namespace": namespace} if place else {},
            "spec": {**spec, "resourceAttributes": right.attributes(namespace)},
        }
        status, found = api.answer("POST", f"/apis/authorization.k8s.io/v1{place}/{kind.lower()}s", review)
        if status not in (200, 201):
            raise PermissionError(status)
        if not found.get("status", {}).get("allowed"):
            missing.append(str(right))
    return missing


def _my_rights(api: Api, namespace: str, mine: tuple[Right, ...]) -> Finding:
    name = "cluster rights"
    try:
        missing = _denied(api, "SelfSubjectAccessReview", {}, mine, namespace)
    except PermissionError as error:
        if error.args[0] == 401:
            return Finding(name, "bad", EXPIRED, NEEDED, "oc login URL   or renew the kubeconfig")
        return Finding(name, "bad", f"the cluster answered {error.args[0]}", NEEDED, "kubectl cluster-info")
    if missing:
        fix = f"ask whoever runs the cluster; to look again: kubectl auth can-i {missing[0]} --namespace {namespace}"
        return Finding(name, "bad", f"you may not {', '.join(missing)} in {namespace}", NEEDED, fix)
    return Finding(name, "ok", f"you may {', '.join(map(str, mine))} in {namespace}")


def _tasks_rights(api: Api, namespace: str) -> Finding:
    name, fix = "rights of tasks", APPLY.format(namespace)
    spec = {"user": f"system:serviceaccount:{namespace}:{RUNNER}"}
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    try:
        missing = _denied(api, "LocalSubjectAccessReview", {**spec, "groups": groups}, TASKS, namespace)
    except PermissionError:
        told = "you may not ask what others may do; a task that lacks a right says so in its log"
        fix = f"kubectl get rolebinding ilab --namespace {namespace}"
        return Finding(name, "note", told, NEEDED, fix)
    if missing:
        return Finding(name, "bad", f"{RUNNER} may not {', '.join(missing)}", NEEDED, fix)
    return Finding(name, "ok", f"{RUNNER} may do what tasks do")


def _parameters(api: Api, namespace: str) -> tuple[dict[str, str], Finding]:
    """The ConfigMap's data, empty where it is not there, and whether it is in order."""
    name = "parameters"
    status, found = api.answer("GET", f"/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}")
    if status == 404:
        told = f"there is no ConfigMap {CONFIG_MAP} in {namespace}: runs take the defaults"
        return {}, Finding(name, "bad", told, NEEDED, APPLY.format(namespace))
    if status != 200:
        fix = f"kubectl auth can-i get configmaps/{CONFIG_MAP} --namespace {namespace}"
        return {}, Finding(name, "note", f"it cannot be read: the cluster answered {status}", NEEDED, fix)
    data = {str(key).lower(): str(value) for key, value in (found.get("data") or {}).items()}
    settings = data.pop(SETTINGS_KEY, "")
    try:
        collect({f"ConfigMap {CONFIG_MAP}": data})
    except IlabError as error:
        wrong = error.errors if isinstance(error, InputErrors) else [error]
        keys = [key for key in found["data"] if any(_is_about(one, str(key).lower()) for one in wrong)]
        patch = json.dumps({"data": dict.fromkeys(keys or ["NAME"])})
        told = "; ".join(f"{one.where}: {one.message}" for one in wrong)
        fix = f"oc patch configmap {CONFIG_MAP} -n {namespace} --type merge -p '{patch}'   takes it out"
        return data, Finding(name, "bad", told, NEEDED, fix)
    try:
        parsed(read_document(settings, CONFIG_MAP))
    except IlabError as error:
        fix = f"oc set data configmap/{CONFIG_MAP} -n {namespace} --from-file={SETTINGS_KEY}=FILE"
        told = "; ".join(f"{one.where}: {one.message}" for one in getattr(error, "errors", [error]))
        return data, Finding(name, "bad", told, NEEDED, fix)
    beside = f", and {SETTINGS_KEY}" if settings else ""
    return data, Finding(name, "ok", f"{len(data)} in the ConfigMap {CONFIG_MAP}{beside}")


def _is_about(error: IlabError, key: str) -> bool:
    return (error.where or "").rpartition(": ")[2] == key or f"'{key}'" in error.message


def _secrets(api: Api, namespace: str, values: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether each Secret is there, with its keys. Values are not kept, and never shown."""
    literal = " ".join(f"--from-literal={key}=…" for key in MODEL_KEYS[1:])
    model = f"oc create secret generic {{}} -n {namespace} {literal} --from-file=api_token=FILE"
    login = "podman login --authfile auth.json REGISTRY; "
    registry = f"{login}oc create secret docker-registry {{}} -n {namespace} --from-file=.dockerconfigjson=auth.json"
    literals = " ".join(f"--from-literal={key}=…" for key in sorted(STORED))
    storage = f"oc create secret generic {{}} -n {namespace} {literals} --from-literal=AWS_S3_ENDPOINT=…"
    git = f"oc create secret generic {{}} -n {namespace} --type=kubernetes.io/basic-auth --from-literal=username=… …"

    def of_git(keys: set[str]) -> bool:
        return {"username", "password"} <= keys or "ssh-privatekey" in keys

    def of_models(keys: set[str]) -> bool:
        return set(MODEL_KEYS) <= keys

    def of_registry(keys: set[str]) -> bool:
        return bool({".dockerconfigjson", ".dockercfg", "config.json"} & keys)

    buckets = "base models and stores at s3://, and the pipeline server of the prod overlay"
    wanted: tuple[tuple[str, str, Callable[[set[str]], bool], str, str], ...] = (
        ("teacher", "sdg_teacher_secret", of_models, "data generation by a teacher", model),
        ("judge", "eval_judge_secret", of_models, "answers marked by a judge", model),
        ("taxonomy", "sdg_repo_secret", of_git, "a private taxonomy", git),
        ("registry", "output_oci_registry_secret", of_registry, "pushing the model", registry),
        ("storage", STORAGE_SETTING, STORED.issubset, buckets, storage),
    )
    for title, parameter, complete, needed, line in wanted:
        secret, name = values[parameter], f"secret of {title}"
        if not secret:
            yield Finding(name, "ok", f"none: {parameter} is empty")
            continue
        status, found = api.answer("GET", f"/api/v1/namespaces/{namespace}/secrets/{secret}")
        keys = {str(key) for key in found.get("data") or {}} if status == 200 else set()
        if status == 404:
            yield Finding(name, "note", f"there is no Secret {secret} in {namespace}", needed, line.format(secret))
        elif status != 200:
            fix = f"kubectl get secret {secret} --namespace {namespace}"
            yield Finding(name, "note", f"{secret} cannot be read: the cluster answered {status}", needed, fix)
        elif not complete(keys):
            fix = f"oc delete secret {secret} -n {namespace}; {line.format(secret)}"
            yield Finding(name, "bad", f"{secret} has {', '.join(sorted(keys)) or 'no keys'}", needed, fix)
        else:
            yield Finding(name, "ok", secret)


def _server(api: Api, namespace: str) -> Finding:
    """Whether the pipeline server is there, ready, and answers."""
    name = "pipeline server"
    path = f"/apis/{DSPA_GROUP}/v1/namespaces/{namespace}/datasciencepipelinesapplications/{DSPA}"
    status, found = api.answer("GET", path)
    if status == 404:
        return Finding(name, "bad", f"there is none in {namespace}", NEEDED, APPLY.format(namespace))
    if status != 200:
        fix = f"kubectl get datasciencepipelinesapplications --namespace {namespace}"
        return Finding(name, "note", f"it cannot be looked at: the cluster answered {status}", NEEDED, fix)
    told = found.get("status") or {}
    ready: dict[str, Any] = next((one for one in told.get("conditions") or [] if one.get("type") == "Ready"), {})
    if ready.get("status") != "True":
        why = str(ready.get("message") or "its operator says nothing of it yet")
        fix = f"kubectl describe datasciencepipelinesapplications {DSPA} --namespace {namespace}"
        return Finding(name, "bad", f"not ready: {why}", NEEDED, fix)
    url = str(((told.get("components") or {}).get("apiServer") or {}).get("externalUrl") or "")
    if not url.startswith("https://"):
        return Finding(name, "ok", f"{DSPA} is ready; reached from inside of the cluster only")
    try:
        with Api(api.account.beside(url)) as server:
            status, _ = server.answer("GET", "/apis/v2beta1/healthz")
    except ServiceError as error:
        fix = f"curl -v {url}/apis/v2beta1/healthz"
        return Finding(name, "bad", f"{url}: {error.message}", NEEDED, fix)
    if status in (401, 403):
        fix = "oc whoami   and ask for the role `edit` in the project"
        return Finding(name, "bad", f"{url} does not know you, or not as one who may", NEEDED, fix)
    if status != 200:
        fix = f"kubectl logs deployment/ds-pipeline-{DSPA} --namespace {namespace}"
        return Finding(name, "bad", f"{url} answered {status}", NEEDED, fix)
    return Finding(name, "ok", url)


def _storage(api: Api, values: Mapping[str, Any], mode: str) -> Finding:
    """Whether the storage class of volumes is there, and gives a volume as it is wanted."""
    name, wanted = "storage class", values["k8s_storage_class_name"]
    if not wanted:
        return Finding(name, "ok", "the cluster's own default")
    status, found = api.answer("GET", f"/apis/storage.k8s.io/v1/storageclasses/{wanted}")
    patch = json.dumps({"data": {"k8s_storage_class_name": "NAME"}})
    fix = f"kubectl get storageclass   then: oc patch configmap {CONFIG_MAP} --type merge -p '{patch}'"
    if status == 404:
        return Finding(name, "bad", f"the cluster has no {wanted}", NEEDED, fix)
    if status != 200:
        told = f"{wanted} cannot be looked at: the cluster answered {status}"
        return Finding(name, "note", told, NEEDED, f"kubectl get storageclass {wanted}")
    if found.get("provisioner") in FOR_ONE and mode == SEVERAL:
        told = f"{wanted} gives a volume to one machine at a time: one for several ({mode}) stays pending"
        return Finding(name, "bad", told, NEEDED, fix)
    return Finding(name, "ok", wanted)


def _machines(values: Mapping[str, Any], mode: str) -> Finding:
    """Whether as many machines can train as shall."""
    name = "training workers"
    try:
        asked, note = machines(cluster(values), mode == SEVERAL)
    except InputError as error:
        return Finding(name, "bad", error.message, NEEDED, error.hint)
    if note:
        return Finding(name, "note", note, "training on several machines", HOW)
    return Finding(name, "ok", str(asked.trainers))
