"""What InstructLab's own users check without a model and without a network, on the real command line of ours.

Missing files and wrong options are in `upstream.yaml` (test_upstream.py), `taxonomy diff` in tests/taxonomy.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import main
from ilab.cli.compat import ALIASES
from ilab.errors import IlabError, InputError


def ilab(*arguments: str, typed: str = "") -> Result:
    """The command; an error of ours is the result's exception."""
    done = CliRunner().invoke(main, list(arguments), input=typed, prog_name="ilab")
    if done.exception is not None and not isinstance(done.exception, (IlabError, SystemExit)):
        raise done.exception
    return done


@pytest.fixture
def models() -> Path:
    """The models folder with a GGUF file and a Hugging Face directory, both of a few bytes."""
    root = Path(os.environ["XDG_CACHE_HOME"]) / "instructlab/models"
    folder = root / "instructlab/granite-7b-lab"
    folder.mkdir(parents=True)
    (root / "small-Q4_K_M.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    return root


def test_models_are_listed_and_removed(models: Path, tmp_path: Path) -> None:
    listed = ilab("model", "list").stdout
    assert "instructlab/granite-7b-lab" in listed and "small-Q4_K_M.gguf" in listed
    assert (
        "instructlab/granite-7b-lab" in ilab("model", "list", "--model-dirs", str(models), "--list-checkpoints").stdout
    )
    assert "There are no models" in ilab("model", "list", "--model-dirs", str(tmp_path / "none")).stdout
    kept = ilab("model", "remove", "-m", "small-Q4_K_M.gguf", typed="n\n")
    assert (kept.exit_code, (models / "small-Q4_K_M.gguf").exists()) == (0, True)
    assert "Aborted deletion." in kept.stderr
    assert ilab("model", "remove", "--model", "small-Q4_K_M.gguf", "-f").exit_code == 0
    assert not (models / "small-Q4_K_M.gguf").exists()
    other = models / "instructlab/other"
    (models / "instructlab/granite-7b-lab").rename(other)
    (models / "instructlab/kept.txt").touch()
    assert ilab("model", "remove", "-m", "instructlab/other", "-f", "-md", str(models)).exit_code == 0
    assert not other.exists() and (models / "instructlab/kept.txt").exists(), "never the whole folder of an owner"


def test_datasets_are_listed(tmp_path: Path) -> None:
    run = tmp_path / "sets" / "2026-01-01_000000"
    run.mkdir(parents=True)
    for name in ("skills_train_msgs_2026.jsonl", "train_mistral_2026.jsonl"):
        (run / name).write_text('{"messages": []}\n')
    listed = ilab("data", "list", "--dataset-dirs", str(tmp_path / "sets"))
    assert listed.exit_code == 0
    assert "train_mistral_2026.jsonl" in listed.stdout.replace("\n", "")
    missing = ilab("data", "list", "--dataset-dirs", str(tmp_path / "none"))
    assert isinstance(missing.exception, InputError)


@pytest.fixture
def processes() -> Path:
    """Three background processes of which the records alone are left: one done, one failed, one of ten days ago."""
    root = Path(os.environ["XDG_DATA_HOME"]) / "instructlab/processes"
    for number, (code, days) in enumerate([(0, 0), (1, 0), (0, 10)]):
        folder = root / f"{number}{number}abcdef"
        folder.mkdir(parents=True)
        started = time.time() - 100 - days * 86400
        record = {"arguments": ["data", "generate"], "directory": "/x", "host": "h", "started": started}
        (folder / "process.json").write_text(json.dumps(record))
        (folder / "log").write_text(f"line one of {number}\nerror: it failed\n")
        (folder / "ended.json").write_text(json.dumps({"code": code, "ended": started + 60}))
    return root


def test_processes_are_listed_followed_and_forgotten(processes: Path) -> None:
    def ids(*arguments: str) -> list[str]:
        return [row["id"][0] for row in json.loads(ilab("--json", "process", "list", *arguments).stdout)]

    assert ids() == ["2", "0", "1"], "the oldest first"
    assert (ids("--state", "Done"), ids("--state", "ERRORED"), ids("--state", "running")) == (["2", "0"], ["1"], [])
    (first,) = [row for row in json.loads(ilab("--json", "process", "list").stdout) if row["id"][0] == "0"]
    assert first["seconds"] == 60.0, "what has ended goes on no longer"
    table = ilab("process", "list").stdout
    assert "1 min 00 s" in table and "failed (1)" in table
    watched = ilab("process", "attach", "--uuid", "11abcdef")
    assert watched.stdout == "line one of 1\nerror: it failed\n", "all that it had said before, too"
    assert watched.exit_code == 1
    assert isinstance(ilab("process", "attach", "--uuid", "none").exception, InputError)
    assert ilab("process", "prune", "--older", "7", "--state", "Done").stdout == "removed 1\n"
    assert ilab("process", "remove", "00abcdef", "-f").stdout == "removed 00abcdef\n"
    assert ilab("process", "prune", "--older", "0", "-f").stdout == "removed 1\n"
    assert list(processes.iterdir()) == []
    assert "Nothing runs in the background" in ilab("process", "list").stderr


@pytest.mark.parametrize(
    ("arguments", "lacking"),
    [
        (["--benchmark", "mmlu"], "--model"),
        (["--benchmark", "mmlu_branch", "--model", "x"], "--base-model"),
        (["--benchmark", "mt_bench"], "--model, --judge-model"),
        (["--benchmark", "mt_bench_branch", "--model", "x", "--judge-model", "j"], "--base-model, --taxonomy-path"),
        (["--benchmark", "dk_bench", "--judge-model", "j"], "--input-questions"),
    ],
)
@pytest.mark.parametrize("command", [["model", "evaluate"], ["evaluate"]], ids=" ".join)
def test_measuring_says_what_is_lacking(command: list[str], arguments: list[str], lacking: str, tmp_path: Path) -> None:
    done = ilab("-C", str(tmp_path), *command, *arguments)
    assert isinstance(done.exception, InputError)
    assert f"requires {lacking}" in done.exception.message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "none", "--destination", "a/b"], "none"),
        (["--model", "none", "--destination", "s3://b", "--dest-type", "hf"], "no place of type hf"),
        (["--model", "none", "--destination", "file:///tmp"], "cp -r"),
    ],
)
def test_uploading_says_what_is_wrong(arguments: list[str], said: str, tmp_path: Path) -> None:
    error = ilab("-C", str(tmp_path), "model", "upload", *arguments).exception
    assert isinstance(error, InputError) and said in f"{error.message} {error.hint}"
    assert ilab("model", "upload", "--model", "x", "--destination", "a/b", "--dest-type", "ftp").exit_code == 2


def test_the_block_of_aliases() -> None:
    shown = ilab("--help").stdout
    block = shown[shown.index("Aliases:") :]
    for name, (noun, verb, text) in ALIASES.items():
        assert f"  {name} " in block and f"{noun} {verb}: {text}" in " ".join(block.split())


def test_an_alias_is_the_command_itself(models: Path) -> None:
    assert ilab("list").stdout == ilab("model", "list").stdout
    for alias, (noun, verb, _) in ALIASES.items():
        short, long = ilab(alias, "--help").stdout, ilab(noun, verb, "--help").stdout
        assert short.startswith(f"Usage: ilab {alias} "), alias
        assert short.partition("\n\n")[2] == long.partition("\n\n")[2] != "", alias


def test_its_name_is_ilab_however_it_is_started() -> None:
    done = subprocess.run([sys.executable, "-m", "ilab", "-v", "model", "evaluate", "--help"], capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.startswith("Usage: ilab model evaluate [OPTIONS]")
