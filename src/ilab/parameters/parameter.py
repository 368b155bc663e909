"""One parameter: its name, type and default, what values it takes, and what it is for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Parameter:
    name: str
    type: type
    default: Any
    help: str
    kind: Literal["what", "where"] = "what"
    valid: str = ""
    check: Check = lambda value: True


def positive(value: Any) -> bool:
    return bool(value > 0)


def not_negative(value: Any) -> bool:
    return bool(value >= 0)


def share(value: Any) -> bool:
    return bool(0 <= value <= 1)


def part(value: Any) -> bool:
    return bool(0 <= value < 1)


def one_of(*words: str) -> Check:
    return lambda value: value in words


def version(value: Any) -> bool:
    return re.fullmatch(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?", value) is not None
