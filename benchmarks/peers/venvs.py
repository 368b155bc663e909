"""The environment of each peer: what is installed where. None of it has torch."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """``module`` is the client in this folder, ``packages`` what pip installs, ``alone`` without its dependencies."""

    module: str
    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()


# instructlab-sdg asks for the whole of docling, which brings torch and models. Neither is used unless documents are
# read, so docling's slim package takes its place; the others are the dependencies that the generating part imports.
UPSTREAM = ("click<9", "datasets", "docling-slim", "GitPython<4", "gguf", "httpx<1", "instructlab-schema", "jinja2")
UPSTREAM += ("openai<2", "tabulate", "tenacity<10", "xdg-base-dirs")
PEERS = {
    "sdg-hub": Peer("hub", ("sdg-hub==0.9.4",)),
    "instructlab-sdg": Peer("upstream", UPSTREAM, alone=("instructlab-sdg==0.8.3",)),
    "distilabel": Peer("distil", ("distilabel[openai]==1.5.3", "requests")),
    "data-designer": Peer("designer", ("data-designer==0.9.6",)),
}
# The client libraries of the peers, in the environments that have them.
LIBRARIES = {"litellm": ("litellm_loop", "sdg-hub"), "openai": ("openai_loop", "distilabel")}


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("ILAB_BENCHMARK_CACHE") or f"{home}/ilab/benchmarks")


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, which need not exist."""
    return cache() / name / "bin" / "python"


def installed(name: str) -> bool:
    return (cache() / name / ".done").exists()


def install(name: str) -> None:
    """Make the environment. What pip says is shown; raises ``CalledProcessError`` when it fails."""
    peer, folder = PEERS[name], cache() / name
    print(f"installing {name} in {folder}", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python_of(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if peer.alone:
        subprocess.run([*pip, "--no-deps", *peer.alone], check=True)
    subprocess.run([*pip, *peer.packages], check=True)
    (folder / ".done").touch()


def versions(name: str) -> str:
    """``name version (library version)`` as they are installed."""
    program = (
        "import importlib.metadata as m, sys\n"
        "def of(n):\n    try:\n        return m.version(n)\n    except m.PackageNotFoundError:\n        return ''\n"
        "found = [(n, of(n)) for n in sys.argv[1:]]\n"
        "print(', '.join(f'{n} {v}' for n, v in found if v))"
    )
    command = [str(python_of(name)), "-c", program, name, "litellm", "openai", "datasets"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
