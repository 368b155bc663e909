"""``ilab model convert``: what is printed, the exit codes, and the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("gguf")

from ilab.cli.app import main
from ilab.packaging.gguf import export, llamacpp, parity


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder on a machine without llama.cpp."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parity, "server_name", lambda: None)
    monkeypatch.setattr(llamacpp, "quantiser", lambda: None)
    return tmp_path


def ilab(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=True)


def test_a_file_and_a_line_for_each_check(folder: Path, tiny_model: Path) -> None:
    done = ilab("model", "convert", str(tiny_model), "--type", "q8_0", "--model-name", "lamp")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "lamp-q8_0.gguf: 0.0 MB, q8_0 (tensors: 5 F32, 16 Q8_0)"
    assert lines[1].startswith("  weights off by 0.00")
    assert lines[2] == "  tokens  28 texts, 0 with other tokens (the file as ilab reads it)"
    assert "same best token" in lines[3]
    assert "convert: done" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["lamp-q8_0.gguf", "lamp-q8_0.parity.json"]


def test_json_is_what_stands_beside_the_file(folder: Path, tiny_model: Path) -> None:
    done = ilab("--json", "model", "convert", "--model-dir", str(tiny_model), "--output", "out/m.gguf")
    told = json.loads(done.stdout)
    assert told.pop("path") == "out/m.gguf"
    assert told == json.loads((folder / "out/m.parity.json").read_text())
    assert [check["name"] for check in told["checks"]] == ["weights", "tokens", "logits"]
    assert told["type"] == "f16"


def test_what_could_not_be_checked_is_said(folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_available", lambda: 10)
    done = ilab("model", "convert", str(tiny_model))
    assert done.exit_code == 0
    assert "  logits  not checked: the model in 32 bits takes 0.0 GB of memory" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "q9"], "is no type of GGUF file"),
        (["--type", "q4_k_m"], "made by llama.cpp's quantiser"),
        (["--output", "m.bin"], "ends in .gguf"),
        (["--output", "there.gguf"], "there already"),
        (["--model-dir", "other"], "given twice"),
    ],
)
def test_what_cannot_be_done_is_refused(folder: Path, tiny_model: Path, arguments: list[str], message: str) -> None:
    (folder / "there.gguf").write_text("mine")
    done = ilab("model", "convert", str(tiny_model), *arguments)
    assert message in str(done.exception)
    assert [path.name for path in folder.iterdir()] == ["there.gguf"]
    assert (folder / "there.gguf").read_text() == "mine"


def test_force_replaces(folder: Path, tiny_model: Path) -> None:
    (folder / "m.gguf").write_text("old")
    assert ilab("model", "convert", str(tiny_model), "--output", "m.gguf", "--force").exit_code == 0
    assert (folder / "m.gguf").read_bytes()[:4] == b"GGUF"


def test_a_folder_is_looked_for_where_the_project_is(folder: Path, tiny_model: Path) -> None:
    (folder / "project").mkdir()
    (folder / "project" / "made").symlink_to(tiny_model)
    done = ilab("-C", "project", "model", "convert", "--model-path", "made", "--type", "f32")
    assert done.exit_code == 0, done.output
    assert (folder / "project" / f"{tiny_model.name}-f32.gguf").is_file()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # PEFT asks for it
def test_an_adapter_is_merged_first(folder: Path, tiny_model: Path) -> None:
    """The options as InstructLab's scripts gave them; what was read is still there."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    from ilab.models.gguf.reader import File

    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), peft.LoraConfig(r=2, target_modules=["q_proj"])
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.5)
    model.save_pretrained(folder / "adapter")
    there = {path.name for path in tiny_model.iterdir()}
    plain = ilab("model", "convert", str(tiny_model), "--type", "f32", "--model-name", "lamp", "--output", "plain.gguf")
    done = ilab(
        "model", "convert", "--model-dir", str(tiny_model), "--adapter-file", "adapter", "--model-name", "lamp", "-sq",
        "-sd", "--type", "f32",
    )  # fmt: skip
    assert (plain.exit_code, done.exit_code) == (0, 0), done.output
    assert "note: --skip-quantize is not needed" in done.stderr and "note: --skip-de-quantize" in done.stderr
    assert {path.name for path in tiny_model.iterdir()} == there
    one, other = (dict(File(folder / name).tensors()) for name in ("plain.gguf", "lamp-f32.gguf"))
    changed = {name for name in one if (one[name] != other[name]).any()}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter", "lamp-f32.gguf", "lamp-f32.parity.json", "plain.gguf", "plain.parity.json",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["none", "auto"])
def test_no_adapter_is_no_adapter(folder: Path, tiny_model: Path, word: str) -> None:
    done = ilab("model", "convert", str(tiny_model), "--adapter-file", word, "--type", "q4_0", "--output", "m.gguf")
    assert done.exit_code == 0, done.output
    assert "q4_0 (tensors: 5 F32, 14 Q4_0, 2 Q8_0)" in done.stdout
