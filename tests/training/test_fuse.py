"""Adapters that are merged into a model, against what PEFT makes of the same files; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ilab.errors import InputError, SetupError
from ilab.training.fuse import fused

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # PEFT asks for it
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def adapt(model: Path, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Write an adapter with random numbers; returns the weights of the whole as PEFT merges them."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], **settings)
    adapted = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)
    whole: dict[str, torch.Tensor] = adapted.merge_and_unload().state_dict()
    return whole


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_the_whole_is_what_peft_makes_of_it(settings: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    expected = adapt(tiny_model, tmp_path / "adapter", **settings)
    before = {path: path.read_bytes() for root in (tiny_model, tmp_path / "adapter") for path in root.iterdir()}
    with fused(tiny_model, tmp_path / "adapter", tmp_path / "out") as whole:
        found = load_file(whole / "model.safetensors")
        assert (whole / "tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()
    source = load_file(tiny_model / "model.safetensors")
    assert found.keys() == source.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name
        assert torch.equal(tensor, source[name]) == ("q_proj" not in name and "down_proj" not in name)
    assert {path: path.read_bytes() for path in before} == before and not any((tmp_path / "out").iterdir())


def test_the_type_of_the_weights_stays(tiny_model: Path, tmp_path: Path) -> None:
    expected = adapt(tiny_model, tmp_path / "adapter")
    half = tmp_path / "half"
    shutil.copytree(tiny_model, half)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(half / "model.safetensors").items()}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    with fused(half, tmp_path / "adapter" / "adapter_model.safetensors", tmp_path) as whole:
        found = load_file(whole / "model.safetensors")
    name = LAYER.removeprefix("base_model.model.") + ".weight"
    assert found[name].dtype == torch.bfloat16
    assert torch.allclose(found[name].float(), expected[name], atol=2e-2)


@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        ({"peft_type": "IA3"}, {}, "of type IA3"),
        ({"bias": "all"}, {}, "with bias"),
        ({"modules_to_save": ["lm_head"]}, {}, "with modules_to_save"),
        ({}, {"base_model.model.model.embed_tokens.lora_embedding_A": (4, 8)}, "embed_tokens"),
        ({}, {f"{LAYER.replace('0', '9')}.lora_A.weight": (4, 32)}, "only half of"),
        ({}, {f"{LAYER.replace('0', '9')}.lora_{one}.weight": (4, 4) for one in "AB"}, "no layer model.layers.9"),
        ({}, {f"{LAYER}.lora_A.weight": (4, 5)}, "is (32, 32) here"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    config: dict[str, Any], tensors: dict[str, tuple[int, int]], said: str, tiny_model: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapt(tiny_model, adapter)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | config))
    more = {name: torch.ones(shape) for name, shape in tensors.items()}
    save_file(load_file(adapter / "adapter_model.safetensors") | more, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError) as caught, fused(tiny_model, adapter, tmp_path / "out"):
        pass
    assert said in caught.value.message


def test_what_is_no_adapter_is_told(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="MLX"), fused(tiny_model, tmp_path / "adapters.npz", tmp_path):
        pass
    with pytest.raises(InputError, match="there is no adapter"), fused(tiny_model, tmp_path, tmp_path):
        pass
    whole = tmp_path / "whole"
    shutil.copytree(tiny_model, whole)
    adapt(tiny_model, whole / "adapter")
    with pytest.raises(InputError, match="in the model already"), fused(whole, whole / "adapter", tmp_path):
        pass
    adapt(tiny_model, tmp_path / "adapter")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(SetupError, match=r"0\.0 GB are free"), fused(tiny_model, tmp_path / "adapter", tmp_path):
        pass
