"""A GGUF file as a model that answers here, without llama.cpp: as the model that it was made of."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from ilab.errors import InputError, SetupError
from ilab.models.gguf.header import read_header
from ilab.models.gguf.load import load_gguf, tokenizer_json
from ilab.models.gguf.reader import File, read_tokenizer
from ilab.models.local import LocalModel
from ilab.packaging.gguf import parity
from ilab.packaging.gguf.export import export_gguf
from ilab.packaging.gguf.texts import TEXTS

Build = Callable[..., Path]
MESSAGES = [{"role": "user", "content": "How many locks has the canal?"}]


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without llama.cpp."""
    monkeypatch.setattr(parity, "server_name", lambda: None)


@pytest.mark.parametrize("family", ["llama", "mistral", "granite"])
def test_the_file_answers_as_the_model(family: str, gguf_model: Build, tmp_path: Path) -> None:
    folder = gguf_model(family)
    export_gguf(folder, tmp_path / "m.gguf", "f32")
    file, model = load_gguf(tmp_path / "m.gguf", "cpu"), LocalModel.load(folder, "cpu")
    assert file.context_length == model.context_length
    assert file.renderer.stop_ids == model.renderer.stop_ids
    assert file.renderer.template_source == model.renderer.template_source
    prompt = model.renderer.prompt_ids(MESSAGES)
    assert file.renderer.prompt_ids(MESSAGES) == prompt
    assert list(file.generate(prompt, 12)) == list(model.generate(prompt, 12))


@pytest.mark.parametrize("kind", ["gpt-2", "dbrx", "tekken", "prepend", "never"])
def test_its_tokenizer_cuts_as_llamacpp_does(kind: str, gguf_model: Build, tmp_path: Path) -> None:
    export_gguf(gguf_model("qwen2", kind), tmp_path / "m.gguf", "f32")
    file = File(tmp_path / "m.gguf")
    made, encode = Tokenizer.from_str(tokenizer_json(file)), read_tokenizer(file)
    assert made.get_vocab_size() == len(file.keys["tokenizer.ggml.tokens"])
    for text in TEXTS:
        ids = made.encode(text, add_special_tokens=False).ids
        assert ids == encode(text), text
        assert made.decode(ids, skip_special_tokens=False) == text


def test_what_is_torn_says_so(gguf_model: Build, tmp_path: Path) -> None:
    export_gguf(gguf_model("mistral"), tmp_path / "whole.gguf", "q8_0")
    whole = (tmp_path / "whole.gguf").read_bytes()
    header = read_header(tmp_path / "whole.gguf")
    assert (header.architecture, header.context, header.parts) == ("llama", 256, 1)
    assert "</s>" in header.special_tokens
    torn = tmp_path / "torn.gguf"
    for size in [*range(4, 200, 7), *range(200, len(whole), len(whole) // 60), len(whole) - 32]:
        torn.write_bytes(whole[:size])
        with pytest.raises(
            InputError, match=r"torn: (ends within its header|its header promises [\d,]+ bytes, it has)"
        ):
            read_header(torn)
    with pytest.raises(InputError, match="torn"):
        load_gguf(torn)
    torn.write_bytes(whole + b"more")  # padding behind is no fault
    assert read_header(torn).tensors == header.tensors


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "begins with b''"),
        (b"PK\x03\x04 a zip", "no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 is not known"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "torn: ends within its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62) + b"x" * 40, "torn: ends within its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 99) + b"x" * 9, "makes no sense"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 9) * 9 + b"\0" * 99, "torn"),
    ],
)
def test_foreign_files_are_refused(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_header(tmp_path / "m.gguf")


def test_other_architectures_need_llamacpp(tmp_path: Path) -> None:
    key, name = b"general.architecture", b"mamba"
    text = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(name)) + name
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text + b"\0" * 64)
    with pytest.raises(SetupError, match=r"'mamba' needs llama\.cpp") as caught:
        load_gguf(tmp_path / "m.gguf")
    assert "ilab[llamacpp]" in caught.value.hint
