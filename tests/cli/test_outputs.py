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
from ilab.cli.outputs import log_file
from ilab.cli.train_result import check_answers
from ilab.core.store import Store
from ilab.errors import InputError

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
QNA = "taxonomy/knowledge/technology/devices/tavrin_kiln/qna.yaml"
ROW = {"id": "1", "question": "How many?", "options": ["two", "six"], "answer": "two", "document": "The lens is old."}
IN_PODS = {"image": "quay.io/a/b:1", "volumes.work": "/"}
KUBERNETES = [word for name, value in IN_PODS.items() for word in ("--set", f"where.train.kubernetes.{name}={value}")]
FLOW = """\
name: own
version: 1
branches:
  all:
    input: chunk
    blocks:
      - type: dedup
        columns: [document]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(QUICKSTART, folder, ignore=shutil.ignore_patterns(".ilab"))
    (folder / "notes.txt").write_text("mine")
    (folder / ".env").write_text("SDG_SCALE_FACTOR=3\nOPENAI_API_KEY=sk\n")
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (folder / "old.yaml").write_text("version: 1.0.0\ngeneral: {log_level: INFO}\n")
    (folder / "own.yaml").write_text(FLOW)
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
        ("pipeline", "compile", "--image", "quay.io/a/b:1", "--claim", "c", "-o"),
        ("pipeline", "schedule", "--output"),
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
        ((*KUBERNETES, "pipeline", "schedule", "--output"), "nightly.yaml"),
        (("flow", "run", "own.yaml", "--input", "rows.jsonl", "--output"), "made.jsonl"),
    ],
)
def test_the_same_command_again_writes_its_result_anew(project: Path, command: tuple[str, ...], name: str) -> None:
    assert ilab(*command, name).exception is None
    first = (project / name).read_text()
    (project / name).touch()
    assert ilab(*command, name).exception is None
    assert (project / name).read_text() == first != ""
    assert ilab(*command, name).exception is None, "over its own result too"
    assert (project / name).read_text() == first


def test_a_pipeline_that_was_compiled_before_is_written_over(project: Path) -> None:
    earlier = QUICKSTART.parents[1] / "deploy" / "pipeline.yaml"
    shutil.copyfile(earlier, project / "made.yaml")
    done = ilab("pipeline", "compile", "--image", "quay.io/a/b:1", "--claim", "c", "-o", "made.yaml")
    assert done.exception is None
    assert "quay.io/a/b:1" in (project / "made.yaml").read_text()


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.rejected.jsonl"])
def test_rows_of_ones_own_with_ids_are_no_earlier_result(project: Path, name: str) -> None:
    (project / name).write_text('{"id": "1", "text": "mine"}\n')
    done = ilab("flow", "run", "own.yaml", "--input", "rows.jsonl", "--output", "mine.jsonl")
    assert isinstance(done.exception, InputError) and "no earlier result" in done.exception.message
    assert (project / name).read_text() == '{"id": "1", "text": "mine"}\n'


@pytest.mark.parametrize("name", ["answers.md", "answers.jsonl"])
def test_answers_of_ones_own_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"my": "own"}\n')
    with pytest.raises(InputError, match="no earlier result"):
        check_answers(tmp_path)
    (tmp_path / "answers.jsonl").write_text('{"question": "a?", "expected": "b", "base": "c"}\n')
    (tmp_path / "answers.md").write_text("### a?\n")
    check_answers(tmp_path)


@pytest.mark.parametrize(
    ("name", "contents"), [("model.gguf", b"GGUF\0\1"), ("run.log", b"\0"), ("notes.md", b"# mine\n"), ("sub", None)]
)
def test_nothing_is_appended_to_what_is_no_log(tmp_path: Path, name: str, contents: bytes | None) -> None:
    if contents is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(InputError):
        log_file(name, tmp_path)
    (tmp_path / "serve.log").write_text("serving\n")
    for good in ("serve.log", "new.gguf"):
        assert log_file(good, tmp_path) == tmp_path / good


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
