"""Rows of a model's embeddings for tokens that its tokenizer was given (:mod:`ilab.models.templates.adopt`).

The files of weights are rewritten tensor by tensor, in their own types, so that no model is ever in memory; what is no
embedding is copied byte for byte. Which tensors belong to the vocabulary is asked of transformers, which makes the
model without any weights. A new row, also one that was padding, is the mean of the rows of all known tokens: neither
longer nor rarer than they are.

Source of the file format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ilab.core.files import read_json, write_json
from ilab.errors import InputError, SetupError
from ilab.models.templates.adopt import Adoption
from ilab.models.weights import BUILDING
from ilab.training.export import INDEX, weight_files

AT_ONCE = 4096  # rows that are summed at once
BLOCK = 1 << 24  # bytes that are copied at once


def write_vocabulary(model: Path, plan: Adoption) -> None:
    """Give the weights in ``model`` a row for each new token of ``plan``, and say so in config.json.

    Raises ``SetupError`` for a family whose vocabulary is kept otherwise than as embeddings and an output head;
    nothing is changed then.
    """
    if not plan.new and not plan.grows:
        return
    config = {**read_json(model / "config.json"), "vocab_size": plan.rows}
    shapes, names = _wanted(config)
    files = weight_files(model)
    headers = {file: _header(file)[0] for file in files}
    found = {name: told for header in headers.values() for name, told in header.items()}
    _check(found, shapes, names, plan)
    for file in files:
        if names & headers[file].keys():
            _rewrite(file, names, plan)
    if (model / INDEX).is_file():
        index = read_json(model / INDEX)
        if "total_size" in index.get("metadata", {}):
            index["metadata"]["total_size"] = sum(_size(told) for file in files for told in _header(file)[0].values())
        write_json(model / INDEX, index)
    write_json(model / "config.json", config)


def _wanted(config: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """The shape of each tensor of a model with this configuration, and which of them have a row for each token."""
    kind = {name: value for name, value in config.items() if name != "model_type"}
    try:
        with BUILDING:
            from transformers import AutoConfig, AutoModelForCausalLM

            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(
                    AutoConfig.for_model(config.get("model_type", ""), **kind), trust_remote_code=False
                )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"this model cannot be made: {str(error).strip().splitlines()[0]}", hint="it must be a known architecture"
        ) from error
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    mine = {id(one) for module in modules if module is not None for one in module.parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    return {name: tuple(one.shape) for name, one in every.items()}, {n for n, one in every.items() if id(one) in mine}


def _check(
    found: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]], names: set[str], plan: Adoption
) -> None:
    """Nothing but the embeddings and the head may change its shape, and only by its rows."""
    for name, told in found.items():
        shape = tuple(told["shape"])
        grown = (plan.rows, *shape[1:]) if name in names and shape[:1] == (plan.rows_before,) else shape
        if shapes.get(name, grown) != grown:
            break
    else:
        if names & found.keys():
            return
    raise SetupError(
        f"the chat template needs new tokens ({', '.join(plan.added)}), and this model family keeps its vocabulary in "
        "a way that cannot be made larger here",
        where=str(plan.model / "config.json"),
        hint="take a template whose tokens it has, or another model",
    )


def _rewrite(file: Path, names: set[str], plan: Adoption) -> None:
    """``file`` with grown tensors in place of those in ``names``; the others byte for byte, all in the same order."""
    header, start = _header(file)
    order = sorted(header, key=lambda name: header[name]["data_offsets"][0])
    made: dict[str, dict[str, Any]] = {}
    at = 0
    for name in order:
        told = header[name]
        shape = [plan.rows, *told["shape"][1:]] if name in names else told["shape"]
        size = _size(told) // told["shape"][0] * plan.rows if name in names else _size(told)
        made[name] = {"dtype": told["dtype"], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **made}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target = file.with_name(f".{file.name}.grown")
    with safe_open(str(file), "pt") as tensors, file.open("rb") as source, target.open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            if name in names:
                handle.write(_bytes(_grown(tensors.get_tensor(name), plan)))
            else:
                source.seek(start + header[name]["data_offsets"][0])
                _copy(source, handle, _size(header[name]))
        handle.flush()
        os.fsync(handle.fileno())
    target.replace(file)  # the file may be linked to the one it was taken from, which stays as it is


def _grown(old: Tensor, plan: Adoption) -> Tensor:
    """[rows_before, ...] to [rows, ...]. The mean is summed in fp64, in one order, whatever the number of threads."""
    known = old[: plan.known]
    total = np.zeros(old.shape[1:])
    for start in range(0, len(known), AT_ONCE):
        total += known[start : start + AT_ONCE].double().numpy().sum(axis=0)
    mean = torch.from_numpy(np.asarray(total / len(known))).to(old.dtype)
    grown = torch.cat([old, mean.expand(plan.rows - len(old), *mean.shape)])
    for one in plan.new:
        grown[one] = mean
    return grown


def _header(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """What tensors a file of safetensors holds, and where their bytes begin. Raises InputError for another file."""
    try:
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(min(length, file.stat().st_size)))
        header.pop("__metadata__", None)
    except (struct.error, ValueError, AttributeError) as error:
        raise InputError(
            "this file of weights cannot be read as safetensors", where=str(file), hint="copy the model again"
        ) from error
    return header, 8 + length


def _size(told: Mapping[str, Any]) -> int:
    start, end = told["data_offsets"]
    return int(end - start)


def _bytes(tensor: Tensor) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _copy(source: Any, target: Any, size: int) -> None:
    while size:
        block = source.read(min(size, BLOCK))
        if not block:
            raise InputError("this file of weights is cut short", where=str(source.name), hint="copy the model again")
        target.write(block)
        size -= len(block)
