"""Nightly builds on a cluster: what is submitted, how their end moves channels, and the recurring run that begins them.

The server is a stub that keeps runs; the store is a folder that plays the volume which all pods see.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from on_kubeflow import IMAGE
from pipeline_server import PipelineServer, serving

from ilab.cli.app import main
from ilab.errors import IlabError, InputError
from ilab.kubeflow.definition import Target
from ilab.packaging.registry import Entry, Registry

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
KILN = "knowledge/technology/devices/tavrin_kiln"
CALENDAR = "compositional_skills/scheduling/calendar_line"
SECRETS = ("ILAB_TEACHER_ENDPOINT", "ILAB_JUDGE_ENDPOINT", "KUBERNETES_SERVICE_HOST")
MODEL = ("-p", "output_model_name=small", "-p", "sdg_scale_factor=4", "-p", "eval_num_samples=6")


@dataclass(frozen=True)
class Cluster:
    """A project's folder, a taxonomy in git, the shared volume, and the server."""

    project: Path
    taxonomy: Path
    volume: Path
    server: PipelineServer

    def ilab(self, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["-C", str(self.project), "--config", "DEFAULT", *arguments])
        got = result.exception.exit_code if isinstance(result.exception, IlabError) else result.exit_code
        assert got == code, (result.output, result.exception)
        return result

    def nightly(self, *arguments: str, code: int = 0) -> Any:
        """What ``ilab --json pipeline nightly --on kubeflow`` tells."""
        given = (
            "--host",
            self.server.url,
            "--image",
            IMAGE,
            "--claim",
            "ilab",
            *MODEL,
            "-p",
            f"sdg_repo_url={self.url}",
        )
        done = self.ilab("--json", "pipeline", "nightly", "--on", "kubeflow", *given, *arguments, code=code)
        return json.loads(done.stdout)

    @property
    def url(self) -> str:
        return f"file://{self.taxonomy}"

    @property
    def registry(self) -> Registry:
        return Registry(self.volume / "registry.sqlite")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=A Person", "-c", "user.email=person@example.org", "-c", "init.defaultBranch=main")
        command = ["git", "-C", str(self.taxonomy), *identity, *arguments]
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()

    def merge(self, leaf: str) -> str:
        """Add a leaf and commit it; the commit."""
        shutil.copytree(EXAMPLE / leaf, self.taxonomy / leaf, dirs_exist_ok=True)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", leaf)
        return self.git("rev-parse", "HEAD")

    def register(self, version: str, verdict: str = "pass") -> None:
        """What the task `register` of a run does."""
        kept = {"name": "small", "version": version, "digest": f"sha256:{version}", "uri": f"oci:/nowhere/{version}"}
        self.registry.register(Entry(**kept, metrics={"verdict": verdict}))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "KUBECONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    folders = [tmp_path / name for name in ("project", "taxonomy", "volume")]
    project, taxonomy, volume = folders
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr("ilab.kubeflow.definition.VOLUME", str(volume))
    monkeypatch.setattr("ilab.kubeflow.definition.Target", functools.partial(Target, root=str(volume)))
    monkeypatch.setattr("ilab.kubeflow.client.POLL", 0.01)
    (project / "ilab.yaml").write_text("pipeline: quickstart\n")
    with serving() as server:
        made = Cluster(project, taxonomy, volume, server)
        made.git("init", "--quiet")
        yield made


def tasks_of(sent: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = sent["pipeline_spec"]["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return found


def compiled_of(sent: dict[str, Any]) -> dict[str, Any]:
    inputs = tasks_of(sent)["resolve"]["inputs"]["parameters"]
    found: dict[str, Any] = inputs["compiled"]["runtimeValue"]["constant"]
    return found


def test_a_night_is_decided_here_and_built_there(cluster: Cluster, tmp_path: Path) -> None:
    commit = cluster.merge(KILN)
    assert cluster.nightly("--dry-run")["how"] == "full" and not cluster.server.asked, "a dry run asks no server"
    cluster.server.work = lambda _: "FAILED"
    cluster.server.log = (
        "ilab.kubeflow.tasks.TaskFailedError: ilab step run ended with 5; what was wrong stands above\n"
    )
    told = cluster.nightly(code=5)
    assert (told["how"], told["version"], told["run"], told["built"]) == ("full", "0.1.0", "run-1", False)
    assert told["channels"] == {} and "before packaging" in told["error"]
    (sent,) = cluster.server.runs.values()
    assert sent["display_name"] == "small 0.1.0 nightly"
    tasks = tasks_of(sent)
    assert "changelog" in tasks and "changelog" in tasks["package"]["dependentTasks"]
    given = sent["runtime_config"]["parameters"]
    assert given["sdg_repo_url"] == f"{cluster.url}#{commit}" and given["output_model_version"] == "0.1.0"
    assert given["sdg_scale_factor"] == 4 and given["sdg_pipeline"] == "extractive", "as it was decided"
    assert compiled_of(sent)["given"] == sorted(given), "a patch that comes later is for another night"

    # The first task of the run finds the very plan that was decided upon.
    from ilab.config import load
    from ilab.core.files import read_json
    from ilab.kubeflow.nights import shared
    from ilab.kubeflow.tasks import Compiled, resolve
    from ilab.nightly import build_of, decide

    place: dict[str, Any] = {"root": str(cluster.volume), "run": "run-1", "store": str(cluster.volume / "store")}
    resolve(given, Compiled(**compiled_of(sent), **place), tmp_path / "plan")
    flags = {"where.kubeflow.claim": "ilab", "pipeline": "quickstart"}
    loaded = shared(load(cluster.project, flags=flags, user=None))
    parameters = dict(text.split("=") for text in MODEL[1::2]) | {"sdg_repo_url": cluster.url}
    steps = build_of(loaded, parameters, decide(loaded, parameters)).plan.steps
    found = {step["name"]: step["key"] for step in read_json(tmp_path / "plan" / "plan.json")["steps"]}
    assert found == {name: one.key for name, one in steps.items()}


def test_channels_move_when_the_run_has_ended_well(cluster: Cluster) -> None:
    cluster.merge(KILN)

    def work(sent: dict[str, Any]) -> str:
        cluster.register(sent["runtime_config"]["parameters"]["output_model_version"])
        return "SUCCEEDED"

    cluster.server.work = work
    told = cluster.nightly("--promote")
    assert told["built"] and told["channels"] == {"nightly": "0.1.0", "stable": "0.1.0"} and told["error"] is None


def test_a_run_that_nobody_waited_for_is_caught_up_with(cluster: Cluster) -> None:
    cluster.merge(KILN)
    told = cluster.nightly("--no-wait")
    assert (told["run"], told["built"], told["channels"]) == ("run-1", False, {})
    again = cluster.nightly("--no-wait")
    assert (again["how"], again["run"], again["version"]) == ("under way", "run-1", "0.1.0")
    assert len(cluster.server.runs) == 1, "what is under way is not submitted twice"

    # It ends while somebody waits for it.
    cluster.register("0.1.0")
    cluster.server.end("SUCCEEDED")
    cluster.server.runs["run-1"]["state"] = "RUNNING"
    looks: list[int] = []
    answer = cluster.server.answer

    def later(method: str, path: str, query: dict[str, str], body: bytes) -> Any:
        if path.endswith("/runs/run-1"):
            looks.append(1)
            cluster.server.runs["run-1"]["state"] = "SUCCEEDED" if len(looks) > 2 else "RUNNING"
        return answer(method, path, query, body)

    cluster.server.answer = later  # type: ignore[method-assign]
    waited = cluster.nightly()
    assert (waited["how"], waited["built"], waited["channels"]) == ("under way", True, {"nightly": "0.1.0"})
    assert len(looks) == 3 and len(cluster.server.runs) == 1


def test_a_caller_that_slept_submits_nothing_when_another_took_over(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deciding takes a while (the taxonomy is fetched, releases are read); its lease may be gone when it is done."""
    from ilab.cli.pipeline_nightly import Night

    decide = Night.decide

    def slowly(self: Night) -> Any:
        decision = decide(self)
        [lease] = cluster.volume.rglob("lease.json")
        lease.write_text(json.dumps({"pid": 1, "host": "another", "id": "other"}))
        return decision

    monkeypatch.setattr(Night, "decide", slowly)
    cluster.merge(KILN)
    assert "another machine took this over" in cluster.nightly("--no-wait", code=4)["error"]
    assert not cluster.server.runs
    [lease] = cluster.volume.rglob("lease.json")
    assert json.loads(lease.read_text())["id"] == "other", "it is not ours to give up"


def test_it_catches_up_before_it_decides(cluster: Cluster) -> None:
    cluster.merge(KILN)
    cluster.nightly("--no-wait")
    cluster.register("0.1.0")
    cluster.server.end("SUCCEEDED")
    cluster.merge(CALENDAR)
    told = cluster.nightly("--no-wait")
    assert told["channels"] == {"nightly": "0.1.0"}, "of the night that died"
    assert (told["how"], told["version"], told["run"]) == ("full", "0.1.1", "run-2")
    cluster.server.end("FAILED")
    assert cluster.nightly("--no-wait")["run"] == "run-3", "a build that failed is made again"
    assert cluster.server.runs["run-3"]["display_name"] == "small 0.1.1 nightly"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
def test_callers_on_two_machines_share_a_bucket(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    from s3_server import KEYS, s3_server

    from ilab.config import Where
    from ilab.packaging.registry import open_registry

    def nightly() -> Any:
        given = ("--host", cluster.server.url, "--image", IMAGE, "--run-store", "s3://lamps/models", *MODEL)
        url = ("-p", f"sdg_repo_url={cluster.url}", "--no-wait")
        return json.loads(cluster.ilab("--json", "pipeline", "nightly", "--on", "kubeflow", *given, *url).stdout)

    cluster.merge(KILN)
    with s3_server(tmp_path) as endpoint:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL_S3": endpoint}.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="lamps")
        assert nightly()["run"] == "run-1"
        resolve = tasks_of(cluster.server.runs["run-1"])["resolve"]["inputs"]["parameters"]
        assert resolve["store"]["runtimeValue"]["constant"] == "s3://lamps/models"
        registry = open_registry("s3://lamps/models/registry.sqlite", Where(s3_endpoint=endpoint))
        registry.register(Entry(name="small", version="0.1.0", digest="sha256:1", uri="oci:/nowhere", metrics={}))
        cluster.server.end("SUCCEEDED")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
        told = nightly()
        assert (told["channels"], told["version"], told["run"]) == ({"nightly": "0.1.0"}, "0.1.1", "run-2")


def test_the_config_map_and_the_secrets_count_as_in_pods(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.kubeflow.configmap import Live

    cluster.merge(KILN)
    live = Live({"sdg_scale_factor": "9", "eval_batch_size": "3", "sdg_pipeline": "simple"})
    monkeypatch.setattr("ilab.kubeflow.nights.read_as_user", lambda *_: live)
    monkeypatch.setenv("ILAB_TEACHER_ENDPOINT", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("ILAB_TEACHER_MODEL", "a-teacher")
    cluster.nightly("--no-wait")
    given = cluster.server.runs["run-1"]["runtime_config"]["parameters"]
    assert (given["eval_batch_size"], given["sdg_scale_factor"]) == (3, 4), "below what is given"
    assert (given["sdg_pipeline"], given["sdg_teacher_model"]) == ("simple", "a-teacher")


def test_settings_of_the_cluster_are_below_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.config import load
    from ilab.kubeflow.configmap import Live
    from ilab.kubeflow.nights import of_pods

    document = "where:\n  s3_endpoint: https://s3.inside\n  web: {ca_file: /a.pem}\n  teacher: {in_flight: 3}\n"
    monkeypatch.setenv("ILAB_TEACHER_ENDPOINT", "http://teacher.inside/v1")
    monkeypatch.setenv("ILAB_TEACHER_TOKEN", "a-secret")
    (tmp_path / "ilab.yaml").write_text("where: {web: {ca_file: own.pem}}\n")
    found = of_pods(load(tmp_path, user=None), Live(settings=document))
    teacher = {"in_flight": 3, "url": "http://teacher.inside/v1", "api_key": "env:ILAB_TEACHER_TOKEN"}
    assert found == {"where.s3_endpoint": "https://s3.inside", "where.teacher": teacher}
    where = load(tmp_path, flags=found, user=None).config.where
    assert (where.s3_endpoint, where.web.ca_file) == ("https://s3.inside", "own.pem")
    assert where.teacher is not None and where.teacher.in_flight == 3
    monkeypatch.delenv("ILAB_TEACHER_ENDPOINT")
    without = of_pods(load(tmp_path, user=None), Live(settings=document))
    assert "where.teacher" not in without, "its Secret is not here, so nobody knows where it is"
    monkeypatch.setenv("ILAB_JUDGE_ENDPOINT", "http://judge.inside/v1")
    empty = of_pods(load(tmp_path, user=None), Live(settings="where:\n  teacher:\n  judge:\n"))
    assert empty == {"where.judge": {"url": "http://judge.inside/v1"}}, "a group of which nothing is said"
    with pytest.raises(InputError, match="teacher") as wrong:
        of_pods(load(tmp_path, user=None), Live(settings="where:\n  teacher: 7\n"))
    assert "ilab.yaml:2" in wrong.value.where


def test_what_has_to_be_shared_is_said(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: str) -> Any:
        given = ("--host", cluster.server.url, "--image", IMAGE, *MODEL, *arguments)
        return cluster.ilab("pipeline", "nightly", "--on", "kubeflow", *given, code=2).exception

    url = ("-p", f"sdg_repo_url={cluster.url}")
    assert "--run-store s3://" in refused(*url).hint and "--run-store s3://" in refused(*url, "--run-store=").hint
    folder = refused("--claim", "ilab", "-p", f"sdg_repo_url={cluster.taxonomy}")
    assert "pods cannot see this taxonomy" in folder.message and folder.where == "sdg_repo_url"
    monkeypatch.setattr("ilab.kubeflow.definition.VOLUME", str(cluster.volume / "absent"))
    assert "volume ilab is not here" in refused(*url, "--claim", "ilab").message
    (cluster.project / "ilab.yaml").write_text("where: {registry: here.sqlite}\n")
    assert refused(*url, "--run-store", "s3://bucket/here").where == "where.registry"
    assert "--on kubeflow" in cluster.ilab("pipeline", "nightly", "--no-wait", code=2).exception.message
    assert not cluster.server.runs


def test_a_schedule_is_made_replaced_shown_and_removed(cluster: Cluster) -> None:
    def schedule(*arguments: str, code: int = 0) -> Any:
        given = ("--host", cluster.server.url, "--image", IMAGE, "--run-store", "s3://bucket/here")
        done = cluster.ilab("--json", "pipeline", "schedule", "--on", "kubeflow", *given, *arguments, code=code)
        return json.loads(done.stdout) if code == 0 else done.exception

    first = schedule("--cron", "30 1 * * 1-5", "-p", "sdg_scale_factor=3")
    other = schedule("--name", "other", "--cron", "@daily")
    second = schedule("--cron", "0 3 * * 7", "--promote")
    assert (first["cron"], other["cron"], second["cron"]) == ("0 30 1 * * 1-5", "0 0 0 * * *", "0 0 3 * * 0")
    assert second["replaced"] == [first["recurring"]]
    shown = schedule("--list")
    assert [(one["name"], one["cron"], one["on"]) for one in shown] == [
        ("ilab-nightly", "0 0 3 * * 0", True),
        ("other", "0 0 0 * * *", True),
    ]
    sent = cluster.server.recurring[second["recurring"]]
    assert sent["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 0" and int(sent["max_concurrency"]) == 1
    spec = sent["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]["exec-nightly"]["container"]
    assert (spec["image"], spec["command"]) == (IMAGE, ["ilab"])
    arguments = spec["args"]
    assert arguments[:5] == ["pipeline", "nightly", "--promote", "--on", "kubeflow"]
    assert "--run-store=s3://bucket/here" in arguments and "--pipeline=quickstart" in arguments
    assert not [word for word in arguments if word.startswith(("--host", "--ca-file"))], "the pod knows its own"
    command: Any = main
    for word in ("pipeline", "nightly"):
        command = command.get_command(None, word)
    known = {option for one in command.params for option in one.opts}
    assert {word.partition("=")[0] for word in arguments if word.startswith("-")} <= known
    pods = sent["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    variables = {one["secretName"] for one in pods["exec-nightly"]["secretAsEnv"]}
    assert {"storage-secret", "ilab-tokens"} <= variables
    assert schedule("--delete")["removed"] == [second["recurring"]]
    assert [one["name"] for one in schedule("--list")] == ["other"]
    assert "no recurring run" in schedule("--delete", code=2).message


def test_what_is_wrong_with_a_schedule(cluster: Cluster) -> None:
    def refused(*arguments: str) -> Any:
        given = ("--host", cluster.server.url, "--image", IMAGE, *arguments)
        return cluster.ilab("pipeline", "schedule", "--on", "kubeflow", *given, code=2).exception

    assert "--run-store s3://" in refused().hint
    store = ("--run-store", "s3://bucket/here")
    assert refused(*store, "--cron", "0 99 * * *").where == "--cron"
    assert refused(*store, "--timezone", "Europe/Prague").where == "--timezone"
    assert refused(*store, "--output", "nightly.yaml").where == "--output"
    (cluster.project / "own.yaml").write_text("extends: quickstart\n")
    assert "no file own.yaml" in refused(*store, "--pipeline", "own.yaml").message
    assert "--on kubeflow" in cluster.ilab("pipeline", "schedule", "--list", code=2).exception.hint
    assert not cluster.server.recurring
