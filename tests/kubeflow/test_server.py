"""kfp's own client against a server that speaks its protocol over TLS, takes one token, and parses what it gets.

No server of Kubeflow can be installed from packages; this one knows the calls that we make (API v2beta1).
"""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result
from on_kubeflow import IMAGE

from ilab.cli.everywhere import offer_values
from ilab.cli.kubeflow_options import SETTINGS
from ilab.cli.pipeline import group

TOKEN = "sha256~a-token"
NAMESPACE = "data-science-project"


@dataclass
class Server:
    """What was sent, and the state that runs are told to be in."""

    url: str = ""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: list[dict[str, Any]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=lambda: ["RUNNING", "SUCCEEDED"])
    refuse: int = 0
    experiments: bool = True
    token: str = TOKEN
    config_map: dict[str, str] | None = None
    log: str = ""  # what every pod printed last
    pods: set[str] = field(default_factory=lambda: {"lab-x7-retry-system-container-impl-14", "lab-x7-21"})

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if self.refuse:
            return self.refuse, {"message": "no"}
        parts = path.strip("/").split("/")
        if parts == ["apis", "kubeflow.org", "v1"]:
            return 200, {"resources": [{"name": "pytorchjobs"}, {"name": "pytorchjobs/status"}]}
        if parts[:2] == ["apis", "trainer.kubeflow.org"]:
            return 404, {"message": "the server could not find the requested resource"}
        if parts[:2] == ["api", "v1"]:
            assert parts[2:] == ["namespaces", NAMESPACE, "configmaps", "instructlab-pipeline-params"]
            return (404, {}) if self.config_map is None else (200, {"data": self.config_map})
        what = parts[2:]
        if what == ["healthz"]:
            return 200, {"multi_user": False}
        if what[0] == "experiments":
            one = {"experiment_id": "e1", "display_name": "instructlab"}
            return 200, (
                one if method == "POST" or len(what) > 1 else {"experiments": [one] if self.experiments else []}
            )
        if what == ["runs"] and method == "POST":
            return 200, self._begun(json.loads(body))
        if what == ["runs"]:
            return 200, {"runs": list(self.runs.values())}
        if what == ["recurringruns"]:
            sent = json.loads(body)
            parse(sent["pipeline_spec"])
            self.recurring.append(sent)
            return 200, {"recurring_run_id": "r1"}
        if what[0] == "pipelines":
            return self._pipelines(what, method)
        return self._run(what)

    def _begun(self, sent: dict[str, Any]) -> dict[str, Any]:
        parse(sent["pipeline_spec"])
        run = {"run_id": f"run-{len(self.runs) + 1}", "state": "PENDING", "experiment_id": "e1", **sent}
        self.runs[run["run_id"]] = run
        return run

    def _run(self, what: list[str]) -> tuple[int, Any]:
        name, _, verb = what[1].partition(":")
        if name not in self.runs:
            return 404, {"message": f"Run {name} not found"}
        if verb == "terminate":
            self.runs[name]["state"] = "CANCELING"
            return 200, {}
        if what[2:]:  # …/nodes/POD/log
            if what[3] not in self.pods:
                return 500, {"message": f"pods {what[3]!r} not found"}
            return 200, f"a line of {what[3]}\nanother\n{self.log}"
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return 200, {**self.runs[name], "state": state, "run_details": {"task_details": nodes(state)}}

    def _pipelines(self, what: list[str], method: str) -> tuple[int, Any]:
        known = {"pipeline_id": "p1", "display_name": "instructlab"}
        if what == ["pipelines"]:
            return 200, {"pipelines": [known] if self.versions else []}
        self.versions.append(what[-1])
        return 200, {**known, "pipeline_version_id": f"v{len(self.versions)}"}


def nodes(state: str) -> list[dict[str, Any]]:
    """A workflow's nodes as the server tells them: a retried task, and one whose pod is gone (its log is archived).

    Their order is that of the ids; what comes after a task is told as a child of its pod.
    """
    tree = {
        "lab-x7": ("lab-x7", ["lab-x7-01"]),
        "lab-x7-01": ("root-driver", ["lab-x7-02"]),
        "lab-x7-02": ("root", ["lab-x7-10"]),
        "lab-x7-10": ("package-driver", ["lab-x7-11"]),
        "lab-x7-11": ("package", ["lab-x7-12"]),
        "lab-x7-12": ("executor", ["lab-x7-14", "lab-x7-13", "lab-x7-19"]),
        "lab-x7-13": ("executor(0)", []),
        "lab-x7-14": ("executor(1)", ["lab-x7-19"]),
        "lab-x7-19": ("results-driver", ["lab-x7-20"]),
        "lab-x7-20": ("results", ["lab-x7-21"]),
        "lab-x7-21": ("executor", []),
        "lab-x7-22": ("base-driver", ["lab-x7-23"]),
    }
    times = {"start_time": "2026-11-21T10:00:00Z", "end_time": "2026-11-21T10:00:30Z"}
    return [
        {
            "task_id": f"task-of-{node}", "pod_name": node, "display_name": name, "state": state, **times,
            "child_tasks": [{"pod_name": child} for child in children],
        }
        for node, (name, children) in tree.items()
    ]  # fmt: skip


def parse(sent: Any) -> None:
    """Both documents of what was sent, by Kubeflow's own schemas."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    json_format.ParseDict(sent["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(sent["platform_spec"], pipeline_spec_pb2.PlatformSpec())


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    more = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(folder / "key.pem"),
        "-out",
        str(folder / "ca.crt"),
    ]
    subprocess.run([*command, *more], check=True, capture_output=True)
    return folder


@pytest.fixture
def server(certificate: Path) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != f"Bearer {state.token}":
                status, told = 401, {"message": "no token"}
            else:
                status, told = state.answer(self.command, urlsplit(self.path).path, body)
            content = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _handle

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "ca.crt", certificate / "key.pem")
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state.url = f"https://127.0.0.1:{httpd.server_address[1]}"
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def ilab(server: Server, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``ilab pipeline …`` in a project that names the server; returns click's result."""
    from ilab.cli.app import main
    from ilab.errors import IlabError

    monkeypatch.setenv("KUBEFLOW_TOKEN", TOKEN)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.setattr("ilab.kubeflow.client.POLL", 0.01)
    place = f"host: {server.url}, token: env:KUBEFLOW_TOKEN, ca_file: {certificate / 'ca.crt'}, image: '{IMAGE}'"
    (tmp_path / "ilab.yaml").write_text(f"where: {{kubeflow: {{{place}, namespace: {NAMESPACE}}}}}\n")

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["-C", str(tmp_path), *arguments])
        got = result.exception.exit_code if isinstance(result.exception, IlabError) else result.exit_code
        assert got == code, (result.output, result.exception)
        assert TOKEN not in result.output + str(result.exception)
        return result

    return run


def test_a_run_is_submitted_followed_and_stopped(ilab: Any, server: Server) -> None:
    told = ilab("pipeline", "submit", "-p", "sdg_scale_factor=3", "-p", "sdg_repo_url=https://git.example/t.git")
    assert "run-1 'instructlab" in told.output
    sent = server.runs["run-1"]["runtime_config"]["parameters"]
    assert sent == {"sdg_scale_factor": 3, "sdg_repo_url": "https://git.example/t.git"}, "what nobody gave is not sent"
    graph = server.runs["run-1"]["pipeline_spec"]["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    compiled = graph["resolve"]["inputs"]["parameters"]["compiled"]["runtimeValue"]["constant"]
    assert compiled["given"] == sorted(sent), "else it would count as a default, which the ConfigMap goes before"
    followed = ilab("pipeline", "wait", "run-1")
    assert "package: running" in followed.output and followed.output.endswith("run-1: succeeded\n")
    tasks = json.loads(ilab("--json", "pipeline", "status", "run-1").output)[0]["tasks"]
    assert [task["name"] for task in tasks] == ["package", "results"], "drivers and tries are no tasks"
    last = ilab("pipeline", "logs", "run-1", "package").output
    assert last == "a line of lab-x7-retry-system-container-impl-14\nanother\n", "the last try's, not the driver's"
    assert "results: a line of lab-x7-21\n" in ilab("pipeline", "logs", "run-1").output, "of the archive"
    assert "tasks: package, results" in str(ilab("pipeline", "logs", "run-1", "train", code=2).exception.hint)
    server.pods.clear()
    assert "may be gone" in ilab("pipeline", "logs", "run-1", "package", code=4).exception.hint
    assert "note: its training jobs could not be looked for" in ilab("pipeline", "cancel", "run-1").output
    assert server.runs["run-1"]["state"] == "CANCELING"
    assert json.loads(ilab("--json", "pipeline", "status", "--on", "kubeflow").output)[0]["run"] == "run-1"


def test_a_new_server_has_no_runs_yet(ilab: Any, server: Server) -> None:
    server.experiments = False
    assert "No runs yet" in ilab("pipeline", "status", "--on", "kubeflow").output
    assert json.loads(ilab("--json", "pipeline", "status", "--on", "kubeflow").output) == []


def test_run_and_submit_take_the_same_options() -> None:
    """All that says which build is meant; besides it, `submit` has what is about a cluster, and `run` about a machine."""

    def options(name: str) -> dict[str, dict[str, object]]:
        offer_values(group.commands[name], f"pipeline {name}")  # the program does, at its first use of a command
        shown = (one for one in group.commands[name].params if not one.opts[-1].startswith("--debug"))
        keys = ("name", "opts", "type", "required", "multiple", "is_flag")
        return {one.opts[-1]: {key: one.to_info_dict()[key] for key in keys} for one in shown}

    here, there = options("run"), options("submit")
    shared = here.keys() & there.keys()
    assert shared == {"--pipeline", "--env", "--parameters", "-p"}
    assert {name: here[name] for name in shared} == {name: there[name] for name in shared}
    assert shared < options("compile").keys() and shared < options("upload").keys() and shared < options("plan").keys()
    asked = {"--run-name", "--recurring", "--wait", "--dry-run", "--context", "--no-config-map"}
    of_cluster = {f"--{name.replace('_', '-')}" for name in SETTINGS if name != "store"} | {"--run-store"}
    assert there.keys() - shared == asked | of_cluster
    assert here.keys() - shared == {"--until", "--only", "--force", "--metrics-port", "--detached"}


def test_a_recurring_run_and_a_new_version(ilab: Any, server: Server) -> None:
    ilab("pipeline", "submit", "--recurring", "0 0 2 * * *", "--run-name", "nightly")
    sent = server.recurring[0]
    assert sent["trigger"]["cron_schedule"]["cron"] == "0 0 2 * * *" and int(sent["max_concurrency"]) == 1
    assert sent["runtime_config"].get("parameters", {}) == {}, "so that each run takes the ConfigMap as it is then"
    ilab("pipeline", "submit", "--recurring", "0 2 * * *")
    assert server.recurring[1]["trigger"]["cron_schedule"]["cron"] == "0 0 2 * * *", "five fields are as everywhere"
    assert ilab("pipeline", "submit", "--recurring", "0 99 * * *", code=2).exception.where == "--recurring"
    assert "version 1" in ilab("pipeline", "upload", "--version", "1").output
    assert len(server.versions) >= 1


def test_how_a_run_ends_is_the_exit_code(ilab: Any, server: Server) -> None:
    ilab("pipeline", "submit")
    server.states = ["RUNNING"]
    assert "still running" in str(ilab("pipeline", "wait", "run-1", "--timeout", "0.05", code=6).exception)
    server.states = ["FAILED"]
    server.log = "ilab.kubeflow.tasks.TaskFailedError: ilab step run ended with 5; what was wrong stands above\n"
    ilab("pipeline", "wait", "run-1", code=5)
    ilab("pipeline", "submit", "--wait", code=5)
    server.log = server.log.replace("with 5", "with 3")
    assert ilab("pipeline", "wait", "run-1", code=4).exception, "packaging can fail of other things than the gate"


def test_what_is_wrong_is_told_with_what_to_type(
    ilab: Any, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "answered 404" in str(ilab("pipeline", "wait", "run-9", code=4).exception)
    monkeypatch.setenv("KUBEFLOW_TOKEN", "another")
    assert "oc whoami -t" in ilab("pipeline", "status", "--on", "kubeflow", code=4).exception.hint
    monkeypatch.setenv("KUBEFLOW_TOKEN", TOKEN)
    server.refuse = 403
    assert "--namespace" in ilab("pipeline", "status", "--on", "kubeflow", code=4).exception.hint
    ilab("pipeline", "status", "--on", "kubeflow", "--host", "ds-pipeline.example", code=2)
    ilab("pipeline", "status", "--on", "kubeflow", "--ca-file", "absent.pem", code=2)
    (tmp_path / "notes.pem").write_text("no certificate")
    ilab("pipeline", "status", "--on", "kubeflow", "--ca-file", str(tmp_path / "notes.pem"), code=2)
    ilab("pipeline", "status", "--on", "kubeflow", "--token", TOKEN, code=2)
    ilab("pipeline", "compile", "-o", "pipeline.json", code=2)
    ilab("pipeline", "compile", "--run-store", "/data", code=2)
    ilab("pipeline", "compile", "-p", "k8s_tolerations=x", code=2)
    assert "pipeline.yaml: " in ilab("pipeline", "compile").output and (tmp_path / "pipeline.yaml").is_file()


def test_a_server_that_does_not_know_the_caller_says_so_at_once(
    ilab: Any, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a namespace kfp asks for the server's health first, by itself five times within 25 seconds."""
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it asks once"))
    monkeypatch.setenv("KUBEFLOW_TOKEN", "another")
    status = ("pipeline", "status", "--on", "kubeflow", "--namespace", "")
    refused: Any = ilab(*status, code=4).exception
    assert "answered 401" in refused.message and "--token env:" in refused.hint
    other = tmp_path / "other.pem"
    other.write_text(ssl.DER_cert_to_PEM_cert(ssl.create_default_context().get_ca_certs(binary_form=True)[0]))
    refused = ilab(*status, "--ca-file", str(other), code=4).exception
    assert "cannot be reached" in refused.message and "--ca-file FILE" in refused.hint and not refused.retryable
    refused = ilab(*status, "--host", "http://127.0.0.1:1", code=4).exception
    assert "curl -v http://127.0.0.1:1" in refused.hint and "Max retries" not in refused.message


def test_a_pod_knows_the_pipeline_server_of_its_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name in the certificate that OpenShift makes for a Service: NAME.NAMESPACE.svc."""
    from ilab.kubeflow.client import of_this_pod

    (tmp_path / "namespace").write_text("lab\n")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert of_this_pod(tmp_path) == ("", "")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert of_this_pod(tmp_path) == ("https://ds-pipeline-dspa.lab.svc:8443", "")
    (tmp_path / "service-ca.crt").write_text("PEM")
    assert of_this_pod(tmp_path)[1] == str(tmp_path / "service-ca.crt")
    assert of_this_pod(tmp_path / "absent") == ("", "")


def test_waiting_outlives_a_token_and_a_restart_of_the_server(
    server: Server, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod's token is renewed every hour, and nights last longer."""
    from ilab.errors import ServiceError
    from ilab.kubeflow import client

    monkeypatch.setattr(client, "POLL", 0.0)
    (tmp_path / "token").write_text(TOKEN)
    connection = client.Connection(server.url, f"file:{tmp_path / 'token'}", NAMESPACE, str(certificate / "ca.crt"))
    asking = client.Kubeflow(connection)
    server.runs["run-1"] = {"run_id": "run-1", "display_name": "a night", "experiment_id": "e1"}
    answer, refusals, seen = server.answer, [0, 503, 502, 0, 0], []

    def refusing(method: str, path: str, body: bytes) -> tuple[int, Any]:
        server.refuse = refusals.pop(0)
        return answer(method, path, body)

    def renew(run: Any) -> None:
        seen.append(run.state)
        server.token = f"{TOKEN}-{len(seen)}"
        (tmp_path / "token").write_text(server.token)

    monkeypatch.setattr(server, "answer", refusing)
    server.states = ["RUNNING", "RUNNING", "SUCCEEDED"]
    assert asking.wait("run-1", None, renew).state == "SUCCEEDED"
    assert not refusals and len(seen) == 5
    server.states, refusals[:] = ["RUNNING"], [503]
    with pytest.raises(ServiceError, match="answered 503"):  # one that was never there is not waited for
        asking.wait("run-1", None, renew)
    refusals[:] = [0, 404]
    with pytest.raises(ServiceError, match="answered 404"):  # a run that is gone does not come back
        asking.wait("run-1", None, renew)
    monkeypatch.setattr(client, "AWAY", -1.0)
    refusals[:] = [0, 503]
    with pytest.raises(ServiceError, match="answered 503"):
        asking.wait("run-1", None, renew)


def test_nodes_in_a_circle_are_tasks_all_the_same() -> None:
    from types import SimpleNamespace

    from ilab.kubeflow.run_details import tasks_of

    def node(name: str, shown: str, child: str) -> SimpleNamespace:
        children = [SimpleNamespace(pod_name=child)]
        times = {"start_time": None, "create_time": None, "end_time": None}
        return SimpleNamespace(
            pod_name=name, task_id=name, display_name=shown, state="FAILED", child_tasks=children, **times
        )

    found = tasks_of(
        [
            node("lab", "lab", "lab-1"),
            node("lab-1", "package", "lab-2"),
            node("lab-2", "executor", "lab-3"),
            node("lab-3", "executor(1)", "lab-2"),
        ]
    )
    assert [(task.name, task.pods[-1]) for task in found] == [("package", "lab-3")]


def kubeconfig(folder: Path, server: Server, certificate: Path) -> None:
    (folder / "config").write_text(f"""
current-context: here
contexts: [{{name: here, context: {{cluster: c, user: u, namespace: another}}}}]
clusters: [{{name: c, cluster: {{server: "{server.url}", certificate-authority: "{certificate / "ca.crt"}"}}}}]
users: [{{name: u, user: {{token: "{TOKEN}"}}}}]
""")


def test_what_kubeflow_fixes_is_read_again_when_a_run_is_submitted(
    ilab: Any, server: Server, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    assert "note: ConfigMap" in ilab("pipeline", "submit").output, "a cluster that cannot be asked stops nothing"
    kubeconfig(tmp_path, server, certificate)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    server.config_map = {"k8s_storage_size": "50Gi", "k8s_storage_class_name": "nfs", "sdg_scale_factor": "9"}
    told = ilab("pipeline", "submit", "--dry-run").output
    assert "no base model" in told and "cannot see this taxonomy: (none)" in told, "said before pods start"
    server.config_map |= {"sdg_base_model": "s3://bucket/model", "sdg_repo_url": "https://git.example.com/t.git"}
    told = ilab("pipeline", "submit", "-p", "k8s_storage_class_name=cephfs", "--access-mode", "ReadWriteMany").output
    assert "note:" not in told
    sent = server.runs["run-2"]
    asked = sent["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["pipelineConfig"]["workspace"]
    assert asked["size"] == "50Gi"
    assert asked["kubernetes"]["pvcSpecPatch"]["storageClassName"] == "cephfs", "what the run is given goes before it"
    assert asked["kubernetes"]["pvcSpecPatch"]["accessModes"] == ["ReadWriteMany"]
    form = sent["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    assert form["sdg_scale_factor"]["defaultValue"] == 30, "the run reads it itself"
    assert form["k8s_storage_size"]["defaultValue"] == "20Gi", "taken out of the ConfigMap, it is the default again"
    graph = sent["pipeline_spec"]["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    compiled = graph["resolve"]["inputs"]["parameters"]["compiled"]["runtimeValue"]["constant"]
    assert compiled["fixed"]["k8s_storage_size"] == "50Gi" and compiled["several"] is True
    dry = ilab("pipeline", "submit", "--dry-run", "-p", "sdg_scale_factor=3")
    assert f"ConfigMap instructlab-pipeline-params: here at {server.url}, namespace {NAMESPACE}\n" in dry.output
    assert "k8s_storage_size = 50Gi  (ConfigMap)" in dry.output and "sdg_scale_factor = 3  (given" in dry.output
    assert f"host: {server.url}\n" in dry.output and len(server.runs) == 2, "nothing is sent"
    assert "ConfigMap" not in ilab("pipeline", "submit", "--dry-run", "--no-config-map").output
    assert "there is no context 'other'" in ilab("pipeline", "submit", "--dry-run", "--context", "other").output
    server.config_map = {"train_num_workers": "6"}
    assert "6 workers" in str(ilab("pipeline", "submit", code=2).exception)
    server.config_map = {"train_num_workers": "0"}
    assert "out of range" in str(ilab("pipeline", "submit", code=2).exception)
    server.config_map = {"sdg_teacher_secrit": "mine"}
    assert "sdg_teacher_secrit" in str(ilab("pipeline", "submit", code=2).exception), "the run would end at it"


def test_settings_of_this_machine_that_no_pod_has_are_named(
    ilab: Any, server: Server, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig(tmp_path, server, certificate)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    settings = tmp_path / "ilab.yaml"
    more = "  web: {ca_file: ca.pem, timeout: 9}\n  teacher: {url: 'http://127.0.0.1:1/v1', in_flight: 3}\n  jobs: 1\n"
    place = settings.read_text().removeprefix("where: {").removesuffix("}\n")
    settings.write_text(f"where:\n  {place}\n{more}")
    server.config_map = {"ilab.yaml": "where: {web: {timeout: 5}}\n"}
    told = ilab("pipeline", "submit").output
    assert "note: where.teacher.in_flight, where.web.ca_file: set here, and in no pod" in told
    assert "oc set data configmap/instructlab-pipeline-params --from-file=ilab.yaml=FILE" in told
    server.config_map = {"ilab.yaml": "where: {web: {ca_file: /ca, timeout: 5}, teacher: {in_flight: 3}}\n"}
    assert "set here" not in ilab("pipeline", "submit").output


def test_the_config_map_of_another_cluster_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.kubeflow.configmap import one_cluster, read_as_user

    host = "https://ds-pipeline-dspa-lab.apps.east.example.com"
    (tmp_path / "config").write_text("""
current-context: west
contexts: [{name: west, context: {cluster: c}}, {name: east, context: {cluster: e}}]
clusters: [{name: c, cluster: {server: "https://api.west.example.com:6443"}},
           {name: e, cluster: {server: "https://127.0.0.1:9", proxy-url: "http://127.0.0.1:9"}}]
""")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    told = read_as_user("params", "lab", host)
    assert "https://api.west.example.com:6443, which is another cluster" in told.note and "--context" in told.note
    assert "cannot be reached" in read_as_user("params", "lab", host, "east").note, "whoever names one is not asked"
    assert one_cluster("https://api.east.example.com:6443", host) is True
    assert one_cluster("https://api.east.example.com", "https://api.east.example.com:8443/pipeline") is True
    for server in ("https://127.0.0.1:6443", "https://ABC.gr7.eu-west-1.eks.amazonaws.com"):
        assert one_cluster(server, host) is None
    assert one_cluster("https://api.east.example.com:6443", "https://pipelines.example.com") is None


LAYERS = {  # parameter -> (compiled with, in the ConfigMap, given to the run) -> what holds
    "sdg_scale_factor": (30, "8", None, 8),
    "sdg_batch_size": (16, "64", 7, 7),
    "sdg_num_workers": (5, "64", 5, 5),  # given to the run, and equal to what stands in the form
    "eval_num_samples": (77, None, None, 77),
    "chunk_word_count": ("300", None, "", None),  # a field that somebody emptied
    "train_memory_per_worker": (None, None, None, "120Gi"),
    "train_num_workers": (None, "1", None, 1),
}


def test_the_live_config_map_lies_between_environment_and_run_form(
    server: Server,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a pod does it: with the service account's token and certificates, at the start of the run."""
    from on_kubeflow import shipped

    from ilab.core.kubeconfig import find_account
    from ilab.kubeflow import configmap, tasks, training_jobs
    from ilab.kubeflow.definition import defaults, definition
    from ilab.parameters import collect

    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text(NAMESPACE)
    (account / "ca.crt").write_bytes((certificate / "ca.crt").read_bytes())
    monkeypatch.setattr(tasks, "read_live", lambda name: configmap.read_live(name, account))
    monkeypatch.setattr(training_jobs, "find_account", lambda: find_account(pod=account))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    host, _, port = server.url.removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    server.config_map = {name: live for name, (_, live, _, _) in LAYERS.items() if live} | {"k8s_storage_size": "50Gi"}
    pipeline = shipped("quickstart")
    example = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
    values = {name: one.value for name, one in collect({"file": pipeline.parameters}).items()}
    values |= {name: value for name, (value, _, _, _) in LAYERS.items() if value is not None}
    compiled = defaults(values)
    form = {**compiled, "sdg_repo_url": str(example)} | {
        name: form for name, (_, _, form, _) in LAYERS.items() if form is not None
    }
    where = tasks.Compiled(
        definition(pipeline),
        "dev",
        compiled,
        "instructlab-pipeline-params",
        str(tmp_path),
        "a-run",
        str(tmp_path / "s"),
        ("sdg_num_workers",),
        fixed={name: compiled[name] for name in (*tasks.FIXED, *tasks.SHAPES)},
        several=True,
    )
    found = tasks.resolve(form, where, tmp_path / "plan")
    told = capsys.readouterr().out
    import yaml

    settings = yaml.safe_load((tmp_path / "plan" / "ilab.yaml").read_text())
    for name, (_, _, _, expected) in LAYERS.items():
        assert settings["parameters"][name] == expected, name
    assert "sdg_scale_factor = 8  (ConfigMap instructlab-pipeline-params)" in told
    assert "k8s_storage_size is 50Gi now, but this run was made with 20Gi" in told
    assert found["training_memory"] == "120Gi"
    train = settings["where"]["train"]
    assert (train["launcher"], train["nodes"]) == ("PyTorchJob", 1), "the task's own pod was compiled without GPUs"
    assert "the cluster knows no TrainJob: training jobs are PyTorchJobs" in told
    assert train["kubernetes"]["unattended_seconds"] == 600 and train["kubernetes"]["metrics_port"] == 9464
    assert (tmp_path / "runs" / "a-run" / "plan.json").is_file()
    server.config_map = None
    tasks.resolve(form, replace(where, launcher="TrainJob"), tmp_path / "again")
    assert yaml.safe_load((tmp_path / "again" / "ilab.yaml").read_text())["where"]["train"]["launcher"] == "TrainJob"
    assert "was not read: there is none" in capsys.readouterr().out
    server.refuse = 403
    tasks.resolve(form, where, tmp_path / "again")
    assert "may not read it" in capsys.readouterr().out
