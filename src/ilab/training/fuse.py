"""A LoRA adapter in PEFT's files put into the model that it was trained beside; both are left as they are.

One safetensors file of the model is in memory at a time. The sum is made in fp32 and stored as the model's weights
are. What is in an adapter besides matrices of linear layers (biases, whole layers, embeddings) is refused, not lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ilab.errors import InputError, SetupError
from ilab.models.chat_template import json_object
from ilab.training.base import model_files

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PARTS = {"A": "down", "B": "up", "magnitude_vector": "magnitude"}
REFUSED = ("alpha_pattern", "fan_in_fan_out", "modules_to_save", "trainable_token_indices")  # where they say something


def merged(base: Tensor, down: Tensor, up: Tensor, scale: float, magnitude: Tensor | None = None) -> Tensor:
    """``base`` [outs, ins] with the update ``up`` [outs, rank] · ``down`` [rank, ins] · ``scale``, in fp32.

    With ``magnitude`` [outs] the length of each row is that one (DoRA, arXiv 2402.09353).
    """
    result = base.float() + up.float() @ down.float() * scale
    if magnitude is not None:
        result = result * (magnitude.float() / result.norm(dim=1)).unsqueeze(1)
    return result


@contextmanager
def fused(model: Path, adapter: Path, beside: Path) -> Iterator[Path]:
    """A temporary folder in ``beside`` with ``model`` and ``adapter`` as one model.

    ``adapter`` is PEFT's folder or the file in it. Raises ``InputError`` for what is none or belongs to another model,
    ``SetupError`` where the disk is too small.
    """
    folder = adapter if adapter.is_dir() else adapter.parent
    config = _config(model, adapter, folder)
    layers = _layers(folder / WEIGHTS)
    weights = sorted(model.glob("*.safetensors"))
    need = sum(path.stat().st_size for path in weights)
    beside.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(beside).free
    if need > free:
        told = f"the model with its adapter needs {need / 1e9:.1f} GB for a while, {free / 1e9:.1f} GB are free"
        raise SetupError(told, where=str(beside), hint="free some space, or give --output on another disk")
    with TemporaryDirectory(prefix=".fused.", dir=beside) as place:
        whole = Path(place)
        for path in model_files(model):
            if path.suffix != ".safetensors":
                shutil.copyfile(path, whole / path.name)
        left = set(layers)
        for path in weights:
            left -= _fuse(path, whole / path.name, layers, config)
        if left:
            raise InputError(
                f"the adapter is of another model: this one has no layer {min(left)}", where=str(folder / WEIGHTS)
            )
        yield whole


def _config(model: Path, adapter: Path, folder: Path) -> dict[str, Any]:
    if adapter.suffix == ".npz":
        hint = "give a PEFT adapter (a folder with adapter_config.json), as ilab model train writes it"
        raise InputError("this adapter has MLX's format, which is not read", where=str(adapter), hint=hint)
    config = json_object(folder / CONFIG)
    if not config or not (folder / WEIGHTS).is_file():
        raise InputError(f"there is no adapter: {CONFIG} and {WEIGHTS} are looked for", where=str(folder))
    if folder.resolve().parent == model.resolve():
        raise InputError("this adapter is in the model already", where=str(folder), hint="leave --adapter-file out")
    if config.get("peft_type") != "LORA":
        raise InputError(f"an adapter of type {config.get('peft_type')} cannot be merged", where=str(folder / CONFIG))
    odd = [name for name in REFUSED if config.get(name)]
    if odd or config.get("bias", "none") != "none":
        told = ", ".join(odd) or "bias"
        raise InputError(f"an adapter with {told} cannot be merged", where=str(folder / CONFIG))
    return config


def _layers(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors of each layer by their part: ``down``, ``up`` and, for DoRA, ``magnitude``."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"this adapter cannot be read: {error}", where=str(path), hint="copy it again") from error
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.removesuffix(".weight").removeprefix(PREFIX).rpartition(".lora_")
        if not layer or part not in PARTS:
            raise InputError(f"the adapter has a tensor that cannot be merged: {name}", where=str(path))
        layers.setdefault(layer, {})[PARTS[part]] = tensor
    for layer, parts in layers.items():
        if not {"down", "up"} <= parts.keys():
            raise InputError(f"the adapter has only half of {layer}", where=str(path), hint="copy it again")
    return layers


def _fuse(source: Path, target: Path, layers: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]) -> set[str]:
    """Write ``source`` with the updates of its layers; returns those."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(source)
    mine = {layer for layer in layers if f"{layer}.weight" in tensors}
    for layer in mine:
        parts, name = layers[layer], f"{layer}.weight"
        down, up, base = parts["down"], parts["up"], tensors[name]
        if (up.shape[0], down.shape[1]) != tuple(base.shape) or up.shape[1] != down.shape[0]:
            told = f"the adapter is of another model: {layer} is {tuple(base.shape)} here"
            raise InputError(told, where=str(source))
        rank = down.shape[0]
        scale = float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
        tensors[name] = merged(base, down, up, scale, parts.get("magnitude")).to(base.dtype)
    save_file(tensors, target, metadata={"format": "pt"})
    return mine
