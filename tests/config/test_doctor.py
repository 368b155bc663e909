"""`ilab doctor` and `ilab system info`: what is missing, the line to type, and no secrets."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ilab import doctor
from ilab.cli.app import main
from ilab.config import load
from ilab.doctor import Finding, examine
from ilab.errors import SetupError
from ilab.hardware import GIB, Gpu, Hardware
from ilab.testing.teacher import serve

CPU = {"version": "2.13.0+cpu", "cuda available": False, "mps available": False}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is asked once, in a test of its own."""
    monkeypatch.setattr(doctor, "torch_info", lambda: CPU)


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
    sets = ("profile=cpu", f"models.teacher={tmp_path}")
    found = findings(tmp_path, *sets)
    assert found["teacher"] == Finding("teacher", "ok", str(tmp_path))
    assert found["student"].fix == "ilab model download --repository Qwen/Qwen3-0.6B"
    from ilab.config import cache_home

    (cache_home() / "models" / "Qwen" / "Qwen3-0.6B").mkdir(parents=True)
    assert findings(tmp_path, *sets)["student"].state == "ok"


def test_packages_and_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(doctor, "PORT", port)
        monkeypatch.setattr(doctor, "version", lambda name: None if name == "peft" else "1.0")
        found = findings(tmp_path)
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
        ((Gpu("NVIDIA L4", "nvidia", 22 * GIB),), {"cuda available": True}, "cuda", "ok", "devices: cpu, cuda"),
        ((Gpu("Radeon", "amd", 22 * GIB),), {}, "auto", "note", "does not see Radeon"),
        ((Gpu("Apple M4", "apple", 22 * GIB),), {"mps available": True}, "auto", "ok", "devices: cpu, mps"),
        ((), {"error": "no libcudart"}, "auto", "bad", "no libcudart"),
    ],
)
def test_torch_sees_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: Any, told: dict[str, Any], wanted: str, state: str, text: str
) -> None:
    monkeypatch.setattr(doctor, "detect", lambda: Hardware("Linux", "CPU", 4, 64 * GIB, gpus))
    monkeypatch.setattr(doctor, "torch_info", lambda: CPU | told)
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
    assert told["Platform"]["python"] == platform.python_version()
    assert told["Paths"]["store"].endswith("/instructlab/store")
    assert told["Torch"]["version"].startswith(told["Packages"]["torch"].partition("+")[0])
    assert "hf_very_secret" not in done.stdout
