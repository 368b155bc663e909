"""The file itself: header, keys, then one tensor after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilab.errors import SetupError
from ilab.packaging.gguf.families import Shape
from ilab.packaging.gguf.weights import Slot, Weights, encode

ROPE_FACTORS = "rope_freqs.weight"


def library() -> Any:
    """The ``gguf`` package of the llama.cpp project. Raises ``SetupError`` where it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise SetupError(
            "GGUF files are written with the package gguf, which is not installed", hint="pip install 'ilab[gguf]'"
        ) from error
    return gguf


def write_file(
    path: Path,
    shape: Shape,
    keys: Mapping[str, Any],
    slots: Sequence[Slot],
    weights: Weights,
    done: Callable[[int], None],
) -> None:
    """Write all of it and flush it to the disk. ``keys`` are those beside the architecture's; ``done`` is told how
    many tensors are written."""
    gguf = library()
    import numpy as np

    writer = gguf.GGUFWriter(path, shape.family.architecture)
    for name, value in {**keys, **{f"{shape.family.architecture}.{n}": v for n, v in shape.keys.items()}}.items():
        _add(writer, name, value)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    factors = np.asarray(shape.rope_factors, dtype=np.float32)
    if factors.size:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for slot in slots:
        kind = gguf.GGMLQuantizationType[slot.stored]
        # Only bytes are given a shape in bytes; the library turns it back into weights.
        as_bytes = slot.quantised or slot.stored == "BF16"
        dimensions = gguf.quant_shape_to_byte_shape(slot.shape, kind) if as_bytes else slot.shape
        dtype = np.dtype(np.uint8 if as_bytes else {"F32": np.float32, "F16": np.float16}[slot.stored])
        writer.add_tensor_info(slot.name, dimensions, dtype, slot.size, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors.size:
            writer.write_tensor_data(factors)
        for number, slot in enumerate(slots, 1):
            writer.write_tensor_data(encode(weights.read(slot.part.name), slot))
            done(number)
    finally:
        writer.close()
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _add(writer: Any, name: str, value: Any) -> None:
    """A key under the type that llama.cpp reads it with: counts are unsigned, fractions 32 bits wide."""
    match value:
        case bool():
            writer.add_bool(name, value)
        case int():
            writer.add_uint32(name, value)
        case float():
            writer.add_float32(name, value)
        case str():
            writer.add_string(name, value)
        case _:
            writer.add_array(name, value)
