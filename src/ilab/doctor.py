"""What ``ilab doctor`` looks at: what is missing here, for which command, and the line to type.

Three states: ``ok``; ``note``, where something that not everybody needs is missing; ``bad``, where what the
configuration asks for cannot work. Every finding that is not ``ok`` has a line to type. Nothing is changed, nothing
is downloaded, and no secret is shown. Servers are asked for their list of models, and for nothing that costs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ilab.config import cache_home
from ilab.errors import IlabError, InputError
from ilab.hardware import GIB, Hardware, detect
from ilab.machine import torch_info, version
from ilab.profiles import wanted

if TYPE_CHECKING:
    from ilab.config import Endpoint, Loaded

LEAST_MEMORY, LEAST_DISK = 4 * GIB, 10 * GIB
PATIENCE = 10.0  # seconds that a server may take
PORT = 8000  # where `ilab model serve` listens
EXTRAS = (  # extra, packages, what needs it
    ("train", ("torch", "transformers", "tokenizers", "safetensors"), "ilab run, model train, serve, chat, evaluate"),
    ("lora", ("peft", "bitsandbytes"), "model train --method lora and qlora"),
    ("gguf", ("gguf",), "model convert"),
    ("sign", ("model-signing", "pyopenssl"), "package push --sign-key, package verify --key"),
    ("model-registry", ("model-registry",), "where.package.model_registry (Kubeflow)"),
    ("parquet", ("pyarrow",), "data export --format parquet"),
    ("xlsx", ("openpyxl",), "model evaluate --benchmark dk_bench with workbooks"),
    ("docling", ("docling",), "document_converter=docling; the built-in reader needs nothing"),
    ("harness", ("lm-eval",), "model evaluate --benchmark tasks, for tasks that are not read here"),
)


@dataclass(frozen=True)
class Finding:
    """``needed_for`` are commands; ``fix`` is the line to type where ``state`` is not ok."""

    name: str
    state: Literal["ok", "note", "bad"]
    found: str
    needed_for: str = ""
    fix: str = ""


def examine(loaded: Loaded, wrong: InputError | None = None) -> Iterator[Finding]:
    """All findings, in the order in which a person would look. Slow ones (torch, servers) come last.

    ``wrong`` is a mistake in the configuration; ``loaded`` are the defaults then.
    """
    hardware = detect()
    yield _configuration(loaded, wrong)
    yield _git()
    yield from _packages()
    yield _llama_cpp()
    yield _memory(hardware)
    yield from _disks(loaded)
    yield from _models(loaded)
    yield _port(PORT)
    yield from _cluster(loaded)
    if version("torch"):
        yield _devices(hardware, loaded.config.where.device)
    yield from _servers(loaded)


def _configuration(loaded: Loaded, wrong: InputError | None) -> Finding:
    if wrong:
        found = f"{wrong.where}: {wrong.message}" if wrong.where else wrong.message
        told = f"{found}; {wrong.hint}" if wrong.hint else found
        return Finding("configuration", "bad", told, "everything", "ilab config edit")
    if loaded.files:
        return Finding("configuration", "ok", ", ".join(map(str, loaded.files)))
    fix = "ilab config init"
    return Finding("configuration", "note", "no file: all settings have their defaults", "a taxonomy of your own", fix)


def _git() -> Finding:
    if path := shutil.which("git"):
        return Finding("git", "ok", path)
    return Finding(
        "git", "note", "not installed", "config init, taxonomy diff, documents from repositories", _os("git")
    )


def _packages() -> Iterator[Finding]:
    for extra, packages, needed in EXTRAS:
        missing = [name for name in packages if version(name) is None]
        if missing:
            fix = f"pip install 'ilab[{extra}]'"
            yield Finding(f"extra {extra}", "note", f"{', '.join(missing)} not installed", needed, fix)
        else:
            yield Finding(f"extra {extra}", "ok", ", ".join(f"{name} {version(name)}" for name in packages))


def _llama_cpp() -> Finding:
    found = shutil.which("llama-server") or (version("xllamacpp") and f"xllamacpp {version('xllamacpp')}")
    if found:
        return Finding("llama.cpp", "ok", str(found))
    return Finding("llama.cpp", "note", "not installed", "GGUF files at full speed", "pip install xllamacpp")


def _memory(hardware: Hardware) -> Finding:
    size = f"{hardware.memory / GIB:.1f} GiB"
    if hardware.memory >= LEAST_MEMORY or not hardware.memory:
        return Finding("memory", "ok", size if hardware.memory else "unknown")
    return Finding("memory", "note", f"{size}, little", "any real model", "ilab -C DIR run with sdg_base_model=tiny")


def _disks(loaded: Loaded) -> Iterator[Finding]:
    where = loaded.config.where
    cache = loaded.path(where.cache) if where.cache else cache_home()
    for name, folder, setting in (("store", loaded.store, "where.store"), ("cache", cache, "where.cache")):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK):
            fix = f"ilab config set {setting} FOLDER"
            yield Finding(name, "bad", f"{there} cannot be written", "everything", fix)
        elif free < LEAST_DISK:
            fix = f"ilab pipeline gc   or ilab config set {setting} FOLDER"
            yield Finding(name, "note", f"{free / GIB:.1f} GiB free at {there}", "checkpoints and models", fix)
        else:
            yield Finding(name, "ok", f"{free / GIB:.0f} GiB free at {folder}")


def _models(loaded: Loaded) -> Iterator[Finding]:
    """The models of the roles that no server plays, whether they lie here."""
    where = loaded.config.where
    played = {"teacher": where.teacher, "judge": where.judge}
    for role, model in wanted(loaded).items():
        if played.get(role) is not None:
            continue
        path = loaded.path(model.repository)
        folder = path if path.exists() else cache_home() / "models" / model.repository
        if folder.exists():
            yield Finding(role, "ok", str(folder))
            continue
        name = f"--repository {model.repository}{f' --filename {model.file}' if model.file else ''}"
        needed = f"runs in which a model of this machine is the {role}"
        yield Finding(role, "note", f"{model} is not here", needed, f"ilab model download {name}")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if not taken:
        return Finding(f"port {port}", "ok", "free")
    found = "a server answers"
    return Finding(f"port {port}", "note", found, "model serve", f"ilab model serve --port {port + 1}")


def _cluster(loaded: Loaded) -> Iterator[Finding]:
    launcher = loaded.config.where.train.launcher
    if launcher == "here":
        return
    if path := shutil.which("kubectl") or shutil.which("oc"):
        yield Finding("cluster", "ok", path)
    else:
        fix = "install kubectl or oc, or: ilab config set where.train.launcher here"
        yield Finding("cluster", "note", f"no kubectl to apply a {launcher} with", "model train on a cluster", fix)


def _devices(hardware: Hardware, wanted_device: str) -> Finding:
    """Whether torch sees the GPU that the system has, and has the device that the configuration names."""
    told = torch_info()
    if "error" in told:
        fix = "pip install --force-reinstall torch"
        return Finding("torch", "bad", f"cannot be loaded: {told['error']}", "training", fix)
    usable = {"cpu", *(name for name in ("cuda", "mps") if told[f"{name} available"])}
    found = f"{told['version']}, devices: {', '.join(sorted(usable))}"
    kind = wanted_device.partition(":")[0]
    if kind not in ("auto", *usable):
        fix = "ilab config set where.device auto"
        return Finding("torch", "bad", f"{found}; where.device is {wanted_device}", "training", fix)
    expected = {"gpu": "cuda", "apple": "mps", "cpu": "cpu"}[hardware.kind]
    if expected not in usable:
        amd = hardware.gpus[0].vendor == "amd"
        fix = "https://pytorch.org/get-started/locally names the line for this " + ("ROCm" if amd else "driver")
        return Finding("torch", "note", f"{found}; it does not see {hardware}", "training on the GPU", fix)
    return Finding("torch", "ok", found)


def _servers(loaded: Loaded) -> Iterator[Finding]:
    where = loaded.config.where
    for name, endpoint in (("teacher", where.teacher), ("verifier", where.verifier), ("judge", where.judge)):
        if endpoint is not None:
            yield _server(f"where.{name}", endpoint)


def _server(name: str, endpoint: Endpoint) -> Finding:
    from ilab.models.probe import probe

    quick = endpoint.model_copy(update={"timeout": min(PATIENCE, endpoint.timeout)})
    try:
        found = asyncio.run(probe(quick, endpoint.model, wanted=()))
    except IlabError as error:
        fix = error.hint or f"ilab endpoint check {endpoint.url}"
        return Finding(name, "bad", error.message, "what asks it", fix)
    models = ", ".join(found.models[:5]) or "no list of models"
    return Finding(name, "ok", f"{endpoint.url} serves {models}")


def _os(package: str) -> str:
    """The line that installs a package of the system."""
    tools = {"apt-get": "sudo apt-get install", "dnf": "sudo dnf install", "brew": "brew install"}
    return f"{next((line for tool, line in tools.items() if shutil.which(tool)), 'install')} {package}"
