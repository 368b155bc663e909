"""Memory and disks, against what the models that the roles want need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ilab.doctor.finding import Finding
from ilab.doctor.models import here, local
from ilab.hardware import GIB, Hardware

if TYPE_CHECKING:
    from ilab.config import Loaded

LEAST_MEMORY, LEAST_DISK = 4 * GIB, 10 * GIB


def memory(loaded: Loaded, hardware: Hardware) -> Iterator[Finding]:
    """The machine's memory; and the models that do not fit into that of one device."""
    from ilab.profiles import choose

    size = f"{hardware.memory / GIB:.1f} GiB"
    if hardware.memory >= LEAST_MEMORY or not hardware.memory:
        yield Finding("memory", "ok", size if hardware.memory else "unknown")
    else:
        fix = "ilab -C DIR run with sdg_base_model=tiny"
        yield Finding("memory", "note", f"{size}, little", "any real model", fix)
    there = hardware.device_memory * max(1, len(hardware.gpus))
    for role, model in local(loaded).items():
        if there and model.bytes > there:
            found = f"{model.repository} needs {model.bytes / GIB:.0f} GiB and more; there are {there / GIB:.0f} GiB"
            fix = f"ilab config set --user profile {choose(hardware).name}   or ilab config set where.{role}.url URL"
            if role not in ("teacher", "judge"):
                fix = f"ilab config set --user profile {choose(hardware).name}"
            yield Finding(f"memory for the {role}", "note", found, f"the {role} on this machine", fix)


def disks(loaded: Loaded) -> Iterator[Finding]:
    """The store, the cache and the models folder: whether they can be written, and have room."""
    from ilab.config import cache_home
    from ilab.transfer.shelf import models_home

    where = loaded.config.where
    cache = loaded.path(where.cache) if where.cache else cache_home()
    for name, folder, setting in (("store", loaded.store, "where.store"), ("cache", cache, "where.cache")):
        there, free = _free(folder)
        move = f"ilab config set {setting} FOLDER"
        if not os.access(there, os.W_OK):
            yield Finding(name, "bad", f"{there} cannot be written", "everything", move)
        elif free < LEAST_DISK:
            fix = f"ilab system df   or {move}"
            yield Finding(name, "note", f"{free / GIB:.1f} GiB free at {there}", "checkpoints and models", fix)
        else:
            yield Finding(name, "ok", f"{free / GIB:.0f} GiB free at {folder}")
    missing = {model.repository: model.bytes for model in local(loaded).values() if here(loaded, model) is None}
    needed = sum(missing.values())
    there, free = _free(models_home())
    found = f"{free / 1e9:.0f} GB free at {models_home()}; the models that are missing are {needed / 1e9:.1f} GB"
    if free < needed:
        fix = "ilab system df   or ilab model download --model-dir FOLDER"
        yield Finding("models folder", "note", found, "model download", fix)
    else:
        yield Finding("models folder", "ok", found)


def _free(folder: Path) -> tuple[Path, int]:
    """The nearest folder that is there, and the bytes free at it."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return there, shutil.disk_usage(there).free
