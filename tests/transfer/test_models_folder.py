"""The models folder: listing, telling about, removing, uploading, and being found by the other commands."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from lamp import Run, files_below, model_files

from ilab.errors import InputError
from ilab.testing.hub import Repository, serve_hub
from ilab.transfer.address import Address, parse
from ilab.transfer.describe import describe
from ilab.transfer.shelf import Model, Shelf, model_at

NAME = "lab/lamp"


def put(models: Path, name: str, files: dict[str, bytes] | None = None) -> Path:
    folder = models / name
    folder.mkdir(parents=True)
    for file, content in (files or model_files()).items():
        (folder / file).write_bytes(content)
    return folder


@pytest.fixture
def downloaded(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with serve_hub({NAME: Repository(model_files())}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        ilab("model", "download", "-rp", NAME)
    return models / NAME


def gguf(architecture: str, kind: int) -> bytes:
    """The head of a GGUF file (ggml's specification), with a vocabulary behind it."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [
        text("general.architecture") + struct.pack("<I", 8) + text(architecture),
        text("general.license") + struct.pack("<I", 8) + text("mit"),
        text("general.languages") + struct.pack("<IIQ", 9, 8, 1) + text("en"),
        text(f"{architecture}.context_length") + struct.pack("<II", 4, 2048),
        text("general.file_type") + struct.pack("<II", 4, kind),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 1 << 40),
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries)


def test_the_list_tells_what_there_is(ilab: Run, models: Path, downloaded: Path) -> None:
    put(models, "own/other", {**model_files(10), "README.md": b"---\nlicense: mit\n---"})
    (models / "small.gguf").write_bytes(gguf("llama", 15))
    rows = {row["name"]: row for row in json.loads(ilab("--json", "model", "list").stdout)}
    assert sorted(rows) == [NAME, "own/other", "small.gguf"]
    lamp, small = rows[NAME], rows["small.gguf"]
    assert (lamp["format"], lamp["quantisation"], lamp["parameters"]) == ("safetensors", "bf16", 50_000)
    assert lamp["bytes"] == sum(len(content) for content in model_files().values())
    assert (lamp["licence"], lamp["lineage"][:13]) == ("apache-2.0", "hf://lab/lamp")
    assert (rows["own/other"]["licence"], rows["own/other"]["lineage"]) == ("mit", "")
    assert (small["quantisation"], small["architecture"], small["context"]) == ("q4_k_m", "llama", 2048)
    assert small["licence"] == "mit"
    shown = ilab("model", "list").output
    assert NAME in shown and "never" in shown and "small.gguf" in shown


def test_an_empty_list_says_how_to_get_a_model(ilab: Run, models: Path) -> None:
    assert "ilab model download" in ilab("model", "list").output
    assert json.loads(ilab("--json", "model", "list", "--list-checkpoints").stdout) == []


def test_real_weights_are_counted_as_torch_counts_them(tiny_model: Path) -> None:
    from safetensors import safe_open

    with safe_open(tiny_model / "model.safetensors", "pt") as tensors:
        expected = sum(tensors.get_tensor(name).numel() for name in tensors.keys())  # noqa: SIM118
    facts = describe(Model("tiny", tiny_model, None, None))
    assert (facts.parameters, facts.architecture, facts.context) == (expected, "LlamaForCausalLM", 256)


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs gguf")
def test_the_gguf_packages_own_files_are_read(tmp_path: Path) -> None:
    import gguf as package

    path = tmp_path / "x.gguf"
    writer = package.GGUFWriter(str(path), "qwen3")
    writer.add_file_type(package.LlamaFileType.MOSTLY_Q8_0)
    writer.add_license("apache-2.0")
    writer.add_context_length(4096)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    facts = describe(Model("x", path, None, None))
    assert (facts.quantisation, facts.architecture, facts.context) == ("q8_0", "qwen3", 4096)
    assert facts.licence == "apache-2.0"


def test_checkpoints_are_listed_and_found_by_their_names(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(models.parent / "data"))
    path = put(models.parent / "data" / "instructlab" / "checkpoints", "hf_format/samples_8")
    assert json.loads(ilab("--json", "model", "list").stdout) == []
    rows = json.loads(ilab("--json", "model", "list", "--list-checkpoints").stdout)
    assert [(row["name"], row["path"]) for row in rows] == [("hf_format/samples_8", str(path))]
    assert str(path) in ilab("model", "list", "--list-checkpoints").output
    assert "in 8 files" in ilab("model", "info", "hf_format/samples_8").output
    sent = ilab("model", "upload", "-m", "hf_format/samples_8", "-d", "ann/lamp", "--dry-run").output
    assert "hf://ann/lamp" in sent
    with pytest.raises(InputError, match="no model 'hf_format/samples_8'"):
        ilab("model", "remove", "hf_format/samples_8", "--yes")


def test_folders_of_ones_own(ilab: Run, models: Path, tmp_path: Path) -> None:
    mine = put(tmp_path / "mine", "lamp")
    other = put(tmp_path / "other", "lab/lamp", model_files(10))
    listed = json.loads(ilab("--json", "model", "list", "--model-dirs", "mine", "--model-dirs", "other").stdout)
    assert [row["path"] for row in listed] == [str(mine), str(other)]
    assert "There are no models" in ilab("model", "list", "--model-dirs", "nowhere").output
    assert json.loads(ilab("--json", "model", "info", "mine/lamp").stdout)["parameters"] == 50_000
    ilab("model", "remove", "--model", "lab/lamp", "--force", "-md", "other")
    assert not other.exists() and mine.exists()


@pytest.mark.parametrize("cut", [4, 20, 30, 60, 100])
def test_a_damaged_head_is_no_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf("llama", 15)[:cut])
    assert describe(Model("x", path, None, None)).format == "gguf"
    folder = put(tmp_path, "y", {**model_files(10), "config.json": b"[]", "lineage.json": b"7", "README.md": b"\xff"})
    (folder / "model.safetensors").write_bytes(model_files(10)["model.safetensors"][: cut // 2])
    assert describe(Model("y", folder, None, None)).parameters is None


def test_info_finds_a_changed_byte(ilab: Run, downloaded: Path) -> None:
    assert "every file is what was downloaded" in ilab("model", "info", NAME, "--check").output
    weights = downloaded / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (downloaded / "LICENSE").unlink()
    with pytest.raises(InputError, match="2 of its files are damaged"):
        ilab("model", "info", NAME, "--check")
    assert "damaged" not in ilab("model", "info", NAME).output
    with pytest.raises(InputError, match="there is no model 'lab/lump'") as caught:
        ilab("model", "info", "lab/lump")
    assert "did you mean 'lab/lamp'?" in caught.value.hint


def test_removing_asks_first(ilab: Run, models: Path, downloaded: Path) -> None:
    put(models, "lab/other")
    assert "Aborted deletion." in ilab("model", "remove", NAME, input="n\n").output
    assert downloaded.is_dir()
    ilab("model", "remove", NAME, input="y\n")
    assert not downloaded.exists()
    assert (models / "lab" / "other").is_dir()
    ilab("model", "remove", "-m", "models/lab/other", "--force")
    assert not (models / "lab").exists()
    assert not list((models / ".ilab").rglob("*.json"))


@pytest.mark.parametrize(
    "name", ["lab", "..", ".", "lab/..", "../models/lab/lamp", "lab/../lab/lamp", "", "/", "lab/lamp/", ".ilab"]
)
def test_only_a_model_can_be_removed(ilab: Run, models: Path, downloaded: Path, name: str) -> None:
    outside = put(models.parent, "outside")
    before = {**files_below(models), **files_below(outside)}
    for given in (name, str(outside), "../outside"):
        with pytest.raises(InputError):
            ilab("model", "remove", given, "--yes")
    assert {**files_below(models), **files_below(outside)} == before


def test_a_link_is_removed_not_what_it_leads_to(ilab: Run, models: Path, tmp_path: Path) -> None:
    target = put(tmp_path, "elsewhere")
    models.mkdir(parents=True)
    (models / "linked").symlink_to(target)
    ilab("model", "remove", "linked", "--yes")
    assert not (models / "linked").exists()
    assert files_below(target) == model_files()


def test_the_other_commands_find_a_model_by_its_name(ilab: Run, models: Path, tiny_model: Path, tmp_path: Path) -> None:
    from ilab.config import load
    from ilab.outcome import model_to_use
    from ilab.training.base import find_base

    shutil.copytree(tiny_model, models / NAME)
    loaded = load(tmp_path)
    assert model_to_use(loaded, NAME) == (models / NAME, "lamp")
    assert find_base(NAME, tmp_path).locator == str(models / NAME)
    assert Shelf(models).need(NAME).used is not None
    assert ilab("model", "chat", "--model-path", NAME, "-qq", "--max-tokens", "3", "Hello").exit_code == 0
    question = {"question": "2 plus 3?", "choices": ["4", "5"], "answer": 1, "subject": "sums"}
    put(tmp_path, "set", {"test.jsonl": json.dumps(question).encode()})
    measured = ("--benchmark", "mmlu", "--test-set", "set", "--few-shots", "0", "--model", NAME, "--output-dir", "out")
    command = [sys.executable, "-m", "ilab", "model", "evaluate", *measured]
    assert "(1 questions)" in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    with pytest.raises(InputError, match="there is no model 'lab/lump'") as caught:
        model_to_use(loaded, "lab/lump")
    assert "ilab model download --repository lab/lump" in caught.value.hint
    with pytest.raises(InputError, match="there is no model") as caught:  # a file is in no hub under its path
        model_to_use(loaded, "models/ggml-model-f16.gguf")
    assert "download" not in caught.value.hint
    own = load(tmp_path, sets=[f"models.named.mine.path={NAME}", "models.default=mine"])
    assert model_to_use(own, "mine") == model_to_use(own, None) == (models / NAME, "lamp")
    mine = put(tmp_path, NAME)
    assert model_at(NAME, tmp_path) == mine  # a path goes before a name


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="needs huggingface_hub")
def test_what_was_uploaded_to_a_hub_comes_back(
    ilab: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "mine", {**model_files(), "optimizer.pt": b"\x80"})
    with serve_hub({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        # In a process of its own: huggingface_hub reads its environment once, and the tests' says offline.
        command = [sys.executable, "-m", "ilab", "--json", "model", "upload", "-m", "mine", "-d", "ann/lamp"]
        token = {"HF_TOKEN": "t0ken", "HF_HOME": str(tmp_path / "hf")}
        refused = subprocess.run(
            command, env={**os.environ, "HF_HOME": str(tmp_path / "hf")}, capture_output=True, text=True, check=False
        )
        assert refused.returncode == 2, refused.stderr
        assert "a token that may write is needed" in refused.stderr
        done = subprocess.run(command, env={**os.environ, **token}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["digest"] == hub.repositories["ann/lamp"].commit
        assert hub.repositories["ann/lamp"].files == model_files()
        ilab("model", "download", "-rp", "ann/lamp")
    assert files_below(models / "ann" / "lamp") == model_files()


def test_upload_refuses_what_is_no_model(ilab: Run, models: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="this is no model"):
        ilab("model", "upload", "-m", "empty", "-d", "ann/lamp")
    put(tmp_path, "mine")
    with pytest.raises(InputError, match="no place of type s3"):
        ilab("model", "upload", "-m", "mine", "--dest-type", "s3", "-d", "oci://registry.example.com/a/b")
    result = ilab("model", "upload", "-m", "mine", "--dest-type", "s3", "-d", "bucket", "--dry-run")
    assert "s3://bucket/mine" in result.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lab/lamp", Address("hf", "lab/lamp")),
        ("lab/lamp::v1.0", Address("hf", "lab/lamp", revision="v1.0")),
        ("hf://lab/lamp", Address("hf", "lab/lamp")),
        ("docker://quay.io/a/b", Address("oci", "a/b", "quay.io")),
        ("oci://h:5000/a/b/c:1.0", Address("oci", "a/b/c", "h:5000", "1.0")),
        (f"oci://h/a@sha256:{'0' * 64}", Address("oci", "a", "h", f"sha256:{'0' * 64}")),
        ("s3://bucket/a/b/", Address("s3", "a/b", "bucket")),
        ("file:///a%20b/c", Address("file", "/a b/c")),
        ("file://~/c", Address("file", "~/c")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "lamp",
        "a/b/c",
        "../b",
        "a/..",
        "-x/b",
        "ftp://a/b",
        "oci://a",
        "oci://H/Ab",
        "s3://B_",
        "file://host/a",
        "a/b::",
        "a/b::-x",
        "a/b::a..b",
        "oci://h/a:1::2",
        "s3://bucket/a::1",
        "hf://a b/c",
        "a/b?x",
        "a/b#c",
        "a/\u00e4",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)
