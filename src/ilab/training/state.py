"""What a training run needs to go on exactly where it was: trained weights, optimizer moments, and a cursor.

A state is a directory ``state-<step>``: safetensors written by every process for its own shard (PyTorch's distributed
checkpoint in its safetensors layout, no pickle), and ``manifest.json`` with the cursor, the sizes and the SHA-256 of
every file. It is written beside, flushed, then renamed; the newest whole one counts and older ones go. Any number of
processes may read what any other number wrote. Data order and dropout derive from (seed, step), so the cursor is all
the randomness there is to save, and a resumed run ends in the same bytes as an unbroken one.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ilab.core.files import fsync_tree, read_json, write_json
from ilab.core.store import digest_file
from ilab.errors import InputError
from ilab.models.weights import saving
from ilab.training.world import World

MANIFEST = "manifest.json"
FORMAT = 2
FILE_BYTES = 64 << 20  # of a file, unless one tensor alone has more


def save_state(work: Path, cursor: Mapping[str, Any], parts: State, world: World) -> None:
    """Write ``state-<step>`` and remove older states once it is whole. ``cursor`` has ``steps``.

    Raises ``SetupError`` where the disk is full; the older state is then still there.
    """
    step = cursor["steps"]
    temporary, final = work / f".state-{step}", work / f"state-{step:08d}"
    if world.leads:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.wait()
    found, plain = parts.read()
    with saving(temporary), _disk(temporary):
        writer = HuggingFaceStorageWriter(str(temporary), _files(found), save_distributed=True)
        save(found, storage_writer=writer, no_dist=world.size == 1)
    world.wait()
    if world.leads:
        files = {path.name: [path.stat().st_size, digest_file(path)] for path in sorted(temporary.iterdir())}
        manifest = {"format": FORMAT, "cursor": dict(cursor), "optimizer": plain, "files": files}
        write_json(temporary / MANIFEST, manifest)
        fsync_tree(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for older in sorted(work.glob("state-*"))[:-1]:
            shutil.rmtree(older)
    world.wait()


def load_state(work: Path, parts: State, world: World) -> dict[str, Any]:
    """Restore the newest whole state. Returns its cursor, an empty one where there is none.

    Raises ``InputError`` for a state that another version wrote, or whose files are not what was written.
    """
    for folder in sorted(work.glob("state-*"), reverse=True):
        if not (folder / MANIFEST).is_file():
            continue
        manifest = read_json(folder / MANIFEST)
        _verify(folder, manifest)
        found = parts.room(manifest["optimizer"])
        with _disk(folder):
            reader = HuggingFaceStorageReader(str(folder))
            load(found, storage_reader=reader, no_dist=world.size == 1)
        parts.write(found, manifest["optimizer"])
        cursor: dict[str, Any] = manifest["cursor"]
        return cursor
    return {}


class State:
    """The tensors of a run by name: trained parameters, what a method keeps besides them, and optimizer moments."""

    def __init__(self, kept: Mapping[str, Tensor], trained: Mapping[str, Tensor], optimizer: Any) -> None:
        """``kept`` are all tensors to save; ``trained`` those of them that ``optimizer`` holds moments of."""
        self._kept = dict(kept)
        self._trained = dict(trained)
        self._optimizer = optimizer

    def read(self) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
        """The tensors; and for each parameter what its moments look like: a shape and dtype, or a plain value.

        Moments in eight bits share the table of what their codes mean; each gets a copy, as files have to hold it.
        """
        found = {name: tensor.detach() for name, tensor in self._kept.items()}
        tables: set[Tensor] = set()
        plain: dict[str, dict[str, Any]] = {}
        for name, parameter in self._trained.items():
            told = plain[name] = {}
            for key, value in self._optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    told[key] = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
                    own = value.detach().clone() if value in tables else value.detach()
                    tables.add(value)  # by identity
                    found[_moment(name, key)] = own.reshape(1) if own.ndim == 0 else own
                else:
                    told[key] = value
        return found, plain

    def room(self, plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
        """Empty tensors to read into, sharded as this world shards them."""
        found = {name: torch.empty_like(tensor.detach()) for name, tensor in self._kept.items()}
        for name, told in plain.items():
            like = self._trained[name].detach()
            for key, value in told.items():
                if not isinstance(value, dict):
                    continue
                dtype, shape = getattr(torch, value["dtype"]), tuple(value["shape"])
                if shape == tuple(like.shape):
                    found[_moment(name, key)] = torch.empty_like(like, dtype=dtype)
                else:
                    found[_moment(name, key)] = torch.empty(shape or (1,), dtype=dtype)
        return found

    @torch.no_grad()
    def write(self, found: Mapping[str, Tensor], plain: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what was read."""
        for name, tensor in self._kept.items():
            tensor.detach().copy_(found[name])
        for name, told in plain.items():
            parameter = self._trained[name]
            state: dict[str, Any] = {}
            for key, value in told.items():
                if not isinstance(value, dict):
                    state[key] = value
                    continue
                moment = found[_moment(name, key)].reshape(tuple(value["shape"]))
                state[key] = moment if key == "step" else moment.to(parameter.device)
            if state:
                self._optimizer.state[parameter] = state


def _files(found: Mapping[str, Tensor]) -> dict[str, int]:
    """Tensor to number of its file, from 1. The writer holds a whole file in memory, twice; hence many small ones."""
    numbers: dict[str, int] = {}
    number, held = 1, 0
    for name, tensor in found.items():
        if held and held + tensor.nbytes > FILE_BYTES:
            number, held = number + 1, 0
        numbers[name] = number
        held += tensor.nbytes
    return numbers


def _moment(name: str, key: str) -> str:
    return f"optimizer/{name}/{key}"


def _verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    hint = f"remove {folder} to train from the start, then run the same command again"
    if manifest.get("format") != FORMAT:
        raise InputError("this training state was written by another version", where=str(folder), hint=hint)
    for name, (size, digest) in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or digest_file(path) != digest:
            raise InputError(f"{name} of this training state is damaged", where=str(folder), hint=hint)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Let a disk that takes no more be an OSError, as every other writer's is; PyTorch wraps it.

    And leave out its remark that one process needs no collectives.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except CheckpointException as error:
        for cause, _ in error.failures.values():
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, str(folder)) from error
        raise
