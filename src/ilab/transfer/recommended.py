"""Models that are known to do, by the memory of the machine, for people who have not chosen any.

All are open, their licences let everybody use and train them. A teacher writes samples; a student is trained, which
takes several times its size in memory. Sizes are about right; what the hub says is shown before anything is fetched.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class Recommended:
    """``memory`` of the machine from which on it is recommended, and ``size`` of the model, both in GB (10^9 bytes)."""

    role: Role
    repository: str
    licence: str
    memory: float
    size: float


TABLE = (
    Recommended("teacher", "Qwen/Qwen3-1.7B", "apache-2.0", 0, 4.1),
    Recommended("teacher", "ibm-granite/granite-3.3-2b-instruct", "apache-2.0", 12, 5.1),
    Recommended("teacher", "mistralai/Mistral-7B-Instruct-v0.3", "apache-2.0", 24, 14.5),
    Recommended("teacher", "Qwen/Qwen3-14B", "apache-2.0", 64, 29.5),
    Recommended("teacher", "Qwen/Qwen3-30B-A3B-Instruct-2507", "apache-2.0", 140, 61.1),
    Recommended("student", "HuggingFaceTB/SmolLM2-360M-Instruct", "apache-2.0", 0, 0.7),
    Recommended("student", "Qwen/Qwen3-0.6B", "apache-2.0", 12, 1.5),
    Recommended("student", "ibm-granite/granite-3.3-2b-instruct", "apache-2.0", 40, 5.1),
    Recommended("student", "ibm-granite/granite-3.3-8b-instruct", "apache-2.0", 140, 16.3),
)


def recommended(memory: float | None = None, roles: tuple[Role, ...] = ("teacher", "student")) -> list[Recommended]:
    """One model for each role, for a machine with ``memory`` GB; without it, for this one."""
    have = machine_memory() if memory is None else memory
    found = []
    for role in roles:
        fitting = [one for one in TABLE if one.role == role and one.memory <= have]
        found.append(max(fitting, key=lambda one: one.memory))
    return found


def machine_memory() -> float:
    """Memory of this machine in GB (10^9 bytes)."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
