"""What one look found, and the line to type."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """``needed_for`` are commands; ``fix`` is the line to type where ``state`` is not ok."""

    name: str
    state: Literal["ok", "note", "bad"]
    found: str
    needed_for: str = ""
    fix: str = ""


def install(package: str) -> str:
    """The line that installs a package of the system."""
    tools = {"apt-get": "sudo apt-get install", "dnf": "sudo dnf install", "brew": "brew install"}
    return f"{next((line for tool, line in tools.items() if shutil.which(tool)), 'install')} {package}"
