"""The way to a cluster: a pod's account, kubeconfig files, certificates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from cluster_stub import TOKEN, Stub, certificates

from ilab.config import TrainWhere
from ilab.core.kubeconfig import find_account
from ilab.core.kubernetes import Api
from ilab.errors import InputError, ServiceError, SetupError
from ilab.training.relay import like_this_pod, must_be_shared

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


def test_a_pods_account_is_found_and_its_token_read_anew(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SetupError, match="no cluster is known"):
        find_account(pod=tmp_path)
    host, _, port = stub.address.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setenv("HOSTNAME", "task-1")
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    with pytest.raises(SetupError, match="the pod's account cannot be read"):
        find_account(pod=tmp_path)
    (tmp_path / "namespace").write_text("team")
    shutil.copy(stub.folder / "server.pem", tmp_path / "ca.crt")
    (tmp_path / "token").write_text("outdated\n")
    stub.jobs["j"] = {"metadata": {"name": "j"}, "plural": "trainjobs"}
    stub.pod("task-1", "Running")
    stub.pods[0]["spec"] = {
        "containers": [
            {"name": "wait", "image": "argo"},
            {"name": "main", "image": "team/ilab:2", "volumeMounts": [
                {"name": "space", "mountPath": "/ilab"},
                {"name": "space", "mountPath": "/part", "subPath": "part"},
                {"name": "token", "mountPath": "/var/run"},
                {"name": "ilab-own", "mountPath": "/own"},
            ]},
        ],
        "volumes": [
            {"name": "space", "persistentVolumeClaim": {"claimName": "run-1"}},
            {"name": "token", "projected": {}},
            {"name": "ilab-own", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}},
        ],
        "imagePullSecrets": [{"name": "quay"}],
    }  # fmt: skip
    with Api(find_account(pod=tmp_path)) as api:
        with pytest.raises(ServiceError, match="Unauthorized"):
            api.get("/api/v1/namespaces/team/pods/task-1")
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        found = like_this_pod(api, TrainWhere()).kubernetes
        must_be_shared(api, Path("/ilab/store/train/key.partial"), found.volumes)
        must_be_shared(api, Path("/own/train"), {"mine": "/own"})
        must_be_shared(api, Path("/elsewhere"), {})
        with pytest.raises(InputError, match="ilab-own, a volume of this pod alone") as alone:
            must_be_shared(api, Path("/own/cache/stores/x/train/key.partial"), found.volumes)
        assert "--access-mode ReadWriteMany" in alone.value.hint
    assert (found.image, found.volumes, found.image_pull_secrets) == ("team/ilab:2", {"run-1": "/ilab"}, ("quay",))
    assert TOKEN not in repr(api.account)


def test_kubeconfigs_that_cannot_be_used_say_why(stub: Stub, tmp_path: Path) -> None:
    for user, said in (({"exec": {"command": "aws"}}, "exec of the context"), ({"username": "u"}, "not supported")):
        with pytest.raises(SetupError, match=said) as caught:
            find_account(str(stub.kubeconfig(**user)))
        assert "kubectl create token" in caught.value.hint
    (stub.folder / "token").write_text(TOKEN)
    assert find_account(str(stub.kubeconfig(tokenFile="token"))).bearer() == TOKEN
    certified = {"client-certificate": "server.pem", "client-key": "server.key"}
    find_account(str(stub.kubeconfig(**certified)))
    for path, text, said in (
        (tmp_path / "none", None, "cannot be read"),
        (tmp_path / "list", "[]", "is no kubeconfig"),
        (tmp_path / "empty", "{}", "there is no context ''"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(SetupError, match=said):
            find_account(str(path))
    plain = yaml.safe_load(stub.kubeconfig().read_text())
    plain["clusters"][0]["cluster"]["server"] = "http://cluster.example"
    (tmp_path / "plain").write_text(yaml.safe_dump(plain))
    with pytest.raises(SetupError, match="no https address"):  # a token is not sent in the clear
        find_account(str(tmp_path / "plain"))


def test_a_server_with_another_certificate_gets_no_token(stub: Stub, tmp_path: Path) -> None:
    certificates(tmp_path)
    other = Stub(tmp_path)
    other.address = stub.address
    with Api(find_account(str(other.kubeconfig()))) as api, pytest.raises(ServiceError, match="CERTIFICATE_VERIFY"):
        api.get("/api/v1/namespaces/team/pods")
    assert not stub.asked
