"""`ilab doctor` and `ilab system info`: what is missing, the line to type, and no secrets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ilab.cli.app import main
from ilab.config import cache_home, data_home, load
from ilab.core.lease import Lease
from ilab.doctor import Finding, examine, programs, servers
from ilab.errors import SetupError
from ilab.hardware import GIB, Gpu, Hardware
from ilab.testing.teacher import serve

CPU = {
    "torch.version": "2.13.0+cpu",
    "torch.version.cuda": None,
    "torch.version.hip": None,
    "torch.cuda.available": False,
    "torch.backends.mps.is_available": False,
}
CUDA = {"torch.cuda.available": True}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is asked once, in a test of its own."""
    monkeypatch.setattr("ilab.doctor.devices.torch_info", lambda: CPU)


def findings(folder: Path, *sets: str) -> dict[str, Finding]:
    found = {finding.name: finding for finding in examine(load(folder, sets=sets))}
    for finding in found.values():
        assert finding.found
        assert finding.state == "ok" or (finding.fix and finding.needed_for), finding
    return found


def test_a_server_is_asked_what_it_serves(tmp_path: Path) -> None:
    with serve(models=("big", "small")) as teacher:
        url = f"where.teacher.url={teacher.url}"
        assert findings(tmp_path, url)["where.teacher"].found == f"{teacher.url} serves big, small"
        wrong = findings(tmp_path, url, "where.teacher.model=huge")["where.teacher"]
        assert teacher.calls == [], "nothing that costs"
    assert wrong.state == "bad" and "huge" in wrong.found and "big" in wrong.fix
    assert findings(tmp_path, url)["where.teacher"].state == "bad", "it is gone"


def test_a_key_that_is_missing_is_told_and_one_that_is_there_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with serve() as teacher:
        sets = (f"where.judge.url={teacher.url}", "where.judge.api_key=env:MY_KEY")
        missing = findings(tmp_path, *sets)["where.judge"]
        monkeypatch.setenv("MY_KEY", "sk-very-secret")
        there = findings(tmp_path, *sets)
    assert missing.state == "bad" and "MY_KEY" in missing.found and "export MY_KEY" in missing.fix
    assert there["where.judge"].state == "ok"
    assert "sk-very-secret" not in str(there)


def test_models_that_lie_here_are_found(tmp_path: Path) -> None:
    teacher = tmp_path / "t.gguf"
    teacher.write_bytes(b"GGUF")
    sets = ("profile=cpu", f"models.teacher={teacher}")
    found = findings(tmp_path, *sets)
    assert found["teacher"] == Finding("teacher", "ok", str(teacher))
    assert "sdg_teacher_family" in findings(tmp_path, "profile=cpu", f"models.teacher={tmp_path}")["teacher"].fix
    assert found["student"].fix == "ilab model download --repository Qwen/Qwen3-0.6B"
    assert found["models folder"].found.endswith("the models that are missing are 3.8 GB")
    student = cache_home() / "models" / "Qwen" / "Qwen3-0.6B"
    student.mkdir(parents=True)
    (student / "config.json").write_text("{}")
    (student / "model.safetensors").write_bytes(b"")
    (cache_home() / "models" / "granite-4.0-micro-Q4_K_M.gguf").write_bytes(b"GGUF")
    found = findings(tmp_path, *sets)
    assert (found["student"].state, "no chat template" in found["student"].found) == ("note", True)
    assert found["judge"].state == "ok", "a GGUF file lies under its own name"
    (student / "chat_template.jinja").write_text("{{ messages }}")
    assert findings(tmp_path, *sets)["student"] == Finding("student", "ok", str(student))
    (student / "chat_template.jinja").write_text("{{ messages")
    assert findings(tmp_path, *sets)["student"].state == "bad"


def test_the_default_model(tmp_path: Path) -> None:
    missing = findings(tmp_path, "models.default=lab/none")["models.default"]
    assert (missing.state, missing.fix) == ("bad", "ilab model download --repository lab/none")
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    named = findings(tmp_path, "models.default=own", "models.named.own.path=mine.gguf")["models.default"]
    assert named == Finding("models.default", "ok", str(tmp_path / "mine.gguf"))


def test_models_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ilab.hardware.detect", lambda: Hardware("Linux", "CPU", 4, 8 * GIB))
    found = findings(tmp_path, "profile=gpu-24")
    assert "needs 17 GiB and more; there are 8 GiB" in found["memory for the teacher"].found
    assert "ilab config set --user profile cpu" in found["memory for the teacher"].fix
    assert "memory for the embedder" not in found
    assert not [name for name in findings(tmp_path, "profile=cpu") if name.startswith("memory for")]
    with serve() as teacher:
        served = findings(tmp_path, "profile=gpu-24", f"where.teacher.url={teacher.url}")
    assert "memory for the teacher" not in served


def test_the_taxonomy(tmp_path: Path) -> None:
    assert findings(tmp_path)["taxonomy"].state == "note"
    assert findings(tmp_path, "parameters.sdg_repo_url=tax")["taxonomy"].state == "bad"
    url = findings(tmp_path, "parameters.sdg_repo_url=https://ann:pw@example.org/t.git@main")["taxonomy"]
    assert (url.state, url.found) == ("ok", "https://example.org/t.git@main, fetched when it is needed")
    (tmp_path / "tax").mkdir()
    assert "has no qna.yaml" in findings(tmp_path, "parameters.sdg_repo_url=tax")["taxonomy"].found
    (tmp_path / "tax" / "qna.yaml").write_text("")
    git = ["git", "-C", str(tmp_path / "tax"), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path / "tax")], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    for base, state in (("main", "ok"), ("empty", "ok"), ("origin/main", "bad"), ("-x", "bad")):
        found = findings(tmp_path, "parameters.sdg_repo_url=tax", f"parameters.taxonomy_base={base}")["taxonomy"]
        assert found.state == state, (base, found)


def test_what_was_left_unfinished(tmp_path: Path) -> None:
    sets = (f"where.store={tmp_path / 'store'}",)
    assert "unfinished results" not in findings(tmp_path, *sets)
    (tmp_path / "store" / "train" / "abc.partial").mkdir(parents=True)
    partial = cache_home() / "models" / ".ilab" / "partial" / "lab%lamp"
    partial.mkdir(parents=True)
    (partial / "x").write_bytes(bytes(10))
    found = findings(tmp_path, *sets)
    assert found["unfinished results"].found.startswith("1 begun")
    assert "ilab model download --repository lab/lamp" in found["download lab/lamp"].fix
    lease = Lease(tmp_path / "store" / "train" / "abc.partial" / "lease.json")
    try:
        assert findings(tmp_path, *sets)["unfinished results"].found == "1 are being made now"
    finally:
        lease.release()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_who_has_a_port_is_told(tmp_path: Path) -> None:
    with serve(models=("big",)) as teacher:
        port = int(teacher.url.split(":")[2].partition("/")[0])
        found = findings(tmp_path, f"where.serve.port={port}")[f"port {port}"].found
    assert found.startswith(f"http://127.0.0.1:{port}/v1 serves big (")
    assert found.endswith(f", process {os.getpid()})")
    assert servers.listener(port) == ""


def test_a_cluster_is_looked_at_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "cluster" not in findings(tmp_path)
    assert findings(tmp_path, "where.train.launcher=TrainJob")["cluster"].state == "bad"
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["doctor", "--cluster"])
    assert isinstance(done.exception, SetupError) and "cluster" in done.exception.message


def test_a_login_that_ran_out_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that gives the token is started by the first request, when the context is told already."""
    (tmp_path / "config").write_text(
        "{current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}], clusters: [{name: c, cluster: "
        "{server: 'https://127.0.0.1:9'}}], users: [{name: u, user: {exec: {command: 'false'}}}]}"
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    found = findings(tmp_path, "where.train.launcher=TrainJob")
    assert found["cluster context"].state == "ok"
    assert (found["cluster login"].state, "exit code 1" in found["cluster login"].found) == ("bad", True)


def test_packages_and_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(programs, "version", lambda name: None if name == "peft" else "1.0")
        found = findings(tmp_path, f"where.serve.port={port}")
    assert found[f"port {port}"].found.startswith("taken by something that is no model server")
    assert found[f"port {port}"].fix == f"ilab model serve --port {port + 1}"
    assert (found["extra lora"].state, found["extra lora"].fix) == ("note", "pip install 'ilab[lora]'")
    assert found["extra gguf"].state == "ok"


def test_a_store_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    found = findings(tmp_path)["store"]
    assert (found.state, found.fix) == ("bad", "ilab config set where.store FOLDER")


@pytest.mark.parametrize(
    ("gpus", "told", "wanted", "state", "text"),
    [
        ((), {}, "auto", "ok", "devices: cpu"),
        ((), {}, "cuda:0", "bad", "where.device is cuda:0"),
        ((Gpu("NVIDIA L4", "nvidia", 22 * GIB),), {}, "auto", "note", "does not see NVIDIA L4 (22 GiB)"),
        ((Gpu("NVIDIA L4", "nvidia", 22 * GIB),), CUDA, "cuda", "ok", "devices: cpu, cuda"),
        ((Gpu("NVIDIA L4", "nvidia", 22 * GIB),), {}, "auto", "note", "built without CUDA"),
        (
            (Gpu("NVIDIA L4", "nvidia", 22 * GIB),),
            {"torch.version.cuda": "13.0"},
            "auto",
            "note",
            "built for CUDA 13.0, and the driver is one for CUDA 12.4",
        ),
        ((Gpu("NVIDIA L4", "nvidia", 22 * GIB),), {"torch.version.cuda": "12.8"}, "auto", "note", "does not see"),
        ((Gpu("Radeon", "amd", 22 * GIB),), {}, "auto", "note", "does not see Radeon"),
        (
            (Gpu("Apple M4", "apple", 22 * GIB),),
            {"torch.backends.mps.is_available": True},
            "auto",
            "ok",
            "devices: cpu, mps",
        ),
        ((), {"error": "no libcudart"}, "auto", "bad", "no libcudart"),
    ],
)
def test_torch_sees_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: Any, told: dict[str, Any], wanted: str, state: str, text: str
) -> None:
    monkeypatch.setattr("ilab.hardware.detect", lambda: Hardware("Linux", "CPU", 4, 64 * GIB, gpus))
    monkeypatch.setattr("ilab.doctor.devices.torch_info", lambda: CPU | told)
    monkeypatch.setattr("ilab.doctor.devices.driver_cuda", lambda: "12.4")
    found = findings(tmp_path, f"where.device={wanted}")["torch"]
    assert (found.state, text in found.found) == (state, True), found


def test_the_command_ends_with_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fine = CliRunner().invoke(main, ["doctor"])
    assert fine.exit_code == 0, fine.output
    assert "ok  git: " in fine.output and "      type: ilab model download" in fine.output
    broken = CliRunner().invoke(main, ["--json", "--set", "where.device=cuda", "doctor"])
    assert isinstance(broken.exception, SetupError) and "torch" in broken.exception.message
    assert {row["name"]: row["state"] for row in json.loads(broken.stdout)}["torch"] == "bad"


def test_a_mistake_in_the_configuration_is_a_finding_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ilab.yaml").write_text("where:\n  jobs: 0\n")
    done = CliRunner().invoke(main, ["doctor"])
    assert isinstance(done.exception, SetupError)
    assert f"!!  configuration: {tmp_path / 'ilab.yaml'}:2: where.jobs" in done.output
    assert "ok  git: " in done.output
    (tmp_path / "ilab.yaml").write_text("where:\n  jobs: 1\n")
    assert findings(tmp_path)["configuration"].found == str(tmp_path / "ilab.yaml")


def test_system_info_tells_versions_and_folders_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    done = CliRunner().invoke(main, ["--json", "system", "info"])
    told = json.loads(done.stdout)
    assert list(told)[:4] == ["GPUs", "InstructLab", "Packages", "Paths"], "sorted, as all JSON of ours"
    assert told["Platform"]["platform.python_version"] == platform.python_version()
    assert told["Paths"]["store"].endswith("/instructlab/store")
    assert told["Torch"]["torch.version"].startswith(told["Packages"]["torch"].partition("+")[0])
    assert "hf_very_secret" not in done.stdout
    monkeypatch.setattr("ilab.machine.torch_info", lambda: CPU)  # loading it once is enough
    text = CliRunner().invoke(main, ["system", "info"]).stdout
    order = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert order[:4] == ["Platform:", "InstructLab:", "Torch:", "llama_cpp_python:"]
    monkeypatch.setattr("ilab.machine.version", lambda name: None)
    without = json.loads(CliRunner().invoke(main, ["--json", "system", "info"]).stdout)
    assert without["Torch"] == {} and without["llama_cpp_python"]["llama_cpp_python.version"] is None


def test_what_takes_room_counts_each_byte_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        data_home() / "store" / "train" / "key" / "record.json": 100,
        data_home() / "store" / "train" / "other.partial" / "work" / "state": 2000,
        data_home() / "checkpoints" / "one" / "model": 30_000,
        data_home() / "else" / "file": 7,
        cache_home() / "models" / "small.gguf": 400_000,
        cache_home() / "models" / ".ilab" / "partial" / "lab%lamp" / "part": 50,
        cache_home() / "git" / "a" / "b": 6_000_000,
    }
    for path, size in files.items():
        path.parent.mkdir(parents=True)
        path.write_bytes((b"GGUF" + bytes(size))[:size])
    os.link(*(data_home() / "store" / "train" / "key" / name for name in ("record.json", "again")))
    (cache_home() / "models" / "linked").symlink_to(data_home())
    told = json.loads(CliRunner().invoke(main, ["--json", "system", "df"]).stdout)
    uses = {one["name"]: one for one in told["uses"]}
    assert {name: one["bytes"] for name, one in uses.items() if one["bytes"]} == {
        "results": 100,
        "unfinished results": 2000,
        "checkpoints": 30_000,
        "other data": 7,
        "models": 400_000,
        "downloads under way": 50,
        "caches": 6_000_000,
    }
    assert told["bytes"] == sum(files.values())
    assert uses["caches"]["prune"].startswith(f"rm -r {cache_home() / 'git'} ")
    text = CliRunner().invoke(main, ["system", "df"]).stdout
    assert "6.0 MB  caches, 1 folder" in text and "ilab pipeline gc" in text and "datasets" not in text
