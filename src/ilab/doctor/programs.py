"""Python, git, the extras of this package, and programs that some commands call."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator

from ilab.doctor.finding import Finding, install
from ilab.machine import version

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


def python() -> Finding:
    """The Python that runs this, and whether `ilab` can be typed."""
    found = f"{platform.python_version()} at {sys.executable}"
    if shutil.which("ilab"):
        return Finding("python", "ok", found)
    needed = "typing `ilab`, which is not on PATH"
    return Finding("python", "note", found, needed, f"{sys.executable} -m ilab   or activate its environment")


def git() -> Finding:
    """git, which fetches taxonomies and documents."""
    if path := shutil.which("git"):
        return Finding("git", "ok", path)
    needed = "config init, taxonomy diff, documents from repositories"
    return Finding("git", "note", "not installed", needed, install("git"))


def packages() -> Iterator[Finding]:
    """The extras, by the packages that they bring."""
    for extra, names, needed in EXTRAS:
        missing = [name for name in names if version(name) is None]
        if missing:
            fix = f"pip install 'ilab[{extra}]'"
            yield Finding(f"extra {extra}", "note", f"{', '.join(missing)} not installed", needed, fix)
        else:
            yield Finding(f"extra {extra}", "ok", ", ".join(f"{name} {version(name)}" for name in names))


def optional() -> Iterator[Finding]:
    """Programs without which everything works, but some of it slower."""
    yield _either("llama.cpp", "llama-server", "xllamacpp", "GGUF files at full speed")
    yield _either("vllm", "vllm", "vllm", "model serve --backend vllm: large models on GPUs")


def _either(name: str, program: str, package: str, needed: str) -> Finding:
    """A program on PATH, or a package."""
    installed = version(package)
    found = shutil.which(program) or (installed and f"{package} {installed}")
    if found:
        return Finding(name, "ok", found)
    return Finding(name, "note", "not installed", needed, f"pip install {package}")
