"""A tiny model as the files that a hub has of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Run = Callable[..., Result]


def safetensors(weights: int) -> bytes:
    """A file with one tensor of so many 16-bit weights."""
    header = json.dumps({"w": {"dtype": "BF16", "shape": [weights], "data_offsets": [0, 2 * weights]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(i % 251 for i in range(2 * weights))


def model_files(weights: int = 50_000) -> dict[str, bytes]:
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 256, "model_type": "llama"}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": safetensors(weights),
        "tokenizer.json": b"{}" + b" " * 5000,
        "chat_template.jinja": b"{{ messages }}",
        "README.md": b"---\nlicense: apache-2.0\n---\n# Lamp\n",
        "LICENSE": b"Apache",
        "NOTICE": b"Apache",
        "notes.txt": b"",
    }


EXTRA = {
    "pytorch_model.bin": b"\x80\x04pickle",
    "modeling_lamp.py": b"import os",
    ".gitattributes": b"*.bin filter=lfs",
    "consolidated.safetensors": safetensors(10),
    "original/params.pth": b"\x80\x04",
    "original/model.safetensors": safetensors(10),
    "original/config.json": b"{}",
}


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
