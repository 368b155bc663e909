"""LoRA and QLoRA: a low-rank update beside frozen weights (arXiv 2106.09685; in four bits: arXiv 2305.14314).

The layers are PEFT's; the loop, the state and the export are the same as for every other method. The adapter is kept
in PEFT's file layout *and* merged: into the base as it stands on the disk, tensor by tensor in fp32, never into the
four-bit weights that it was trained beside.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilab.data import seed_from
from ilab.errors import SetupError
from ilab.models.weights import BUILDING
from ilab.training.four_bits import bitsandbytes
from ilab.training.fuse import merged
from ilab.training.method import linear_layers, load_for_training, state_of
from ilab.training.settings import TrainSettings
from ilab.training.world import whole

ADAPTER = "default"
PACKS = "support_avx512bf16_for_cpu"  # of bitsandbytes' layers


class Lora:
    """See :class:`ilab.training.method.Method`."""

    def __init__(self, settings: TrainSettings) -> None:
        """Raises ``SetupError`` where PEFT (or bitsandbytes, for ``qlora``) is not installed."""
        self._settings = settings
        self._quantised = settings.method == "qlora"
        _require("peft")
        if self._quantised:
            _require("bitsandbytes")
        if find_spec("bitsandbytes"):  # PEFT imports it too, whatever the method
            _import_bitsandbytes()

    def load(self, base: Path, device: str) -> Any:
        low = self._settings.precision == "bf16"
        dtype = torch.bfloat16 if low else torch.float32
        model = load_for_training(base, dtype, device, _four_bits(dtype) if self._quantised else None)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for module in model.modules():
            if hasattr(module, PACKS):  # else one evaluation on a CPU packs the weights so that no gradient passes
                setattr(module, PACKS, False)
        with BUILDING:
            from peft import inject_adapter_in_model

            names = linear_layers(model, self._settings.lora_targets)
            torch.manual_seed(seed_from("adapter", self._settings.seed))  # half of it starts at random
            model = inject_adapter_in_model(self._config(names), model, adapter_name=ADAPTER)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return model

    def kept(self, model: nn.Module) -> dict[str, Tensor]:
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def before_update(self, model: nn.Module) -> None:
        """Nothing: the gradients are used as they are."""

    def after_update(self, model: nn.Module) -> None:
        """Nothing: the adapter is what the optimizer made of it."""

    def has(self, model: nn.Module, name: str) -> bool:
        layer, _, last = name.rpartition(".")
        return bool({name, f"{layer}.base_layer.{last}"} & state_of(model).keys())

    def tensor(self, model: nn.Module, name: str, base: Tensor) -> Tensor:
        layer = name.removesuffix(".weight")
        found = state_of(model)
        down = found.get(f"{layer}.lora_A.{ADAPTER}.weight")
        if down is None:
            return base
        up = found[f"{layer}.lora_B.{ADAPTER}.weight"]
        length = found.get(f"{layer}.lora_magnitude_vector.{ADAPTER}.weight")
        magnitude = None if length is None else whole(length).cpu()
        return merged(base, whole(down).cpu(), whole(up).cpu(), self._scale(), magnitude)

    def write_beside(self, model: nn.Module, base: Path, folder: Path, leads: bool) -> None:
        """``adapter/`` in PEFT's layout."""
        from safetensors.torch import save_file

        kept = sorted(self.kept(model).items())
        tensors = {_file_name(name): whole(found.detach()).cpu().contiguous() for name, found in kept}
        if not leads:
            return
        target = folder / "adapter"
        target.mkdir()
        config = self._config(linear_names(model))
        config.inference_mode = True
        config.base_model_name_or_path = None
        config.save_pretrained(str(target))
        save_file(
            {name: tensor.contiguous() for name, tensor in sorted(tensors.items())},
            target / "adapter_model.safetensors",
        )

    def _config(self, names: list[str]) -> Any:
        from peft import LoraConfig

        return LoraConfig(
            r=self._settings.lora_rank,
            lora_alpha=self._settings.lora_alpha,
            lora_dropout=self._settings.lora_dropout,
            target_modules=sorted(names),
            use_rslora=self._settings.lora_variant == "rslora",
            use_dora=self._settings.lora_variant == "dora",
            task_type="CAUSAL_LM",
        )

    def _scale(self) -> float:
        rank = self._settings.lora_rank
        return self._settings.lora_alpha / (rank**0.5 if self._settings.lora_variant == "rslora" else rank)


def linear_names(model: nn.Module) -> list[str]:
    """The layers that have an adapter."""
    return [name.removesuffix(".lora_A") for name, _ in model.named_modules() if name.endswith(".lora_A")]


def _file_name(name: str) -> str:
    """A parameter's name in PEFT's files."""
    name = name.replace(f".{ADAPTER}", "")
    return "base_model.model." + name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def _four_bits(dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _import_bitsandbytes() -> None:
    try:
        bitsandbytes()
    except (ImportError, OSError, RuntimeError) as error:
        raise SetupError(
            f"bitsandbytes is installed, but cannot be imported: {str(error)[:200]}",
            where="train_method",
            hint="install it anew (pip install 'ilab[lora]'), or remove it (pip uninstall bitsandbytes)",
        ) from error


def _require(package: str) -> None:
    if find_spec(package) is None:
        raise SetupError(
            f"this way of training needs {package}, which is not installed",
            where="train_method",
            hint="pip install 'ilab[lora]', or train with train_method=full",
        )
