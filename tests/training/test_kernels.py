"""Switches that need something of the device: each does what it says there, or is refused with what to do instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ilab.config import TrainWhere
from ilab.errors import SetupError
from ilab.models.device import pick_device
from ilab.training import kernels, optimizer
from ilab.training.attention import has_varlen
from ilab.training.kernels import check_kernels, fuse_model, use_kernels
from ilab.training.method import Full
from ilab.training.optimizer import make_optimizer
from ilab.training.probe import free_memory
from ilab.training.settings import TrainSettings
from ilab.training.world import check_together


@pytest.fixture
def model(base: Path) -> Any:
    return Full().load(base, "cpu")


class Doubled(nn.Module):
    """In place of a norm of transformers."""


def fuse_llama(
    rope: bool = True, fused_linear_cross_entropy: bool = True, rms_norm: bool = True, model: Any = None
) -> None:
    """As Liger's functions do it: names of transformers' module, and the modules of the model that is there."""
    from transformers.models.llama import modeling_llama

    assert not rope and not fused_linear_cross_entropy and rms_norm
    modeling_llama.LlamaRMSNorm = Doubled
    for layer in model.model.layers:
        layer.mlp.forward = gated(layer.mlp)


def gated(mlp: Any, factor: float = 1.0) -> Callable[[Any], Any]:
    return lambda states: mlp.down_proj(factor * mlp.act_fn(mlp.gate_proj(states)) * mlp.up_proj(states))


def test_kernels_are_put_into_this_model_and_no_other(model: Any) -> None:
    from transformers.models.llama import modeling_llama

    was = modeling_llama.LlamaRMSNorm
    fuse_model(model, fuse_llama)
    assert "forward" in vars(model.model.layers[0].mlp)
    assert modeling_llama.LlamaRMSNorm is was


def test_kernels_that_compute_something_else_are_refused(model: Any) -> None:
    def fuse(model: Any) -> None:
        model.model.layers[0].mlp.forward = gated(model.model.layers[0].mlp, 1.5)

    with pytest.raises(SetupError, match="logits differ by") as caught:
        fuse_model(model, fuse)
    assert "where.train.kernels=torch" in caught.value.hint


def test_the_package_is_what_it_is_taken_for(model: Any) -> None:
    """Against Liger itself, as far as that goes without a GPU: its modules are patched, no kernel is run."""
    patch = pytest.importorskip("liger_kernel.transformers.monkey_patch")
    fuse = patch.MODEL_TYPE_TO_APPLY_LIGER_FN["llama"]
    assert set(kernels.OFF) <= set(inspect.signature(fuse).parameters)
    with kernels._taken_back(type(model).__module__):
        fuse(model=model, rope=False, cross_entropy=False, fused_linear_cross_entropy=False)
    assert "liger" in model.model.layers[0].mlp.forward.__module__ and "liger" in model.model.norm.forward.__module__
    assert "liger" not in type(model).forward.__module__ and "forward" not in vars(model)


def test_kernels_where_they_cannot_be_had(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    liger, auto = TrainWhere(kernels="liger"), TrainWhere()
    with pytest.raises(SetupError, match="runs on mps") as caught:
        check_kernels(liger, "mps")
    assert "kernels=auto" in caught.value.hint
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    with pytest.raises(SetupError, match="not installed") as caught:
        use_kernels(model, liger, "cuda")
    assert "ilab[liger]" in caught.value.hint
    assert [use_kernels(model, auto, device) for device in ("cpu", "mps", "cuda")] == [False] * 3


def test_a_family_without_kernels(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Callable[..., None]] = {"other": fuse_llama}
    package = type("Package", (), {"MODEL_TYPE_TO_APPLY_LIGER_FN": known})
    monkeypatch.setattr(kernels, "find_spec", lambda _: object())
    monkeypatch.setattr(kernels, "import_module", lambda _: package)
    assert not use_kernels(model, TrainWhere(), "cuda:0")
    with pytest.raises(SetupError, match="family llama"):
        use_kernels(model, TrainWhere(kernels="liger"), "cuda:0")
    known["llama"] = fuse_llama
    assert not use_kernels(model, TrainWhere(kernels="torch"), "cuda:0")
    assert use_kernels(model, TrainWhere(), "cuda:0")


def test_compiling_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.shutil, "which", lambda _: None)
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    for device, needed in (("cpu", "C\\+\\+ compiler"), ("cuda", "triton")):
        check_kernels(TrainWhere(), device)
        with pytest.raises(SetupError, match=needed):
            check_kernels(TrainWhere(compile=True), device)


def test_eight_bits_where_bitsandbytes_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some devices have no such kernel; that shows in a step, not before."""
    import bitsandbytes

    def refuses(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no kernel")

    settings = TrainSettings(
        epochs=1, batch=1, learning_rate=1e-3, max_length=8, max_batch_tokens=8, optimizer="adamw_8bit"
    )
    parameters = {"a": nn.Parameter(torch.ones(optimizer.EIGHT_BITS_FROM))}
    made = make_optimizer(settings, parameters, "cpu")
    parameters["a"].grad = torch.ones(optimizer.EIGHT_BITS_FROM)
    made.step()
    assert {value.dtype for value in made.state[parameters["a"]].values() if isinstance(value, torch.Tensor)} >= {
        torch.uint8
    }
    monkeypatch.setattr(bitsandbytes.optim.AdamW8bit, "step", refuses)
    with pytest.raises(SetupError, match="eight bits on cpu: no kernel") as caught:
        make_optimizer(settings, parameters, "cpu")
    assert "train_optimizer=adamw" in caught.value.hint


@pytest.fixture
def fresh() -> Iterator[None]:
    has_varlen.cache_clear()
    yield
    has_varlen.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("device", "hip", "capability", "there"),
    [
        ("cuda", None, (8, 0), True),
        ("cuda", None, (9, 0), True),
        ("cuda", None, (7, 5), False),
        ("cuda", "6.4", (9, 4), False),
        ("mps", None, None, False),
        ("cpu", None, None, False),
    ],
)
def test_attention_at_once_only_where_it_runs(
    device: str, hip: str | None, capability: tuple[int, int] | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)  # None: nobody may ask
    assert has_varlen(torch.device(device)) is there


def test_apple_gpus_are_asked_by_their_own_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a call of CUDA's")

    for name in ("mem_get_info", "set_device", "get_device_capability", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, never)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 300)
    assert pick_device("auto") == "mps" and free_memory("mps") == 700


def test_several_processes_have_no_apple_gpu() -> None:
    for device in ("cpu", "cuda:0"):
        check_together(TrainWhere(processes=2), "adamw", device)
    check_together(TrainWhere(), "adamw_8bit", "mps")
    with pytest.raises(SetupError, match="not on mps"):
        check_together(TrainWhere(processes=2), "adamw", "mps")
    with pytest.raises(SetupError, match="eight bits are not shared out"):
        check_together(TrainWhere(processes=2), "adamw_8bit", "cuda")
