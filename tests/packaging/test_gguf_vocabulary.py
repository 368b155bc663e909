"""What is understood of tokenizers and configurations, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("gguf")

from ilab.errors import GateError, InputError
from ilab.models import llamacpp
from ilab.models.gguf import reader
from ilab.models.gguf.reader import File
from ilab.packaging.gguf import export, families, parity, texts, vocabulary
from ilab.packaging.gguf.export import export_gguf

Build = Callable[..., Path]
needs_llamacpp = pytest.mark.skipif(llamacpp.server_name() is None, reason="llama.cpp is not installed")
BYTE_LEVEL = ("gpt-2", "refact", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o")
PIECES = ("prepend", "first", "never")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without llama.cpp."""
    monkeypatch.setattr(parity, "server_name", lambda: None)


@pytest.fixture
def changed(gguf_model: Build, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a model with one JSON file changed by a function."""

    def make(file: str, change: Callable[[dict[str, Any]], Any], family: str = "llama", tokenizer: str = "") -> Path:
        folder = tmp_path / "changed"
        folder.mkdir()
        for path in gguf_model(family, tokenizer).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        value = json.loads((folder / file).read_text())
        change(value)
        (folder / file).write_text(json.dumps(value))
        return folder

    return make


def tokens(result: parity.Parity) -> parity.Check:
    return next(check for check in result.checks if check.name == "tokens")


@pytest.mark.parametrize("kind", BYTE_LEVEL)
@pytest.mark.usefixtures("own")
def test_known_ways_to_cut_are_recognised(kind: str, gguf_model: Build, tmp_path: Path) -> None:
    result = export_gguf(gguf_model("qwen2", kind), tmp_path / "m.gguf", "f32")
    assert File(tmp_path / "m.gguf").keys["tokenizer.ggml.pre"] == kind
    assert tokens(result).measured["different"] == 0


@needs_llamacpp
@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *PIECES])
def test_llamacpp_cuts_alike(kind: str, gguf_model: Build, tmp_path: Path) -> None:
    result = export_gguf(gguf_model("qwen2", kind), tmp_path / "m.gguf", "f32")
    assert tokens(result).by == llamacpp.server_name()
    assert tokens(result).measured["different"] == 0


@pytest.mark.parametrize("kind", PIECES)
@pytest.mark.usefixtures("own")
def test_sentencepiece_gets_scores_that_join_as_its_merges_do(kind: str, gguf_model: Build, tmp_path: Path) -> None:
    result = export_gguf(gguf_model("mistral", kind), tmp_path / "m.gguf", "f32")
    keys = File(tmp_path / "m.gguf").keys
    assert keys["tokenizer.ggml.model"] == "llama"
    assert keys["tokenizer.ggml.add_space_prefix"] is (kind == "prepend")
    assert keys["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]  # unknown, control, control, byte
    assert tokens(result).measured["different"] == 0
    assert any("first word" in note for note in result.notes) is (kind == "first")


@pytest.mark.parametrize("kind", ["dbrx", "prepend"])
@given(text=st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_own_reading_cuts_any_text_alike(kind: str, text: str, read: Callable[[str], tuple[Any, Any]]) -> None:
    tokenizer, encode = read(kind)
    assert encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module")
def read(gguf_model: Build, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Any]]:
    """A model's tokenizer and the one in its file, by kind."""
    from tokenizers import Tokenizer

    made: dict[str, tuple[Any, Any]] = {}

    def get(kind: str) -> tuple[Any, Any]:
        if kind not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(parity, "server_name", lambda: None)
                path = tmp_path_factory.mktemp("read") / "m.gguf"
                folder = gguf_model("qwen2", kind)
                export_gguf(folder, path, "f32")
            made[kind] = (Tokenizer.from_file(str(folder / "tokenizer.json")), reader.read_tokenizer(File(path)))
        return made[kind]

    return get


def test_texts_are_composed() -> None:
    import unicodedata

    assert all(unicodedata.is_normalized("NFC", text) for text in texts.TEXTS)


@pytest.mark.parametrize(("wrong", "kind"), [("gpt-2", "llama-bpe"), ("qwen2", "dbrx"), ("refact", "gpt-2")])
@pytest.mark.usefixtures("own")
def test_a_wrong_name_is_noticed(
    wrong: str, kind: str, gguf_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = vocabulary.read_vocabulary

    def misnamed(folder: Path, size: int) -> Any:
        found = right(folder, size)
        found.keys["tokenizer.ggml.pre"] = wrong
        return found

    monkeypatch.setattr(export, "read_vocabulary", misnamed)
    with pytest.raises(GateError, match=r"tokens, by the file as ilab reads it: .*: the model's tokens go on with"):
        export_gguf(gguf_model("qwen2", kind), tmp_path / "m.gguf", "f32")
    assert list(tmp_path.iterdir()) == []


def _pre(value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda tokenizer: tokenizer.update(pre_tokenizer=value)


def _level(**settings: Any) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **settings}


@pytest.mark.parametrize(
    "change",
    [
        _pre(_level(add_prefix_space=True)),
        _pre({"type": "Whitespace"}),
        _pre(None),
        _pre({"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Isolated"}, _level()]}),
        _pre({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, _level()]}),
        lambda tokenizer: tokenizer.update(normalizer={"type": "NFKC"}),
        lambda tokenizer: tokenizer.update(normalizer={"type": "NFC"}),  # llama.cpp composes nothing for this one
        lambda tokenizer: tokenizer["model"].update(ignore_merges=True),
        lambda tokenizer: tokenizer["model"].update(end_of_word_suffix="</w>"),
    ],
    ids=["prefix", "whitespace", "none", "punctuation", "digits", "nfkc", "nfc", "whole", "suffix"],
)
def test_unknown_ways_to_cut_are_refused(change: Any, changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed("tokenizer.json", change, "llama", "gpt-2")
    with pytest.raises(InputError, match="way to cut text is unknown") as caught:
        export_gguf(folder, tmp_path / "m.gguf", "f32")
    assert "known are: gpt-2" in caught.value.hint


def test_an_unknown_expression_is_refused_and_shown(gguf_model: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\{N\}\{2\}"):
        export_gguf(gguf_model("llama", "unknown"), tmp_path / "m.gguf", "f32")


def _late(tokenizer: dict[str, Any]) -> None:
    """Two ways to make one token no longer stand together."""
    merges = tokenizer["model"]["merges"]
    wholes = ["".join(pair) for pair in merges]
    twice = next(at for at in range(1, len(wholes)) if wholes[at] == wholes[at - 1])
    merges.append(merges.pop(twice))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tokenizer: tokenizer.update(normalizer={"type": "NFKC"}), "normaliser or pre-tokenizer"),
        (_late, "the merges"),
        (lambda tokenizer: tokenizer["model"]["merges"].pop(), "the merges"),
        (lambda tokenizer: tokenizer["model"].update(type="Unigram"), "not byte-pair"),
        (lambda tokenizer: tokenizer["added_tokens"][0].update(rstrip=True), "takes blanks"),
        (lambda tokenizer: tokenizer["added_tokens"].append({"id": 9000, "content": "far", "special": True}), "rows"),
    ],
    ids=["normaliser", "late", "missing", "unigram", "blanks", "beyond"],
)
def test_other_tokenizers_are_refused(change: Any, message: str, changed: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_gguf(changed("tokenizer.json", change, "mistral"), tmp_path / "m.gguf", "f32")


@pytest.mark.usefixtures("own")
def test_what_is_put_around_a_text_is_what_the_tokenizer_puts(gguf_model: Build, tmp_path: Path) -> None:
    export_gguf(gguf_model("llama"), tmp_path / "m.gguf", "f32")
    keys = File(tmp_path / "m.gguf").keys
    assert keys["tokenizer.ggml.add_bos_token"] is True  # its template processor adds <s>
    assert keys["tokenizer.ggml.add_eos_token"] is False


@pytest.mark.usefixtures("own")
def test_all_tokens_that_end_an_answer_are_named(changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed("config.json", lambda config: config.update(eos_token_id=[1, 2]), "granite")
    export_gguf(folder, tmp_path / "m.gguf", "f32")
    keys = File(tmp_path / "m.gguf").keys
    assert (keys["tokenizer.ggml.eos_token_id"], keys["tokenizer.ggml.eot_token_id"]) == (1, 2)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", {"model_type": "gpt_neox"}, "models of type 'gpt_neox' cannot be converted"),
        ("llama", {"hidden_act": "gelu"}, "activation is 'gelu'"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised already"),
        ("llama", {"partial_rotary_factor": 0.5}, "part of each head"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "position scaling"),
        ("llama", {"num_hidden_layers": 3}, "the weights lack model.layers.2"),
        ("llama", {"num_hidden_layers": 1}, "has no place in a GGUF file"),
        ("llama", {"intermediate_size": 100}, "config.json says"),
        ("llama", {"num_hidden_layers": "two"}, "positive whole number"),
        ("granite", {"head_dim": 32}, "heads have 32 channels"),
        ("qwen3", {"attention_bias": True}, "it has biases"),
        ("qwen3", {"rope_parameters": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 2.0,
        }}, "position scaling"),
    ],
)  # fmt: skip
def test_what_llamacpp_would_compute_otherwise_is_refused(
    family: str, change: dict[str, Any], message: str, changed: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export_gguf(changed("config.json", lambda config: config.update(change), family), tmp_path / "m.gguf", "f32")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.usefixtures("own")
def test_a_sliding_window_becomes_the_context(gguf_model: Build, tmp_path: Path) -> None:
    result = export_gguf(gguf_model("mistral", sliding_window=128), tmp_path / "m.gguf", "f32")
    assert File(tmp_path / "m.gguf").key("context_length") == 128
    assert "context cut to 128" in result.notes[0]


@pytest.mark.usefixtures("own")
def test_biases_go_along(gguf_model: Build, tmp_path: Path) -> None:
    result = export_gguf(gguf_model("llama", attention_bias=True, mlp_bias=True), tmp_path / "m.gguf", "f16")
    assert File(tmp_path / "m.gguf").types()["blk.0.attn_q.bias"] == "F32"
    assert result.passed


def test_llama3_factors_are_those_of_transformers() -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(hidden_size=256, num_attention_heads=2, head_dim=128, rope_parameters=rope)
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 500000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    found = plain / torch.tensor(families._llama3_factors(rope, 128), dtype=torch.float64)
    assert torch.allclose(found, expected.double(), rtol=1e-5)


def test_older_configurations_mean_the_same() -> None:
    new = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}}
    old = {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    keys = [families._rope_keys(families._rope(config), "config.json") for config in (new, old)]
    assert keys[0] == keys[1] == {
        "rope.freq_base": 5000.0, "rope.scaling.type": "linear", "rope.scaling.factor": 2.0,
    }  # fmt: skip


def test_weights_cannot_lead_out_of_the_folder(changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed("config.json", lambda config: None)
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(InputError, match="is missing"):
        export_gguf(folder, tmp_path / "m.gguf", "f32")


@pytest.mark.usefixtures("own")
def test_weights_in_parts_are_one_model(gguf_model: Build, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole, parts = gguf_model("qwen3"), tmp_path / "parts"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(parts, max_shard_size="100KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (parts / name).write_bytes((whole / name).read_bytes())
    export_gguf(whole, tmp_path / "whole.gguf", "f16", export.Label("m"))
    result = export_gguf(parts, tmp_path / "parts.gguf", "f16", export.Label("m"))
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "parts.gguf").read_bytes()
    assert {path.name for path in parts.glob("*.safetensors")} < result.source.keys()
    assert export.is_export_of(parts, tmp_path / "parts.gguf")
    assert not export.is_export_of(whole, tmp_path / "parts.gguf"), "of other files, if of the same weights"
    (parts / "chat_template.jinja").write_text("{{ messages }}")
    assert not export.is_export_of(parts, tmp_path / "parts.gguf")
    (tmp_path / "whole.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes() + b"0")
    assert not export.is_export_of(whole, tmp_path / "whole.gguf")


@pytest.mark.parametrize(
    ("value", "kind", "message"), [(1e6, "f16", "beyond the range of f16"), (float("nan"), "f32", "no number")]
)
def test_weights_that_do_not_fit_are_refused(
    value: float, kind: str, message: str, changed: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = changed("config.json", lambda config: None)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=message):
        export_gguf(folder, tmp_path / "m.gguf", kind)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed"]
