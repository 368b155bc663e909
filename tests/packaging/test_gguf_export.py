"""GGUF files of every family, against the model itself, transformers' own reader and llama.cpp where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf")

from ilab.errors import GateError, InputError, SetupError
from ilab.models.gguf import reader
from ilab.models.gguf.reader import File
from ilab.models.llamacpp import server_name
from ilab.packaging.gguf import export, llamacpp, parity, weights
from ilab.packaging.gguf.export import Label, Options, export_gguf

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "granite")
Build = Callable[..., Path]
needs_llamacpp = pytest.mark.skipif(server_name() is None, reason="llama.cpp is not installed")
needs_quantiser = pytest.mark.skipif(llamacpp.quantiser() is None, reason="llama.cpp's quantiser is not installed")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without llama.cpp."""
    monkeypatch.setattr(parity, "server_name", lambda: None)
    monkeypatch.setattr(llamacpp, "quantiser", lambda: None)


def checks(result: parity.Parity) -> dict[str, parity.Check]:
    return {check.name: check for check in result.checks}


def logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("own")
def test_every_family_says_the_same_in_a_file(family: str, gguf_model: Build, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    result = export_gguf(gguf_model(family), out, "f32")
    found = checks(result)
    assert result.passed
    assert found["weights"].measured["error"] == 0.0
    assert found["tokens"].measured["different"] == 0
    assert found["tokens"].measured["texts"] >= 28
    assert found["logits"].measured["error"] < 1e-5
    assert found["logits"].measured["same_best_token"] == 1.0
    assert json.loads((tmp_path / "m.parity.json").read_text()) == json.loads(result.model_dump_json())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "m.parity.json"]


@needs_llamacpp
@pytest.mark.parametrize("family", FAMILIES)
def test_llamacpp_says_the_same(family: str, gguf_model: Build, tmp_path: Path) -> None:
    found = checks(export_gguf(gguf_model(family), tmp_path / "m.gguf", "f32"))
    assert found["tokens"].by == found["logits"].by == server_name()
    assert found["logits"].measured["error"] < 1e-4


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.usefixtures("own")
def test_transformers_own_reader_agrees(family: str, gguf_model: Build, tmp_path: Path) -> None:
    """It leaves out Llama 3's frequencies, takes other head sizes for granted and reads no Granite; the rest is an
    implementation that is not ours."""
    pytest.importorskip("accelerate")  # without it transformers reads no GGUF
    from transformers import AutoModelForCausalLM

    settings: dict[str, dict[str, Any]] = {
        "llama": {"rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}},
        "mistral": {"head_dim": 16},
        "qwen3": {"head_dim": 128},
    }
    folder = gguf_model(family, **settings.get(family, {}))
    export_gguf(folder, tmp_path / "m.gguf", "f32", Label("any"))  # it also goes by the name
    expected = logits(AutoModelForCausalLM.from_pretrained(folder), list(range(40, 80)))
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf"), list(range(40, 80)))
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_scaled_positions(rope: dict[str, Any], gguf_model: Build, tmp_path: Path) -> None:
    plain = gguf_model("qwen3")
    result = export_gguf(gguf_model("qwen3", rope_parameters=rope), tmp_path / "m.gguf", "f32")
    assert checks(result)["logits"].measured["error"] < 1e-4
    assert File(tmp_path / "m.gguf").key("rope.scaling.type") == rope["rope_type"]
    assert plain != gguf_model("qwen3", rope_parameters=rope)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q5_0", "q4_0"])
@pytest.mark.usefixtures("own")
def test_types_round_as_much_as_they_have_to(kind: str, gguf_model: Build, tmp_path: Path) -> None:
    found = checks(export_gguf(gguf_model("qwen3"), tmp_path / "m.gguf", kind))
    # Uniform rounding errors of half a step, from the widths of the mantissas and of a block's 8 bits.
    low, high = {"f16": (1e-4, 3e-4), "bf16": (1e-3, 2.5e-3), "q8_0": (3e-3, 8e-3), "q5_0": (0.02, 0.05),
                 "q4_0": (0.05, 0.1)}[kind]  # fmt: skip
    assert low < found["weights"].measured["error"] < high
    # The model is moved as far as random rounding of that size moves it, no further.
    limit = found["logits"].limits["error"] / parity.SLACK
    assert 0.5 * limit < found["logits"].measured["error"] < 1.5 * limit


@pytest.mark.usefixtures("own")
def test_blocks_are_those_of_the_reference_quantiser(gguf_model: Build, tmp_path: Path) -> None:
    import gguf
    from safetensors.numpy import load_file

    folder = gguf_model("qwen2")
    export_gguf(folder, tmp_path / "m.gguf", "q8_0")
    source = load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}["blk.0.ffn_up.weight"]
    blocks = source.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127  # ggml's quantize_row_q8_0_ref, written out
    quants = np.round(blocks / scale).astype(np.int8)
    raw = np.asarray(stored.data).reshape(-1, 34)
    assert np.array_equal(raw[:, :2].copy().view(np.float16), scale.astype(np.float16))
    assert np.abs(raw[:, 2:].view(np.int8).astype(int) - quants).max() <= 1  # halves are rounded away from zero there
    assert (raw[:, 2:].view(np.int8) == quants).mean() > 0.999


@pytest.mark.usefixtures("own")
def test_rows_without_whole_blocks_stay_in_16_bits(gguf_model: Build, tmp_path: Path) -> None:
    result = export_gguf(gguf_model("llama", intermediate_size=80), tmp_path / "m.gguf", "q8_0")
    types = File(tmp_path / "m.gguf").types()
    assert types["blk.0.ffn_down.weight"] == "F16"  # rows of 80
    assert types["blk.0.ffn_up.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == types["rope_freqs.weight"] == "F32"
    assert result.stored == {"F16": 2, "F32": 6, "Q8_0": 14}


@pytest.mark.usefixtures("own")
def test_both_ends_of_a_small_file_are_kept_finer(gguf_model: Build, tmp_path: Path) -> None:
    export_gguf(gguf_model("llama"), tmp_path / "m.gguf", "q4_0")
    types = File(tmp_path / "m.gguf").types()
    assert types["token_embd.weight"] == "Q8_0" and types.get("output.weight", "Q8_0") == "Q8_0"
    assert {kind for name, kind in types.items() if name.startswith("blk.") and "norm" not in name} == {"Q4_0"}


@pytest.fixture(scope="module")
def half(gguf_model: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Granite whose weights are bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("half") / "granite"
    AutoModelForCausalLM.from_pretrained(gguf_model("granite"), dtype=torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((gguf_model("granite") / name).read_bytes())
    return folder


@pytest.mark.parametrize("kind", ["bf16", "f32"])
@pytest.mark.usefixtures("own")
def test_sixteen_bits_are_copied_exactly(kind: str, half: Path, tmp_path: Path) -> None:
    assert checks(export_gguf(half, tmp_path / "m.gguf", kind))["weights"].measured["error"] == 0.0


@needs_llamacpp
@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q5_0", "q4_0"])
def test_llamacpp_may_round_what_it_multiplies(kind: str, half: Path, tmp_path: Path) -> None:
    """The file loses nothing of these weights, yet llama.cpp computes in 16 bits."""
    found = checks(export_gguf(half, tmp_path / "m.gguf", kind))["logits"]
    assert 1e-5 < found.measured["error"] < found.limits["error"]


@pytest.mark.usefixtures("own")
def test_equal_models_make_equal_files(gguf_model: Build, tmp_path: Path) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    export_gguf(gguf_model("mistral"), one, "q8_0")
    export_gguf(gguf_model("mistral"), two, "q8_0", options=Options(threads=2))
    assert one.read_bytes() == two.read_bytes()


def test_interleaved_rows_rotate_as_halves_do() -> None:
    """llama.cpp's rotation of neighbours on our rows is transformers' rotation of halves on the model's."""
    rng = np.random.default_rng(3)
    heads, size, width = 3, 8, 5
    query, key, x, y = (rng.normal(size=shape) for shape in ((24, width), (24, width), (width,), (width,)))
    angles = np.outer([4.0, 9.0], 100.0 ** (-np.arange(0, size, 2) / size))  # two positions

    def halves(vector: Any, angle: Any) -> Any:
        first, second = vector[:, : size // 2], vector[:, size // 2 :]
        return np.concatenate(
            [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=1
        )

    def neighbours(vector: Any, angle: Any) -> Any:
        even, odd = vector[:, 0::2], vector[:, 1::2]
        return np.stack(
            [even * np.cos(angle) - odd * np.sin(angle), odd * np.cos(angle) + even * np.sin(angle)], axis=2
        ).reshape(heads, size)

    expected = (
        halves((query @ x).reshape(heads, size), angles[0]) * halves((key @ y).reshape(heads, size), angles[1])
    ).sum(1)
    moved = [weights.interleave(matrix, heads) for matrix in (query, key)]
    found = (
        neighbours((moved[0] @ x).reshape(heads, size), angles[0])
        * neighbours((moved[1] @ y).reshape(heads, size), angles[1])
    ).sum(1)
    assert np.allclose(found, expected)
    assert np.array_equal(reader._halves(moved[0], heads), query)


def _not_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "interleave", lambda array, heads: array)


def _key(name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """A fault: the key ``name`` is written as ``value``, or left out."""

    def fault(monkeypatch: pytest.MonkeyPatch) -> None:
        right = export.read_shape

        def wrong(config: Any, where: str) -> Any:
            shape = right(config, where)
            shape.keys.pop(name)
            if value is not None:
                shape.keys[name] = value
            return shape

        monkeypatch.setattr(export, "read_shape", wrong)

    return fault


def _factors(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    right = export.read_shape
    monkeypatch.setattr(export, "read_shape", lambda config, where: replace(right(config, where), rope_factors=()))


@pytest.mark.parametrize(
    ("family", "fault", "seen"),
    [
        ("llama", _not_interleaved, "weights"),
        ("llama", _factors, "logits"),
        ("llama", _key("rope.freq_base", 20000.0), "logits"),
        ("granite", _key("logit_scale", 1.0), "logits"),
        ("granite", _key("residual_scale", 1.0), "logits"),
        ("granite", _key("attention.scale", 0.25), "logits"),
        ("granite", _key("embedding_scale", 1.0), "logits"),
        ("qwen3", _key("attention.layer_norm_rms_epsilon", 0.1), "logits"),
    ],
    ids=["rows", "llama3", "base", "logits", "residual", "attention", "embedding", "epsilon"],
)
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.usefixtures("own")
def test_a_wrong_file_never_gets_its_name(
    family: str, fault: Any, seen: str, kind: str, gguf_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(GateError, match=f"does not say what the model says: {seen}"):
        export_gguf(gguf_model(family), tmp_path / "m.gguf", kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("own")
def test_a_stopped_conversion_leaves_the_old_file(
    gguf_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.gguf"
    export_gguf(gguf_model("qwen2"), out, "f32")
    before = out.read_bytes()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parity, "check_tokens", stop)
    with pytest.raises(KeyboardInterrupt):
        export_gguf(gguf_model("granite"), out, "f16", options=Options(force=True))
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "m.parity.json"]


@pytest.mark.usefixtures("own")
def test_a_model_beyond_the_memory_is_told_to_be_unchecked(
    gguf_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_available", lambda: 1000)
    result = export_gguf(gguf_model("qwen2"), tmp_path / "m.gguf", "f32")
    assert "of memory" in checks(result)["logits"].skipped
    assert checks(result)["tokens"].measured["different"] == 0


def test_only_one_tensor_is_in_memory(tmp_path: Path) -> None:
    """192 MB of weights in tensors of 16 MB, with 96 MB of memory of its own to be had."""
    resource = pytest.importorskip("resource")
    if not sys.platform.startswith("linux"):
        pytest.skip("RLIMIT_DATA bounds private memory on Linux alone")
    assert hasattr(resource, "RLIMIT_DATA")
    program = """
import resource, sys
from pathlib import Path
import gguf, numpy, torch
from safetensors.numpy import save_file
from ilab.packaging.gguf.families import Part
from ilab.packaging.gguf.weights import Weights, plan, encode
folder = Path(sys.argv[1])
save_file({f"t{n}": numpy.full((2048, 2048), n, numpy.float32) for n in range(12)}, folder / "model.safetensors")
torch.set_num_threads(1)
weights = Weights(folder)
slots = plan({f"t{n}": Part(f"t{n}", (2048, 2048)) for n in range(12)}, weights, "F16")
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (96 << 20), used + (96 << 20)))
for slot in slots:
    encode(weights.read(slot.part.name), slot)
try:
    [weights.read(slot.part.name).copy() for slot in slots]
except MemoryError:
    print("bounded")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == "bounded", done.stderr


@needs_quantiser
@pytest.mark.parametrize("kind", ["q6_k", "q4_k_m"])
def test_small_types_are_made_by_llamacpp(kind: str, gguf_model: Build, tmp_path: Path) -> None:
    folder = gguf_model("llama", hidden_size=256, intermediate_size=512, initializer_range=0.05)
    result = export_gguf(folder, tmp_path / "m.gguf", kind)
    assert any(name.endswith("_K") for name in result.stored)
    assert result.passed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "m.parity.json"]


@pytest.mark.usefixtures("own")
def test_small_types_need_llamacpp(gguf_model: Build, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="q4_k_m are made by llama") as caught:
        export_gguf(gguf_model("llama"), tmp_path / "m.gguf", "Q4_K_M")
    assert "llama-quantize" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@needs_llamacpp
def test_a_file_that_llamacpp_refuses_shows_its_log(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(SetupError, match="cannot serve"), llamacpp.LlamaServer(path, 64, 1):
        pytest.fail("it should not have started")


@pytest.mark.usefixtures("own")
def test_a_file_that_is_there_stays(gguf_model: Build, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    out.write_text("mine")
    with pytest.raises(InputError, match="there already"):
        export_gguf(gguf_model("qwen2"), out, "f32")
    assert out.read_text() == "mine"
    beside = tmp_path / "n.parity.json"
    beside.write_text('{"bits": [0, 1]}')
    with pytest.raises(InputError, match="no result of earlier checks"):
        export_gguf(gguf_model("qwen2"), tmp_path / "n.gguf", "f32", options=Options(force=True))
    assert beside.read_text() == '{"bits": [0, 1]}'


@pytest.mark.usefixtures("own")
def test_a_disk_that_is_too_small_is_told_before(
    gguf_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shutil import _ntuple_diskusage  # type: ignore[attr-defined]

    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: _ntuple_diskusage(10, 5, 5))
    with pytest.raises(SetupError, match="GB are free"):
        export_gguf(gguf_model("qwen2"), tmp_path / "m.gguf", "f32")


@pytest.mark.usefixtures("own")
def test_the_file_says_what_it_is(gguf_model: Build, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in gguf_model("granite").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nbase_model: ibm-granite/granite-7b\nlanguage: [en, de]\ntags: [lab]\n---\n# A model\n"
    )
    (folder / "lineage.json").write_text(json.dumps({"format": 1, "model": {"name": "lamp", "version": "0.2"}}))
    export_gguf(folder, tmp_path / "m.gguf", "f16", Label(license="mit"))
    keys = File(tmp_path / "m.gguf").keys
    expected = {
        "general.architecture": "granite",
        "general.name": "lamp",
        "general.version": "0.2",
        "general.license": "mit",
        "general.languages": ["en", "de"],
        "general.base_model.0.name": "ibm-granite/granite-7b",
        "general.base_model.0.repo_url": "https://huggingface.co/ibm-granite/granite-7b",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "granite.attention.head_count": 4,
        "granite.attention.head_count_kv": 2,
        "granite.context_length": 256,
        "granite.logit_scale": 4.0,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 3,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {name: keys.get(name) for name in expected} == expected
    assert json.loads(keys["ilab.lineage"])["model"]["version"] == "0.2"
    assert keys["tokenizer.chat_template"] == (folder / "chat_template.jinja").read_text()
    assert keys["tokenizer.ggml.tokens"][-3:] == ["[PAD401]", "[PAD402]", "[PAD403]"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    import torch

    torch.set_num_threads(1)
    yield
