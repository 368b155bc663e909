"""LoRA, QLoRA and OSFT against independent references: the base, PEFT's own merge, linear algebra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import Trains
from transformers import AutoModelForCausalLM

from ilab.config import TrainWhere
from ilab.core.store import digest_tree
from ilab.errors import InputError, Stopped
from ilab.models.weights import load_weights
from ilab.training.lora import Lora
from ilab.training.method import linear_layers
from ilab.training.osft import Osft, OsftLinear
from ilab.training.settings import TrainSettings
from ilab.training.tiny import TinySpec, make_tiny

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # PEFT asks for it
LORA = {"method": "lora", "lora_rank": 4, "lora_alpha": 8, "learning_rate": 1e-2}
OSFT = {"method": "osft", "osft_share": 0.3}
IDS = torch.arange(5, 45).reshape(2, 20)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def made(folder: Path, name: str = "epoch-003") -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "out" / name, dtype=torch.float32)


def settings(**more: Any) -> TrainSettings:
    fixed = {"epochs": 1, "batch": 4, "learning_rate": 1e-3, "max_length": 128, "max_batch_tokens": 128}
    return TrainSettings.model_validate({**fixed, **more})


@pytest.mark.parametrize("change", [LORA, OSFT, {**LORA, "lora_variant": "dora"}])
def test_before_the_first_step_it_is_the_base(base: Path, change: dict[str, Any]) -> None:
    chosen = settings(**change)
    method = Osft(0.3, ()) if chosen.method == "osft" else Lora(chosen)
    expected = logits(load_weights(base, torch.float32, "cpu"))
    torch.testing.assert_close(logits(method.load(base, "cpu")), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["plain", "rslora", "dora"])
def test_the_merged_model_is_the_base_with_its_adapter(
    trains: Trains, base: Path, tmp_path: Path, variant: str
) -> None:
    """PEFT reads the adapter's folder as its own, and merges it to the same weights."""
    from peft import PeftModel

    trains(tmp_path, **{**LORA, "lora_variant": variant})
    before = load_weights(base, torch.float32, "cpu")
    expected = logits(before)
    tuned = PeftModel.from_pretrained(before, str(tmp_path / "out" / "epoch-003" / "adapter"))
    ours = logits(made(tmp_path))
    assert (ours - expected).abs().max() > 0.1, "it learnt something"
    torch.testing.assert_close(ours, logits(tuned), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, logits(tuned.merge_and_unload()), rtol=1e-4, atol=1e-4)


def test_only_the_named_layers_change(trains: Trains, base: Path, tmp_path: Path) -> None:
    trains(tmp_path, **{**LORA, "lora_targets": ["q_proj", "down_proj"]})
    old, new = (load_file(path / "model.safetensors") for path in (base, tmp_path / "out" / "epoch-003"))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed and all("q_proj" in name or "down_proj" in name for name in changed)
    model = load_weights(base, torch.float32, "cpu")
    assert not any("lm_head" in name for name in linear_layers(model, ()))
    with pytest.raises(InputError, match="no linear layer named w_proj") as caught:
        linear_layers(model, ("w_proj",))
    assert "q_proj" in caught.value.hint


@pytest.mark.parametrize("change", [{**LORA, "lora_dropout": 0.2}, OSFT])
def test_a_stopped_run_goes_on_to_the_same_bytes(trains: Trains, tmp_path: Path, change: dict[str, Any]) -> None:
    trains(tmp_path / "unbroken", **change)
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        trains(tmp_path / "broken", lambda: next(calls) == 5, **change)
    trains(tmp_path / "broken", **change)
    assert digest_tree(tmp_path / "broken" / "out") == digest_tree(tmp_path / "unbroken" / "out")


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)])
def test_osft_never_enters_the_frozen_directions(shape: tuple[int, int]) -> None:
    """After updates of AdamW: the trained factors are orthogonal to the frozen ones, and the high part is what it was."""
    torch.manual_seed(1)
    layer = torch.nn.Linear(*shape)
    weight = layer.weight.detach().clone()
    split = OsftLinear(layer, 4)
    torch.testing.assert_close(split.weight(), weight, rtol=1e-4, atol=1e-6)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    high = (left[:, :-4] * values[:-4]) @ right[:-4]
    optimizer = torch.optim.AdamW(split.parameters(), lr=1e-2, weight_decay=0.0)
    inputs, targets = torch.randn(30, shape[0]), torch.randn(30, shape[1])
    losses = []
    for _ in range(20):
        loss = (split(inputs) - targets).square().mean()
        losses.append(loss.item())
        loss.backward()
        split.project(gradients=True)
        assert split.left.grad is not None and split.right.grad is not None
        assert (split.high_left.T @ split.left.grad).abs().max() < 1e-6
        assert (split.right.grad @ split.high_right.T).abs().max() < 1e-6
        optimizer.step()
        split.project(gradients=False)
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    torch.testing.assert_close(split.high, high, rtol=1e-4, atol=1e-6)
    assert (left[:, :-4].T @ split.left).abs().max() < 1e-5
    assert (split.right @ right[:-4].T).abs().max() < 1e-5
    # What the frozen directions answer to is what it was: U_high^T W V_high is still diagonal.
    kept = left[:, :-4].T @ split.weight() @ right[:-4].T
    torch.testing.assert_close(kept, torch.diag(values[:-4]), rtol=1e-4, atol=1e-5)


def test_osft_keeps_the_high_part_in_the_exported_model(trains: Trains, base: Path, tmp_path: Path) -> None:
    trains(tmp_path, **OSFT)
    old, new = (load_file(path / "model.safetensors") for path in (base, tmp_path / "out" / "epoch-003"))
    name = next(name for name in old if name.endswith("q_proj.weight"))
    left, values, right = torch.linalg.svd(old[name].float(), full_matrices=False)
    frozen = len(values) - max(1, round(0.3 * len(values)))
    kept = left[:, :frozen].T @ new[name].float() @ right[:frozen].T
    torch.testing.assert_close(kept, torch.diag(values[:frozen]), rtol=1e-3, atol=1e-5)
    assert not torch.equal(old[name], new[name])


@pytest.mark.parametrize(
    "change",
    [pytest.param(LORA, marks=pytest.mark.long), pytest.param(OSFT, marks=pytest.mark.long)],
)
def test_two_processes_train_what_one_does(trains: Trains, tmp_path: Path, change: dict[str, Any]) -> None:
    trains(tmp_path / "one", **change)
    trains(tmp_path / "two", where=TrainWhere(processes=2), **change)
    rows = [
        [json.loads(line) for line in (tmp_path / name / "out" / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for first, second in zip(*rows, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
    torch.testing.assert_close(logits(made(tmp_path / "one")), logits(made(tmp_path / "two")), rtol=1e-3, atol=1e-3)


def test_four_bits_train_and_merge_into_the_base(trains: Trains, tmp_path: Path) -> None:
    """The base of the merge is the one on the disk: what the adapter adds is all that differs from it."""
    pytest.importorskip("bitsandbytes")
    base = tmp_path / "base"
    make_tiny(base, TinySpec(width=128, heads=2, feed_forward=256, vocabulary=400))
    trains(tmp_path, base=base, **{**LORA, "method": "qlora"})
    old, new = (load_file(path / "model.safetensors") for path in (base, tmp_path / "out" / "epoch-003"))
    adapter = load_file(tmp_path / "out" / "epoch-003" / "adapter" / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    down, up = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    expected = old[f"{name}.weight"].float() + up @ down * 2
    torch.testing.assert_close(new[f"{name}.weight"].float(), expected, rtol=1e-4, atol=1e-6)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_no_code_is_downloaded_with_bitsandbytes(tmp_path: Path) -> None:
    """Not even where the package that would do it is installed; and nobody is told that it was not."""
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    (tmp_path / "kernels.py").write_text(
        "def get_kernel(*names, **more):\n    open('downloaded', 'w').write(str(names))\n    raise OSError('offline')\n"
    )
    code = (
        "from ilab.training.choice import why_not_qlora; print(repr(why_not_qlora('cpu'))); "
        "import kernels; print(kernels.get_kernel.__name__)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["''", "get_kernel"] and "kernels" not in done.stderr
    assert not (tmp_path / "downloaded").exists()
