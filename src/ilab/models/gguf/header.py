"""What a GGUF file says of itself: its keys, and how many bytes it must have. No weights are read.

The file may come from anybody: every length is checked against what is left of the file before anything is read.
Raises ``InputError`` for what is no GGUF file, and for one that was cut short, as an interrupted copy is.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from ilab.errors import InputError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of tokens
DEEPEST = 4  # lists within lists
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32  # of the tensors, where the file says nothing
_BLOCKS = {  # ggml's types: weights and bytes of a block
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """``keys`` are the metadata as plain values; ``tensors`` is their number, ``parts`` that of the files."""

    version: int
    keys: dict[str, Any]
    tensors: int

    @property
    def architecture(self) -> str:
        return str(self.keys.get("general.architecture", ""))[:100]

    @property
    def parts(self) -> int:
        count = self.keys.get("split.count", 1)
        return count if isinstance(count, int) and count > 0 else 1

    @property
    def context(self) -> int | None:
        """Tokens that the model was made for."""
        found = self.keys.get(f"{self.architecture}.context_length")
        return found if isinstance(found, int) else None

    @property
    def template(self) -> str | None:
        found = self.keys.get("tokenizer.chat_template")
        return found if isinstance(found, str) else None

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """The texts of the control tokens."""
        tokens, types = (self.keys.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
        if not isinstance(tokens, list) or not isinstance(types, list):
            return frozenset()
        return frozenset(str(text) for text, kind in zip(tokens, types, strict=False) if kind == CONTROL)


def read_header(path: Path) -> Header:
    """The header of ``path``, whose tensors must all be there. Raises ``InputError`` for anything else."""
    try:
        with path.open("rb") as handle:
            return _read(path, handle, path.stat().st_size)
    except OSError as error:
        raise InputError(f"this file cannot be read: {error.strerror}", where=str(path)) from error


def _read(path: Path, handle: IO[bytes], size: int) -> Header:
    magic = handle.read(4)
    if magic != MAGIC:
        raise InputError(
            f"this is no GGUF file: it begins with {magic!r}",
            where=str(path),
            hint="give a GGUF file, or the folder of a Hugging Face model",
        )
    source = _Source(handle, size)
    try:
        version = source.number("I")
        if version not in VERSIONS:
            raise InputError(f"GGUF of version {version} is not known here", where=str(path), hint="known: 2 and 3")
        tensors, count = source.number("Q"), source.number("Q")
        keys = {source.string(): source.value(source.number("I")) for _ in range(source.fits(count, 12))}
        end = max((source.tensor() for _ in range(source.fits(tensors, 24))), default=0)
        alignment = keys.get("general.alignment", _ALIGNMENT)
        start = handle.tell()
        start += -start % (alignment if isinstance(alignment, int) and alignment > 0 else _ALIGNMENT)
    except (EOFError, UnicodeDecodeError, KeyError) as error:
        what = "ends within its header" if isinstance(error, EOFError) else "its header makes no sense"
        raise InputError(f"this GGUF file is torn: {what}", where=str(path), hint=AGAIN) from error
    if size < start + end:
        raise InputError(
            f"this GGUF file is torn: its header promises {start + end:,} bytes, it has {size:,}",
            where=str(path),
            hint=AGAIN,
        )
    return Header(version, keys, tensors)


AGAIN = "copy it again, or download it again: ilab model download"


class _Source:
    """Reads numbers and texts; ``EOFError`` where the file has not that many bytes left."""

    def __init__(self, handle: IO[bytes], size: int) -> None:
        self._handle, self._size = handle, size

    def fits(self, count: int, least: int) -> int:
        """``count`` things of at least so many bytes each, if so much is left."""
        if count * least > self._size - self._handle.tell():
            raise EOFError
        return count

    def bytes(self, count: int) -> bytes:
        return self._handle.read(self.fits(count, 1))

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}")))[0]

    def string(self) -> str:
        return self.bytes(self.number("Q")).decode()

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_FORMATS[kind])
        inner, count = self.number("I"), self.number("Q")
        if inner in _FORMATS:
            form = f"<{count}{_FORMATS[inner]}"
            self.fits(count, 1)
            return list(struct.unpack(form, self.bytes(struct.calcsize(form))))
        if depth == DEEPEST:
            raise KeyError(inner)
        return [self.value(inner, depth + 1) for _ in range(self.fits(count, 8))]

    def tensor(self) -> int:
        """Where the next tensor's data end, from the beginning of all data on. An unknown type ends where it begins."""
        self.string()
        sides = [self.number("Q") for _ in range(self.fits(self.number("I"), 8))]
        kind, offset = self.number("I"), int(self.number("Q"))
        weights, length = _BLOCKS.get(kind, (1, 0))
        return offset + int(math.prod(sides)) // weights * length
