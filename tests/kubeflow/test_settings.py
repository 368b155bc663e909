"""The settings of a namespace, and its certificates: read in a task, checked as a file's, reached by every client."""

from __future__ import annotations

import functools
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from on_kubeflow import shipped

from ilab.artifacts import Checkpoint
from ilab.core import trust
from ilab.core.store import Store, digest_file
from ilab.errors import InputError
from ilab.kubeflow import tasks
from ilab.kubeflow.configmap import Live
from ilab.kubeflow.definition import defaults, definition
from ilab.kubeflow.secret_names import SECRETS
from ilab.kubeflow.settings import parsed, read_document, where_of_run
from ilab.parameters import collect
from ilab.training.tiny import TinySpec, make_tiny

CONFIG_MAP = "instructlab-pipeline-params"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
DOCUMENT = """\
where:
  s3_endpoint: https://s3.inside
  documents: {mirrors: {"https://git.example/docs.git": "https://git.inside/docs.git"}}
  package: {model_registry: "https://registry.inside", model_registry_token: "file:/var/run/ilab/tokens/registry"}
  train: {report_to: [mlflow], mlflow_uri: "https://mlflow.inside", launcher: PyTorchJob}
  store: /elsewhere
  monitoring: {stuck_minutes: 5}
"""
CLIENTS = """
import asyncio, sys, subprocess, urllib.request
import aiohttp, boto3, httpx2, requests
from ilab.core.transport import trust
url, out = sys.argv[1:]
got = {"httpx": httpx2.get(url + "/bucket/key", verify=trust(None)).text, "requests": requests.get(url + "/bucket/key").text}
got["urllib"] = urllib.request.urlopen(url + "/bucket/key").read().decode()
keys = dict(aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1")
got["boto3"] = boto3.client("s3", endpoint_url=url, **keys).get_object(Bucket="bucket", Key="key")["Body"].read().decode()
async def ask():
    async with aiohttp.ClientSession() as session, session.get(url + "/bucket/key") as answer:
        return await answer.text()
got["aiohttp"] = asyncio.run(ask())
told = subprocess.run(["git", "ls-remote", url + "/repository.git"], capture_output=True, text=True, check=True)
got["git"] = "reached" if "refs/heads" in told.stdout else told.stdout
open(out, "w").write(repr(sorted(name for name, text in got.items() if text == "reached")))
"""


@pytest.fixture
def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``resolve`` as a pod runs it, with this live ConfigMap; returns the settings that it writes."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    pipeline = shipped("quickstart")
    values = defaults({name: one.value for name, one in collect({"file": pipeline.parameters}).items()})
    fixed = {name: values[name] for name in (*tasks.FIXED, *tasks.SHAPES)}
    root, store = str(tmp_path / "root"), str(tmp_path / "store")

    def run(
        settings: str, several: bool = False, store: str = store, filled: Mapping[str, Any] | None = None, **live: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        monkeypatch.setattr(tasks, "read_live", lambda name: Live(live, settings=settings))
        compiled = tasks.Compiled(
            definition(pipeline), "dev", values, CONFIG_MAP, root, "a-run", store, fixed=fixed, several=several
        )
        form = {**values, "sdg_repo_url": str(EXAMPLE), **(filled or {})}
        found = tasks.resolve(form, compiled, tmp_path / "plan")
        return found, yaml.safe_load((tmp_path / "plan" / "ilab.yaml").read_text())

    return run


def test_the_documents_settings_lie_under_the_runs_own(resolved: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found, settings = resolved(DOCUMENT, sdg_teacher_secret="", train_num_workers="1")
    where = settings["where"]
    assert where["s3_endpoint"] == "https://s3.inside" and where["documents"]["mirrors"]
    assert where["package"]["model_registry_token"] == "file:/var/run/ilab/tokens/registry", "a reference, no token"
    assert where["store"].endswith("/store"), "what the run sets goes before it"
    assert where["monitoring"] == {"stuck_minutes": 5, **tasks.METRICS}
    assert where["train"] == {
        "report_to": ["mlflow"], "mlflow_uri": "https://mlflow.inside", "launcher": "here", "processes": 2,
    }  # fmt: skip
    assert (found["sdg_teacher_secret"], found["eval_judge_secret"]) == ("no-sdg-teacher-secret", "judge-secret")
    _, settings = resolved(DOCUMENT, several=True, train_num_workers="3")
    train = settings["where"]["train"]
    assert (train["launcher"], train["nodes"], train["submit"]) == ("PyTorchJob", 3, True), "the document's kind of job"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("where:\n  web: {}\n  documentz: {}\n", "ilab.yaml:3: unknown setting 'where.documentz'\n  did you mean 'documents'?"),
        ("where: {package: {model_registry_token: s3cret}}\n", "where.package.model_registry_token: a key is given by reference"),
        ("where: {}\nparameters: {sdg_scale_factor: 3}\n", "ilab.yaml:2: only `where` is read here, not 'parameters'"),
        ("where: {web: [}\n", "ilab.yaml:1: cannot be read"),
        ("where: {teacher: {in_flight: 3}}\n", "where.teacher.url is needed"),
    ],
)  # fmt: skip
def test_a_wrong_document_ends_the_run_with_its_line(resolved: Any, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        resolved(text)
    assert said in str(caught.value) and "s3cret" not in str(caught.value)
    assert str(caught.value).startswith(f"ConfigMap {CONFIG_MAP}: ilab.yaml:")


def test_a_secrets_server_keeps_the_documents_other_settings() -> None:
    document = read_document(
        "where: {teacher: {in_flight: 3, ca_file: /ca}, judge: {url: 'http://a/v1', model: m}}", "map"
    )
    mine = {"teacher": {"url": "https://t/v1", "model": "t", "api_key": "env:T"}, "judge": {"url": "https://j/v1"}}
    where = where_of_run(document, mine)
    assert where["teacher"] == {
        "in_flight": 3,
        "ca_file": "/ca",
        "url": "https://t/v1",
        "model": "t",
        "api_key": "env:T",
    }
    assert where["judge"] == {"url": "https://j/v1"}, "nothing that was meant for one server goes to another"
    alone = parsed(document)  # of the last task and the doctor, which have no Secrets
    assert alone.teacher is not None and alone.teacher.pending and alone.teacher.in_flight == 3
    with pytest.raises(InputError, match=r"unknown setting 'where\.judge\.inflight'"):
        parsed(read_document("where: {judge: {inflight: 3}}", "map"))


def test_one_machine_trains_on_a_volume_for_one(resolved: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, settings = resolved("", train_num_workers="4")
    assert settings["where"]["train"] == {"launcher": "here", "processes": 2}
    assert settings["parameters"]["train_num_workers"] == 4, "the samples of an update are those of four"
    assert "one machine trains" in capsys.readouterr().out
    with pytest.raises(InputError, match="6 workers"):
        resolved("", train_num_workers="6")


def test_what_a_run_makes_is_nothing_left_over_for_gc(resolved: Any, tmp_path: Path) -> None:
    """Whoever collects garbage keeps what plans in the store's runs stand on; the next run's takes the place of this."""
    for _ in range(2):
        resolved("")
    noted = [json.loads(path.read_text()) for path in sorted((tmp_path / "store/runs").glob("*/plan.json"))]
    assert [one["project"] for one in noted] == [f"kubeflow: {EXAMPLE} instructlab-model"] * 2
    assert noted[0]["plan"]["steps"] == json.loads((tmp_path / "plan/plan.json").read_text())["steps"]


def test_a_plan_in_a_shared_store_holds_no_password_and_need_be_none(resolved: Any, tmp_path: Path) -> None:
    from ilab import actions
    from ilab.core.store import Store
    from ilab.parameters import Given

    resolved("")
    build, store = tasks._build(tmp_path / "plan"), Store(tmp_path / "store")
    address = "https://git.example/t.git"
    given = {**build.given, "sdg_repo_url": Given(address.replace("//", "//lee:sesame@"), "run")}
    folder = store.root / "runs" / "2"
    actions.note_run(replace(build, given=given), folder, project="https://lee:sesame@git.example/t.git")
    text = (folder / "plan.json").read_text()
    assert "sesame" not in text and json.loads(text)["parameters"]["sdg_repo_url"]["value"] == address
    wanted = actions._wanted(build, store)
    for number, other in enumerate(("[]", "{}", '{"project": "a", "plan": {"steps": [1]}}', '{"plan": 1}', "{torn")):
        (store.root / "runs" / f"3{number}").mkdir()
        (store.root / "runs" / f"3{number}" / "plan.json").write_text(other)
    assert actions._wanted(build, store) == wanted != set()


def test_the_importer_gets_an_address_that_it_takes(resolved: Any) -> None:
    assert resolved("")[0]["base_model"] == "", "of the quickstart's own, which is no address"


@pytest.mark.parametrize("given", ["form", "ConfigMap"])
def test_a_base_model_on_a_volume_is_a_path(
    resolved: Any, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path in the run form or the ConfigMap, that of a mounted claim, is the model that the task ``base`` takes."""
    monkeypatch.setitem(tasks.METRICS, "linger", 0)  # no Prometheus is going to come
    model = tmp_path / "mnt" / "models" / "mine"
    make_tiny(model, TinySpec())
    named = {"sdg_base_model": str(model)}
    found, settings = resolved("", filled=named) if given == "form" else resolved("", **named)
    assert found["base_model"] == "", "nothing for the importer, which takes addresses"
    assert settings["parameters"]["sdg_base_model"] == str(model)
    tasks.run_step(tmp_path / "plan", "base")
    [made] = [one for one in Store(tmp_path / "store").records() if one.type == "base"]
    taken = Checkpoint(Store(tmp_path / "store").contents(made)).model
    assert digest_file(taken / "model.safetensors") == digest_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    with pytest.raises(InputError):
        resolved("", filled=named)


def test_secrets_are_found_by_form_and_config_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tasks, "read_live", lambda name: Live({"eval_judge_secret": "mine", "sdg_repo_secret": "theirs"})
    )
    usual = {name: one.value for name, one in collect({}).items() if name in SECRETS}
    form = {**usual, "sdg_teacher_secret": "", "sdg_repo_secret": "form"}
    assert tasks.find_secrets(form, CONFIG_MAP, usual, ()) == {
        "sdg_teacher_secret": "no-sdg-teacher-secret",
        "eval_judge_secret": "mine",
        "sdg_repo_secret": "form",
        "output_oci_registry_secret": "oci-registry-secret",
    }


@pytest.fixture
def private(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server whose certificate nobody trusts but who has it: (address, certificate)."""
    folder = tmp_path / "site"
    (folder / "bucket").mkdir(parents=True)
    (folder / "bucket" / "key").write_text("reached")
    work = tmp_path / "work"
    for command in (
        ["init", "-q", "-b", "main", str(work)],
        ["-C", str(work), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "one"],
        ["clone", "-q", "--bare", str(work), str(folder / "repository.git")],
        ["-C", str(folder / "repository.git"), "update-server-info"],
    ):
        subprocess.run(["git", *command], check=True, capture_output=True)
    certificate, key = tmp_path / "ca.crt", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *more], check=True, capture_output=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None: ...

    httpd = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{httpd.server_address[1]}", certificate
    httpd.shutdown()
    httpd.server_close()


def test_a_server_with_a_private_certificate_is_reached_through_the_bundle(
    private: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    pytest.importorskip("requests")
    url, certificate = private
    for name in trust.VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is unset again afterwards
        monkeypatch.delenv(name)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "ca-bundle.crt").write_text("")  # OpenShift has not filled it yet
    monkeypatch.setattr(trust, "BUNDLE", bundle)
    monkeypatch.setattr(tasks, "trust_bundle", lambda: trust.trust_bundle(bundle))
    out = tmp_path / "out"

    def clients(_: list[str]) -> None:
        subprocess.run([sys.executable, "-W", "ignore", "-c", CLIENTS, url, str(out)], check=True, capture_output=True)

    monkeypatch.setattr(tasks, "_command", clients)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        tasks.run_step(tmp_path, "taxonomy")
    assert b"certificate verify failed" in refused.value.stderr
    # Bundles of systems name every certificate, in whatever script its owner writes.
    (bundle / "own.crt").write_bytes("# NetLock Főtanúsítvány\n".encode() + certificate.read_bytes())
    tasks.run_step(tmp_path, "taxonomy")
    assert out.read_text() == repr(["aiohttp", "boto3", "git", "httpx", "requests", "urllib"])
    (bundle / "wrong.crt").write_text("no certificate")
    with pytest.raises(InputError, match=r"ConfigMap ilab-ca-bundle: wrong\.crt") as caught:
        tasks.run_step(tmp_path, "taxonomy")
    assert "PEM" in caught.value.hint
