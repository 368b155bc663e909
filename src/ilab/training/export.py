"""A trained model as a Hugging Face directory, written tensor by tensor.

The base's own files say which tensors there are, in which file and in which type; each is asked of the method when its
turn comes, so that no second copy of the model is ever in memory. Families whose modules are named otherwise than their
files (transformers converts them when it loads them) are written by transformers itself.

Source of the layout: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ilab.core.files import fsync_tree
from ilab.errors import SetupError
from ilab.models.weights import saving
from ilab.training.method import Full, Method
from ilab.training.world import World

INDEX = "model.safetensors.index.json"
BESIDE = (".json", ".jinja", ".model", ".txt")  # what a model directory holds besides weights
NAMES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def export_model(model: Any, method: Method, base: Path, folder: Path, world: World) -> None:
    """Write the model to ``folder``, in place of what is there: whole, or not at all.

    Called by all processes, written by the first. Raises ``OSError`` where the disk takes no more, ``SetupError`` for a
    family that cannot be written from several processes.
    """
    temporary = folder.with_name(f".{folder.name}")
    if world.leads:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.wait()
    with torch.no_grad(), saving(temporary):
        if all(_known(model, method, file) for file in weight_files(base)):
            for file in weight_files(base):
                _write_file(model, method, file, temporary / file.name, world)
        else:
            _by_transformers(model, method, temporary, world)
        method.write_beside(model, base, temporary, world.leads)
    if world.leads:
        for file in base.iterdir():
            if file.suffix in BESIDE and not (temporary / file.name).exists():
                shutil.copyfile(file, temporary / file.name)
        fsync_tree(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    world.wait()


def weight_files(base: Path) -> list[Path]:
    """The base's files of weights: those that its index names, or the one there is."""
    index = base / INDEX
    if index.is_file():
        return [
            base / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        ]
    return sorted(base.glob("*.safetensors"))


def _known(model: nn.Module, method: Method, file: Path) -> bool:
    with safe_open(str(file), "pt") as source:
        return all(method.has(model, name) for name in source.keys())  # noqa: SIM118 - no mapping


def _write_file(model: nn.Module, method: Method, source: Path, target: Path, world: World) -> None:
    """``target`` with the tensors of ``source``, in its order and types."""
    with safe_open(str(source), "pt") as base:
        names = list(base.keys())
        slices = {name: base.get_slice(name) for name in names}
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name in names:
            shape, kind = slices[name].get_shape(), slices[name].get_dtype()
            size = torch.Size(shape).numel() * NAMES[kind].itemsize if kind in NAMES else None
            if size is None:
                raise SetupError(f"the base holds {name} as {kind}, which cannot be trained", where=str(source))
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        handle: BinaryIO | None = None
        try:
            if world.leads:
                handle = target.open("wb")
                text = json.dumps(header, separators=(",", ":")).encode()
                text += b" " * (-len(text) % 8)
                handle.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                made = method.tensor(model, name, base.get_tensor(name))
                if handle is not None:
                    handle.write(_bytes(made, NAMES[header[name]["dtype"]]))
        finally:
            if handle is not None:
                handle.close()


def _bytes(tensor: Tensor, dtype: torch.dtype) -> Any:
    flat = tensor.detach().to("cpu", dtype).contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _by_transformers(model: Any, method: Method, folder: Path, world: World) -> None:
    if world.size > 1 or not isinstance(method, Full):
        raise SetupError(
            "transformers keeps this model family otherwise than its files do, so only all of its weights, on one "
            "device, can be trained",
            where="train_method",
            hint="take train_method=full and one device",
        )
    model.save_pretrained(str(folder))
