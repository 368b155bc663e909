"""llama.cpp's server, where this machine has it: found, never installed; always a process of its own.

It is ``llama-server`` on the PATH, or the one in the package xllamacpp (:mod:`ilab.models.xllamacpp_server`); both
speak the same HTTP. Another process, since llama.cpp ends its process where a file displeases it.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

KEY = "LLAMA_API_KEY"  # environment variable from which both servers take the key that requests must bring


@dataclass(frozen=True)
class LlamaSettings:
    """``context`` 0: as the model has it. ``gpu_layers`` -1: as many as fit. ``alias``: the model's name. ``template``:
    a file with a chat template in place of the file's own. ``exact``: 32 bits wherever the server would round."""

    port: int
    threads: int
    context: int = 0
    gpu_layers: int = 0
    alias: str = ""
    template: str = ""
    exact: bool = False


def server_name() -> str | None:
    """What would serve a file here, for people; None for nothing."""
    if shutil.which("llama-server"):
        return "llama-server"
    if find_spec("xllamacpp") is not None:
        return f"xllamacpp {metadata.version('xllamacpp')}"
    return None


def server_command(path: Path, settings: LlamaSettings) -> list[str]:
    """The command that serves ``path`` on the loopback; only where ``server_name`` is not None."""
    binary = shutil.which("llama-server")
    if binary is None:
        given = json.dumps({"path": str(path), **asdict(settings)})
        return [sys.executable, "-P", "-m", "ilab.models.xllamacpp_server", given]
    layers = "999" if settings.gpu_layers < 0 else str(settings.gpu_layers)
    command = [binary, "--model", str(path), "--host", "127.0.0.1", "--port", str(settings.port)]
    command += ["--ctx-size", str(settings.context), "--threads", str(settings.threads), "--n-gpu-layers", layers]
    command += ["--parallel", "1", "--jinja"]
    if settings.alias:
        command += ["--alias", settings.alias]
    if settings.template:
        command += ["--chat-template-file", settings.template]
    if settings.exact:
        command += ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    return command
