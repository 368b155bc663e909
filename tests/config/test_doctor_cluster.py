"""`ilab doctor --cluster` against an API server over TLS that keeps objects and answers reviews."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.config import load
from ilab.core.kubeconfig import find_account
from ilab.core.kubernetes import Api
from ilab.doctor import Finding, cluster

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
TOKEN = "sesame-of-the-user"
MAP = "/api/v1/namespaces/lab/configmaps/instructlab-pipeline-params"
SECRETS = "/api/v1/namespaces/lab/secrets/"
DSPA = "/apis/datasciencepipelinesapplications.opendatahub.io/v1/namespaces/lab/datasciencepipelinesapplications/dspa"
CLASS = "/apis/storage.k8s.io/v1/storageclasses/"
MODEL = {"data": {"api_token": "aGlkZGVu", "model_name": "eA==", "endpoint": "eA=="}}


class Cluster(ThreadingHTTPServer):
    """Objects by path; ``denied`` are reviews as ``verb resource``; ``codes`` are answers in place of 200."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self.denied: set[str] = set()
        self.codes: dict[str, int] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        self.objects: dict[str, Any] = {
            MAP: {"data": {"train_num_workers": "4"}},
            f"{SECRETS}teacher-secret": MODEL,
            f"{SECRETS}judge-secret": MODEL,
            f"{SECRETS}taxonomy-repo-secret": {"data": {"ssh-privatekey": "eA=="}},
            f"{SECRETS}oci-registry-secret": {"data": {".dockerconfigjson": "eA=="}},
            f"{SECRETS}storage-secret": {"data": {"AWS_ACCESS_KEY_ID": "eA==", "AWS_SECRET_ACCESS_KEY": "eA=="}},
            DSPA: {"status": {**ready, "components": {"apiServer": {"externalUrl": self.url}}}},
            "/apis/v2beta1/healthz": {},
            f"{CLASS}gp3-csi": {"provisioner": "nfs.csi.k8s.io"},
        }

    def handle_error(self, *_: object) -> None:
        """A client that does not trust us goes away."""


class _Handler(BaseHTTPRequestHandler):
    server: Cluster

    def _answer(self, code: int, found: Any) -> None:
        body = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _known(self) -> bool:
        certificate = self.connection.getpeercert()  # type: ignore[attr-defined]
        if self.headers.get("Authorization") == f"Bearer {TOKEN}" or certificate:
            return True
        self._answer(401, {"message": "Unauthorized"})
        return False

    def do_GET(self) -> None:
        if not self._known():
            return
        found = self.server.objects.get(self.path)
        code = self.server.codes.get(self.path, 404 if found is None else 200)
        self._answer(code, found if code == 200 else {"message": "no"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._known():
            return
        if code := self.server.codes.get(self.path):
            self._answer(code, {})
            return
        assert body["apiVersion"] == "authorization.k8s.io/v1"
        assert self.path.rpartition("/")[2] == f"{body['kind'].lower()}s"
        self.server.asked.append((body["kind"], body["spec"]))
        asked = body["spec"]["resourceAttributes"]
        kind = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        allowed = f"{asked['verb']} {kind}" not in self.server.denied
        self._answer(201, {**body, "status": {"allowed": allowed}})

    def log_message(self, *_: object) -> None: ...


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl(folder, *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    name = ["-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1"]
    openssl(folder, *new, *signed, *name, "-keyout", "server.key", "-out", "server.pem")
    openssl(folder, *new, *signed, "-subj", "/CN=me", "-keyout", "client.key", "-out", "client.pem")
    return folder


@pytest.fixture
def server(certificates: Path) -> Iterator[Cluster]:
    made = Cluster(certificates)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def kubeconfig(server: Cluster, certificates: Path, user: dict[str, Any] | None = None) -> dict[str, Any]:
    ca = base64.b64encode((certificates / "ca.pem").read_bytes()).decode()
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url, "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": user or {"token": TOKEN}}],
    }


@pytest.fixture
def config(server: Cluster, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig(server, certificates)))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def look(folder: Path, *sets: str) -> dict[str, Finding]:
    found = {one.name: one for one in cluster.look(load(folder, sets=sets))}
    for one in found.values():
        assert one.found and (one.state == "ok" or (one.fix and one.needed_for)), one
        assert TOKEN not in f"{one.found}{one.fix}" and "hidden" not in f"{one.found}{one.fix}"
    return found


def test_a_volume_for_several_machines_is_no_block_storage(server: Cluster, config: Path, tmp_path: Path) -> None:
    server.objects[f"{CLASS}gp3-csi"] = {"provisioner": "ebs.csi.aws.com"}
    found = look(tmp_path, "where.kubeflow.access_mode=ReadWriteMany")
    assert (found["training workers"].state, found["training workers"].found) == ("ok", "4")
    assert found["storage class"].state == "bad" and "stays pending" in found["storage class"].found


def test_a_namespace_in_order(server: Cluster, config: Path, tmp_path: Path) -> None:
    found = look(tmp_path, "where.train.launcher=TrainJob", "where.kubeflow.access_mode=ReadWriteMany")
    found.pop("cluster")  # whether kubectl is installed here
    assert {one.state for one in found.values()} == {"ok"}, found
    assert found["cluster context"].found == f"here at {server.url}, namespace lab"
    assert "create trainjobs.trainer.kubeflow.org" in found["cluster rights"].found
    assert found["pipeline server"].found == server.url
    accounts = {spec["user"] for kind, spec in server.asked if kind == "LocalSubjectAccessReview"}
    assert accounts == {"system:serviceaccount:lab:pipeline-runner-dspa"}
    parts = [spec["resourceAttributes"] for _, spec in server.asked]
    assert {"namespace": "lab", "verb": "get", "group": "", "resource": "pods", "subresource": "log"} in parts


@pytest.mark.parametrize(
    ("path", "value", "name", "state", "text", "fix"),
    [
        (MAP, None, "parameters", "bad", "there is no ConfigMap", "make deploy-dev NAMESPACE=lab"),
        (MAP, {"data": {"train_num_workerz": "4"}}, "parameters", "bad", "unknown parameter", '{"data": {"train_num_workerz": null}}'),
        (MAP, {"data": {"train_num_workers": "-1"}}, "parameters", "bad", "out of range", '{"data": {"train_num_workers": null}}'),
        (MAP, 403, "parameters", "note", "403", "kubectl auth can-i get configmaps/"),
        (f"{SECRETS}teacher-secret", None, "secret of teacher", "note", "no Secret teacher-secret", "oc create secret generic teacher-secret -n lab"),
        (f"{SECRETS}judge-secret", {"data": {"token": ""}}, "secret of judge", "bad", "judge-secret has token", "oc delete secret judge-secret"),
        (f"{SECRETS}taxonomy-repo-secret", {"data": {"username": ""}}, "secret of taxonomy", "bad", "has username", "basic-auth"),
        (f"{SECRETS}oci-registry-secret", 403, "secret of registry", "note", "403", "kubectl get secret"),
        (f"{SECRETS}oci-registry-secret", None, "secret of registry", "note", "no Secret oci-registry-secret", "--from-file=.dockerconfigjson=auth.json"),
        (f"{SECRETS}storage-secret", None, "secret of storage", "note", "no Secret storage-secret", "--from-literal=AWS_SECRET_ACCESS_KEY=…"),
        (f"{SECRETS}storage-secret", {"data": {"AWS_ACCESS_KEY_ID": ""}}, "secret of storage", "bad", "has AWS_ACCESS_KEY_ID", "oc delete secret storage-secret"),
        (MAP, {"data": {"train_num_workers": "x", "SDG_TYPO": "1"}}, "parameters", "bad", "unknown parameter", '{"data": {"train_num_workers": null, "SDG_TYPO": null}}'),
        (DSPA, None, "pipeline server", "bad", "there is none in lab", "make deploy-dev"),
        (DSPA, {"status": {"conditions": [{"type": "Ready", "status": "False", "message": "no storage"}]}}, "pipeline server", "bad", "not ready: no storage", "kubectl describe"),
        (DSPA, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "pipeline server", "ok", "from inside", ""),
        (DSPA, {}, "pipeline server", "bad", "says nothing", "kubectl describe"),
        ("/apis/v2beta1/healthz", 403, "pipeline server", "bad", "does not know you", "oc whoami"),
        ("/apis/v2beta1/healthz", 503, "pipeline server", "bad", "answered 503", "kubectl logs"),
        (f"{CLASS}gp3-csi", None, "storage class", "bad", "the cluster has no gp3-csi", "k8s_storage_class_name"),
        (f"{CLASS}gp3-csi", 403, "storage class", "note", "403", "kubectl get storageclass gp3-csi"),
        (f"{CLASS}gp3-csi", {"provisioner": "ebs.csi.aws.com"}, "storage class", "ok", "gp3-csi", ""),
        (MAP, {"data": {"train_num_workers": "6"}}, "training workers", "bad", "6 workers", "--access-mode ReadWriteMany"),
        (MAP, {"data": {"train_num_workers": "4"}}, "training workers", "note", "one machine trains", "--access-mode"),
        (MAP, {"data": {"ilab.yaml": "where: {web: {timeout: 5}}"}}, "parameters", "ok", "and ilab.yaml", ""),
        (MAP, {"data": {"ilab.yaml": "where:\n  webb: {}"}}, "parameters", "bad", "ilab.yaml:2: unknown setting 'where.webb'", "oc set data"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_the_line_to_type(
    server: Cluster, config: Path, tmp_path: Path, path: str, value: Any, name: str, state: str, text: str, fix: str
) -> None:
    if isinstance(value, int):
        server.codes[path] = value
    else:
        server.objects[path] = value
    before = copy.deepcopy(server.objects)
    found = look(tmp_path)[name]
    assert (found.state, text in found.found, fix in found.fix) == (state, True, True), found
    assert server.objects == before


def test_names_in_the_config_map_are_the_names_that_are_looked_for(
    server: Cluster, config: Path, tmp_path: Path
) -> None:
    server.objects[MAP] = {
        "data": {"sdg_teacher_secret": "mixtral", "eval_judge_secret": "", "k8s_storage_class_name": ""}
    }
    found = look(tmp_path)
    assert "no Secret mixtral" in found["secret of teacher"].found
    assert (found["secret of judge"].state, found["storage class"].state) == ("ok", "ok")


def test_the_namespace_and_the_context_of_the_pipeline_go_before(
    server: Cluster, certificates: Path, config: Path, tmp_path: Path
) -> None:
    other = kubeconfig(server, certificates)
    other["contexts"].append({"name": "away", "context": {"cluster": "c", "user": "u", "namespace": "far"}})
    config.write_text(yaml.safe_dump(other))
    assert look(tmp_path, "where.kubeflow.context=away")["cluster context"].found.endswith("namespace far")
    found = look(tmp_path, "where.kubeflow.namespace=models", "where.train.kubernetes.namespace=lab")
    assert "in models" in found["parameters"].found
    assert look(tmp_path, "where.train.kubernetes.namespace=lab")["parameters"].state == "ok"


def test_rights(server: Cluster, config: Path, tmp_path: Path) -> None:
    server.denied = {"create pytorchjobs", "get pods/log"}
    found = look(tmp_path, "where.train.launcher=PyTorchJob")
    assert found["cluster rights"].state == "bad"
    assert "kubectl auth can-i create pytorchjobs.kubeflow.org --namespace lab" in found["cluster rights"].fix
    assert found["rights of tasks"].state == "bad"
    assert found["rights of tasks"].found.endswith("may not create pytorchjobs.kubeflow.org, get pods/log")
    server.codes["/apis/authorization.k8s.io/v1/namespaces/lab/localsubjectaccessreviews"] = 403
    assert look(tmp_path)["rights of tasks"].state == "note"
    server.codes["/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"] = 500
    assert "answered 500" in look(tmp_path)["cluster rights"].found


def test_a_token_that_ran_out_and_a_server_that_is_not_trusted(
    server: Cluster, certificates: Path, config: Path, tmp_path: Path
) -> None:
    config.write_text(yaml.safe_dump(kubeconfig(server, certificates, {"token": "old"})))
    found = look(tmp_path)
    assert "counts no more" in found["cluster rights"].found and "storage class" not in found
    other = kubeconfig(server, certificates)
    del other["clusters"][0]["cluster"]["certificate-authority-data"]
    config.write_text(yaml.safe_dump(other))
    refused = look(tmp_path)["cluster rights"]
    assert refused.state == "bad" and "cannot be reached" in refused.found
    other["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    config.write_text(yaml.safe_dump(other))
    assert look(tmp_path)["cluster rights"].state == "ok"


def test_in_a_pod_it_asks_as_the_pods_account(server: Cluster, certificates: Path, tmp_path: Path) -> None:
    for name, text in (("token", TOKEN), ("namespace", "lab"), ("ca.crt", (certificates / "ca.pem").read_text())):
        (tmp_path / name).write_text(text)
    port = str(server.server_address[1])
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port, "KUBECONFIG": "/nowhere"}
    found = find_account(pod=tmp_path, environ=environ)
    with Api(found) as api:
        assert (found.namespace, api.answer("GET", MAP)[0]) == ("lab", 200)
    with Api(found.beside(server.url)) as api:
        assert api.answer("GET", "/apis/v2beta1/healthz")[0] == 200
