"""A path that was mistyped, or leads elsewhere, costs nobody a file."""

from __future__ import annotations

import json
import shutil
import socket
import uuid
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import main
from ilab.core.store import Store
from ilab.errors import InputError

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
QNA = "taxonomy/knowledge/technology/devices/tavrin_kiln/qna.yaml"
ROW = {"id": "1", "question": "How many?", "options": ["two", "six"], "answer": "two", "document": "The lens is old."}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(QUICKSTART, folder, ignore=shutil.ignore_patterns(".ilab"))
    (folder / "notes.txt").write_text("mine")
    (folder / ".env").write_text("SDG_SCALE_FACTOR=3\nOPENAI_API_KEY=sk\n")
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (folder / "old.yaml").write_text("version: 1.0.0\ngeneral: {log_level: INFO}\n")
    (tmp_path / "elsewhere.yaml").write_text("keep: 1\n")
    (folder / "link.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    monkeypatch.chdir(folder)
    return folder


def ilab(*words: str) -> Result:
    return CliRunner().invoke(main, words, standalone_mode=False)


def contents(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file() and ".ilab" not in path.parts}


@pytest.mark.parametrize("name", [QNA, "ilab.yaml", "notes.txt", ".env", "link.yaml", "rows.jsonl", "taxonomy", "/"])
@pytest.mark.parametrize(
    "command",
    [
        ("plan", "--until", "taxonomy", "--output"),
        ("pipeline", "params", "--env-file"),
        ("evaluate", "validate-items", "rows.jsonl", "--output"),
        ("flow", "run", "extractive", "--kind", "knowledge", "--input", "rows.jsonl", "--output"),
        ("config", "migrate", "old.yaml", "--output"),
    ],
    ids=lambda words: words[1],
)
def test_a_file_of_ones_own_is_not_written_over(project: Path, command: tuple[str, ...], name: str) -> None:
    before = contents(project.parent)
    done = ilab(*command, name)
    assert isinstance(done.exception, InputError | OSError | click.UsageError), done.output
    assert contents(project.parent) == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("plan", "--until", "taxonomy", "--output"), "plan.json"),
        (("pipeline", "params", "--env-file"), "own.env"),
        (("evaluate", "validate-items", "rows.jsonl", "--output"), "flaws.json"),
    ],
)
def test_the_same_command_again_writes_its_result_anew(project: Path, command: tuple[str, ...], name: str) -> None:
    assert ilab(*command, name).exception is None
    first = (project / name).read_text()
    (project / name).touch()
    assert ilab(*command, name).exception is None
    assert (project / name).read_text() == first != ""


def test_settings_that_are_written_anew_are_kept_each_time(project: Path) -> None:
    words = ("config", "init", "--project", "--non-interactive", "--taxonomy-path", "taxonomy")
    first = (project / "ilab.yaml").read_text()
    for _ in range(2):
        assert ilab(*words).exception is None
    assert (project / "ilab.yaml.old").read_text() == first
    assert (project / "ilab.yaml.old.2").is_file()


def test_a_folder_that_serves_as_store_keeps_what_else_is_in_it(tmp_path: Path) -> None:
    for name in ("drafts/second.partial", "letters/2019.old", f"generate/{uuid.uuid4().hex}.partial"):
        (tmp_path / name).mkdir(parents=True)
    lease = {"host": socket.gethostname(), "pid": 1 << 22, "born": 0, "id": "x"}
    (tmp_path / "drafts" / "second.partial" / "lease.json").write_text(json.dumps(lease))
    assert [path.parent.name for path in Store(tmp_path).partials()] == ["generate"]
