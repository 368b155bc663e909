"""The tensors of a Hugging Face directory, one at a time, and how each is laid down in the file.

safetensors files are mapped, not read, so memory holds the tensor at hand in 32 bits and once more as it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.errors import InputError
from ilab.models.chat_template import json_object
from ilab.packaging.gguf.families import Part

_READABLE = {"F32": 4, "F16": 2, "BF16": 2}  # bytes
_BLOCK = 32  # weights that share a scale
_BLOCKS = {"Q8_0": 34, "Q5_0": 22, "Q4_0": 18}  # bytes of a block
_FINER = ("token_embd.weight", "output.weight")  # what llama.cpp too keeps finer than the rest
INDEX = "model.safetensors.index.json"


class Weights:
    """All tensors of a model directory by name."""

    def __init__(self, folder: Path) -> None:
        """Raises ``InputError`` where there are no safetensors, or one is missing or damaged."""
        from safetensors import SafetensorError, safe_open

        self.files = _files(folder)
        self._parts: dict[str, Any] = {}
        for path in self.files:
            try:
                part: Any = safe_open(path, framework="pt")
                self._parts |= dict.fromkeys(part.keys(), part)
            except (SafetensorError, OSError) as error:
                raise InputError(
                    f"these weights cannot be read: {error}", where=str(path), hint="copy the file again"
                ) from error
        self.names = frozenset(self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._parts[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The stored type: F32, F16 or BF16. Raises ``InputError`` for any other."""
        found = str(self._parts[name].get_slice(name).get_dtype())
        if found not in _READABLE:
            raise InputError(
                f"the tensor {name} is stored as {found}", hint="convert a model whose weights are f32, f16 or bf16"
            )
        return found

    def read(self, name: str) -> Any:
        """The tensor as a 32-bit numpy array."""
        import torch

        self.dtype(name)
        return self._parts[name].get_tensor(name).to(torch.float32).numpy()


@dataclass(frozen=True)
class Slot:
    """A tensor's place in the file: its name, what it is made of, its shape (rows, columns) and its type there."""

    name: str
    part: Part
    shape: tuple[int, ...]
    stored: str  # F32, F16, BF16, or of blocks: see quantised

    @property
    def size(self) -> int:
        """Bytes in the file, without padding."""
        count = 1
        for length in self.shape:
            count *= length
        return count // _BLOCK * _BLOCKS[self.stored] if self.quantised else count * _READABLE[self.stored]

    @property
    def quantised(self) -> bool:
        """Whether it is stored in blocks of weights that share a scale."""
        return self.stored in _BLOCKS


def plan(parts: dict[str, Part], weights: Weights, stored: str) -> list[Slot]:
    """Where each tensor goes. Vectors stay in 32 bits, as llama.cpp wants them; rows that do not make whole blocks
    are kept in 16 bits, the matrices at both ends in 8 bits at least.

    Raises ``InputError`` where a tensor has not the shape that config.json gives it.
    """
    slots = []
    for name, part in parts.items():
        shape = weights.shape(part.name)
        if shape != part.shape:
            raise InputError(
                f"the tensor {part.name} is {shape}, but config.json says {part.shape}",
                hint="the folder mixes two models",
            )
        weights.dtype(part.name)
        slots.append(Slot(name, part, shape, _stored(name, shape, stored)))
    return slots


def _stored(name: str, shape: tuple[int, ...], wanted: str) -> str:
    if len(shape) == 1:
        return "F32"
    if wanted not in _BLOCKS:
        return wanted
    return "F16" if shape[-1] % _BLOCK else "Q8_0" if name in _FINER else wanted


def encode(array: Any, slot: Slot) -> Any:
    """A tensor as its bytes in the file. Raises ``InputError`` where 16 bits cannot hold a weight."""
    import gguf
    import numpy as np

    rows = interleave(array, slot.part.heads) if slot.part.heads else array
    lowest, highest = float(rows.min(initial=0.0)), float(rows.max(initial=0.0))  # no number is one where one is none
    if not np.isfinite(highest - lowest):
        raise InputError(f"the tensor {slot.part.name} holds a value that is no number", hint="the training diverged")
    if slot.stored == "F16" and max(highest, -lowest) > float(np.finfo(np.float16).max):
        raise InputError(
            f"the tensor {slot.part.name} has weights beyond the range of f16", hint="take --type bf16 or f32"
        )
    return gguf.quants.quantize(np.ascontiguousarray(rows), gguf.GGMLQuantizationType[slot.stored])


def interleave(array: Any, heads: int) -> Any:
    """Rows of each head from halves to neighbours: row j of the first half, row j of the second, row j + 1 …"""
    half = array.shape[0] // heads // 2
    return array.reshape(heads, 2, half, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a model, by the index where there is one."""
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    listed = json_object(folder / INDEX).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if not names:
        raise InputError(
            "this folder holds no safetensors",
            where=str(folder),
            hint="pickled weights (.bin) are not read; save the model with transformers: save_pretrained",
        )
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"the weight file {name} is missing", where=str(folder / INDEX), hint="copy it again")
    return [folder / name for name in names]
