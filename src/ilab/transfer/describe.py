"""What a model on this machine is, read from its first bytes and its papers: no weights are loaded, nothing is run.

A GGUF file begins with its metadata (ggml's specification of the format, version 3); a safetensors file with a JSON
header. Both come from anybody, so both are read within limits, and what makes no sense is simply not known.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ilab.transfer.shelf import Model

MOST_HEADER = 64 << 20  # bytes of a safetensors header
MOST_KEYS = 200  # of a GGUF file that are looked at; those about the model come first
MOST_STRING = 1 << 16
MOST_JSON = 4 << 20
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_FILE_TYPES = {  # llama.cpp's llama_ftype
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s", 12: "q3_k_m",
    13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 32: "bf16",
}  # fmt: skip
_DTYPES = {"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I8": "int8", "U8": "uint8", "F8_E4M3": "fp8"}
_LICENCE = re.compile(r"^license:[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class Facts:
    """Empty or None where the model does not say. ``parameters`` counts weights, ``context`` tokens."""

    format: str
    quantisation: str = ""
    architecture: str = ""
    parameters: int | None = None
    context: int | None = None
    licence: str = ""
    lineage: str = ""
    code: bool = False


def describe(model: Model) -> Facts:
    """What ``model`` says of itself."""
    licence = model.record.licence if model.record else ""
    if model.path.is_file():
        said = read_gguf(model.path)
        named = str(said.get("general.architecture", ""))
        context = said.get(f"{named}.context_length")
        kind = said.get("general.file_type")
        return Facts(
            "gguf",
            _FILE_TYPES.get(kind, "") if isinstance(kind, int) else "",
            _plain(named),
            context=context if isinstance(context, int) else None,
            licence=licence or _plain(said.get("general.license", "")),
        )
    config = _json(model.path / "config.json")
    counted = [_weights(file) for file in sorted(model.path.glob("*.safetensors"))]
    total: dict[str, int] = {}
    for one in counted:
        for dtype, count in one.items():
            total[dtype] = total.get(dtype, 0) + count
    quantised = config.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    widest = max(total, key=lambda dtype: total[dtype]) if total else ""
    architectures, context = config.get("architectures"), config.get("max_position_embeddings")
    return Facts(
        "safetensors",
        _plain(method or "") or _DTYPES.get(widest, _plain(widest).lower()),
        _plain(architectures[0]) if isinstance(architectures, list) and architectures else "",
        sum(total.values()) if total and not method else None,
        context if isinstance(context, int) else None,
        licence or _card_licence(model.path / "README.md"),
        _lineage(model.path / "lineage.json"),
        "auto_map" in config,
    )


def read_gguf(path: Path) -> dict[str, Any]:
    """The first metadata of a GGUF file, without long lists; what was read before anything that makes no sense."""
    found: dict[str, Any] = {}
    try:
        with path.open("rb") as handle:
            if handle.read(4) != b"GGUF" or _number(handle, "I") not in (2, 3):
                return found
            _number(handle, "Q")
            for _ in range(min(_number(handle, "Q"), MOST_KEYS)):
                key, kind = _string(handle), _number(handle, "I")
                if kind == _ARRAY:  # the vocabulary; all that is wanted stands before it
                    if key.startswith("tokenizer."):
                        return found
                    _skip(handle)
                else:
                    found[key] = _string(handle) if kind == _STRING else _number(handle, _FORMATS[kind])
    except (OSError, EOFError, KeyError, UnicodeDecodeError):
        return found
    return found


def _skip(handle: IO[bytes]) -> None:
    """Pass over a list of numbers or strings."""
    kind, count = _number(handle, "I"), _number(handle, "Q")
    if count > MOST_STRING:
        raise EOFError
    for _ in range(count):
        if kind == _STRING:
            _string(handle)
        else:
            _number(handle, _FORMATS[kind])


def _number(handle: IO[bytes], form: str) -> Any:
    size = struct.calcsize(f"<{form}")
    data = handle.read(size)
    if len(data) != size:
        raise EOFError
    return struct.unpack(f"<{form}", data)[0]


def _string(handle: IO[bytes]) -> str:
    length = _number(handle, "Q")
    data = handle.read(length) if length <= MOST_STRING else b""
    if len(data) != length:
        raise EOFError
    return data.decode()


def _weights(path: Path) -> dict[str, int]:
    """How many weights of which type a safetensors file holds, by its header."""
    try:
        with path.open("rb") as handle:
            length = _number(handle, "Q")
            header = json.loads(handle.read(length)) if length <= MOST_HEADER else {}
        counts: dict[str, int] = {}
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for side in tensor["shape"]:
                    size *= int(side)
                counts[str(tensor["dtype"])] = counts.get(str(tensor["dtype"]), 0) + size
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return counts


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MOST_JSON else {}
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _card_licence(path: Path) -> str:
    """The licence in the front matter of a model card."""
    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            text = handle.read(MOST_STRING)
    except OSError:
        return ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    match = _LICENCE.search(head)
    return match[1] if match else ""


def _lineage(path: Path) -> str:
    """Of a model that was built here: its name, version, and the taxonomy it was built from."""
    said = _json(path)
    model, taxonomy = said.get("model"), said.get("taxonomy")
    if not isinstance(model, dict) or not isinstance(taxonomy, dict):
        return ""
    built = f"{model.get('name', '')} {model.get('version', '')}".strip()
    return _plain(f"{built} from taxonomy {str(taxonomy.get('digest', ''))[:12]}")


def _plain(text: Any) -> str:
    """For a terminal: printable, and not long."""
    return "".join(letter for letter in str(text) if letter.isprintable())[:100]
