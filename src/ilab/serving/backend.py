"""What serves a model: one of four, chosen by what the model is and what the machine has.

transformers   in this process (:mod:`ilab.serving.here`): Hugging Face directories, and GGUF files of some families
llama-cpp      llama.cpp in a child process, behind our own front (:mod:`ilab.serving.behind`): GGUF files
vllm           vLLM in a child process (:mod:`ilab.serving.vllm`): Hugging Face directories on NVIDIA and AMD GPUs
external       a server that runs already (:mod:`ilab.serving.external`): it is looked at, nothing is started
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from ilab.config_where import ServeWhere
from ilab.errors import InputError
from ilab.hardware import detect
from ilab.models.gguf.header import read_header
from ilab.models.llamacpp import server_name
from ilab.models.weights import check_folder

MODULES = {"transformers": "here", "llama-cpp": "behind", "vllm": "vllm", "external": "external"}


def _silent(_: str) -> None:
    return


@dataclass(frozen=True)
class Job:
    """What is to be served, and how. ``names``: the first is what clients are told; ``extra`` are words for vLLM's
    command line; ``log`` takes what a child says (None: it goes where our own output goes).

    ``say`` is called with lines for people, ``detail`` with those that only few want, ``ready`` with the base URL.
    """

    model: Path
    names: tuple[str, ...]
    settings: ServeWhere = field(default_factory=ServeWhere)
    device: str = "auto"
    threads: int = 1
    key: str = field(default="", repr=False)
    extra: tuple[str, ...] = ()
    log: Path | None = None
    say: Callable[[str], None] = _silent
    detail: Callable[[str], None] = _silent
    ready: Callable[[str], None] = _silent

    def tell(self, seconds: float, line: str) -> None:
        """How a start goes on."""
        self.say(f"{seconds:.0f} s: {line}" if line else f"{seconds:.0f} s …")


class Backend(Protocol):
    """One way to serve."""

    def check(self, job: Job) -> None:
        """Raises what is wrong or missing, before anything is started."""
        ...

    def serve(self, job: Job) -> int:
        """Serve until SIGINT or SIGTERM; returns the signal's number, 0 where there is nothing to wait for."""
        ...


def backend(name: str) -> Backend:
    """The backend of that name. A module is one: it has ``check`` and ``serve``."""
    return cast(Backend, import_module(f"ilab.serving.{MODULES[name]}"))


def choose(model: Path, settings: ServeWhere) -> tuple[str, str]:
    """The name of the backend for ``model``, and why, for people.

    Raises ``InputError`` for what is no model, and for a backend that cannot serve it.
    """
    wanted = settings.backend
    if wanted == "external" or (settings.url and wanted == "auto"):
        return "external", "where.serve.url names a server"
    if model.is_file():
        header = read_header(model)
        if wanted == "vllm":
            return "vllm", "as asked; vLLM reads GGUF files of few kinds"
        if wanted == "transformers":
            return "transformers", "as asked"
        if wanted == "llama-cpp" or server_name():
            return "llama-cpp", f"a GGUF file of architecture {header.architecture}"
        return "transformers", "llama.cpp is not here, so transformers serves this GGUF file: slower, in 32 bits"
    check_folder(model)
    if wanted == "llama-cpp":
        raise InputError(
            "llama.cpp serves GGUF files, and this is a Hugging Face directory",
            where=str(model),
            hint=f"make one with: ilab model convert {model}; or leave --backend out",
        )
    if wanted != "auto":
        return wanted, "as asked"
    if settings.gpus or (find_spec("vllm") is not None and has_gpu()):
        return "vllm", "a Hugging Face directory and a GPU"
    return "transformers", "a Hugging Face directory"


def has_gpu() -> bool:
    """Whether there is a GPU that vLLM knows."""
    return platform.system() == "Linux" and any(gpu.vendor in ("nvidia", "amd") for gpu in detect().gpus)
