"""The types of GGUF file: what they are called, what is stored in each, and how exact a tensor has to be in it."""

from __future__ import annotations

from dataclasses import dataclass

from ilab.errors import InputError


@dataclass(frozen=True)
class FileType:
    """``number`` is llama.cpp's ``llama_ftype``; ``tensor`` the type of its matrices, empty where llama.cpp has to
    choose for each; ``bits`` the size of a weight, for the forecast of disk; ``rounding`` the largest root mean
    square of a tensor's error, relative to that of the tensor; ``step`` that of the numbers with which llama.cpp
    multiplies such a matrix, which it rounds alike (to blocks of 8 bits where the matrix has fewer)."""

    name: str
    number: int
    tensor: str
    bits: float
    rounding: float
    step: float


TYPES = {
    kind.name: kind
    for kind in (
        FileType("f32", 0, "F32", 32, 0.0, 1e-5),
        FileType("f16", 1, "F16", 16, 1e-3, 2.1e-4),
        FileType("bf16", 32, "BF16", 16, 4e-3, 1.7e-3),
        FileType("q8_0", 7, "Q8_0", 8.5, 1e-2, 5.5e-3),
        FileType("q5_0", 8, "Q5_0", 5.5, 0.06, 5.5e-3),
        FileType("q4_0", 2, "Q4_0", 4.5, 0.12, 5.5e-3),
        FileType("q6_k", 18, "", 6.6, 0.03, 5.5e-3),
        FileType("q5_k_m", 17, "", 5.7, 0.06, 5.5e-3),
        FileType("q5_k_s", 16, "", 5.6, 0.06, 5.5e-3),
        FileType("q4_k_m", 15, "", 4.9, 0.12, 5.5e-3),
        FileType("q4_k_s", 14, "", 4.6, 0.12, 5.5e-3),
        FileType("q3_k_m", 12, "", 3.9, 0.25, 5.5e-3),
    )
}


def file_type(name: str) -> FileType:
    """The type of that name, in any case. Raises ``InputError`` for an unknown one."""
    kind = TYPES.get(name.lower())
    if kind is None:
        raise InputError(f"{name!r} is no type of GGUF file", hint=f"take one of: {', '.join(TYPES)}")
    return kind
