"""One parameter: its name, type and defaults, what values it takes, and what it is for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Check = Callable[[Any], bool]


Environment = Literal["dev", "prod"]


@dataclass(frozen=True)
class Parameter:
    """``prod`` is the default in that environment where it is another; ``required``: no cluster run without it."""

    name: str
    type: type
    default: Any
    help: str
    kind: Literal["what", "where"] = "what"
    valid: str = ""
    check: Check = lambda value: True
    prod: Any = None
    required: bool = False

    def default_in(self, environment: Environment) -> Any:
        return self.prod if environment == "prod" and self.prod is not None else self.default

    @property
    def variable(self) -> str:
        """Its name in a file of variables."""
        return self.name.upper()


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


def quantity(value: Any) -> bool:
    """An amount as Kubernetes writes it: ``4``, ``500m``, ``120Gi``."""
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?)?", value) is not None


def secret_name(value: Any) -> bool:
    """A name of an object of Kubernetes, or nothing."""
    return re.fullmatch(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?", value) is not None


def workers(value: Any) -> bool:
    """``auto``, or a number above nothing."""
    return value == "auto" or (value.isdecimal() and int(value) > 0)


def json_of(type_: type) -> Check:
    """The text is nothing, or JSON of ``type_``."""

    def check(value: Any) -> bool:
        try:
            return not value.strip() or isinstance(json.loads(value), type_)
        except ValueError:
            return False

    return check


def resources(value: Any) -> bool:
    """JSON as ``{"cpu": "4", "memory": "120Gi"}``, or nothing."""
    if not json_of(dict)(value):
        return False
    asked = json.loads(value) if value.strip() else {}
    return set(asked) <= {"cpu", "memory"} and all(quantity(str(amount)) for amount in asked.values())
