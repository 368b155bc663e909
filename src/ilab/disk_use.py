"""What ``ilab system df`` tells: which of our folders takes how much, and the line that makes it smaller.

Models, results and caches may lie inside one another; each byte is counted where it says most, and once: a file of
several names (results share theirs) counts for the first.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ilab.config import cache_home, data_home
from ilab.core.objects import SHORT
from ilab.core.remote_check import Taken, taken
from ilab.errors import IlabError
from ilab.transfer.shelf import OWN, Shelf, checkpoints_home, models_home

if TYPE_CHECKING:
    from ilab.config import Loaded

IMAGES = "oci"
Seen = set[tuple[int, int]]  # device and number of files that were counted


@dataclass(frozen=True)
class Use:
    """``bytes`` that ``path`` takes, and the line that frees them; ``holds`` counts what lies there."""

    name: str
    path: Path
    bytes: int
    holds: str
    prune: str


def disk_use(loaded: Loaded) -> Iterator[Use]:
    """Everything of ours on this machine that takes room: of this project, and of the user."""
    seen: Seen = set()
    where = loaded.config.where
    cache = loaded.path(where.cache) if where.cache else cache_home()
    shelf = Shelf(models_home())
    models = shelf.models()
    partial = shelf.root / OWN / "partial"
    unfinished = sorted(shelf.unfinished())
    yield _use("downloads under way", [partial], seen, _counted(unfinished, "model"), "ilab model remove NAME")
    yield _use("models", [shelf.root], seen, _counted(models, "model"), "ilab model remove NAME")
    begun = sorted(loaded.store.glob("*/*.partial"))
    kept = sorted(loaded.store.glob("*/*/record.json"))
    yield _use("unfinished results", begun, seen, _counted(begun, "result"), "ilab pipeline gc", loaded.store)
    if loaded.bucket:
        prune = f"rm -r {loaded.store}   (when nothing runs; what is needed is fetched again from {loaded.bucket})"
        yield _use("mirror of the store", [loaded.store], seen, _counted(kept, "result"), prune)
    else:
        yield _use("results", [loaded.store], seen, _counted(kept, "result"), "ilab pipeline gc")
    checkpoints = checkpoints_home()
    trained = Shelf(checkpoints).models()
    prune = f"rm -r {checkpoints / 'NAME'}   (see: ilab model list --list-checkpoints)"
    yield _use("checkpoints", [checkpoints], seen, _counted(trained, "model"), prune)
    datasets = data_home() / "datasets"
    runs = sorted(datasets.iterdir()) if datasets.is_dir() else []
    yield _use("datasets", [datasets], seen, _counted(runs, "folder"), f"rm -r {datasets / 'NAME'}")
    images = cache_home() / IMAGES
    prune = f"rm -r {images}   (models that InstructLab took from a registry are links into it)"
    yield _use("images of InstructLab", [images], seen, "", prune)
    logs = data_home() / "processes"
    yield _use("logs of background runs", [logs], seen, "", "ilab process prune")
    caches = [path for root in dict.fromkeys((cache, cache_home())) for path in _caches(root, shelf.root)]
    prune = f"rm -r {' '.join(map(str, caches))}   (can be fetched again)"
    yield _use("caches", caches, seen, _counted(caches, "folder"), prune, cache)
    yield _use("other data", [data_home()], seen, "", f"ls {data_home()}")


@dataclass(frozen=True)
class BucketUse:
    """What the store takes in its bucket, which is on no disk of this machine: by type of result. ``error`` says why
    nobody knows."""

    address: str
    types: dict[str, Taken]
    error: str = ""

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.types.values())

    @property
    def results(self) -> int:
        return sum(one.results for one in self.types.values())


def bucket_use(loaded: Loaded) -> BucketUse | None:
    """The same for a store in a bucket; None for one in a folder. A server that is away is told, and no error."""
    if not loaded.bucket:
        return None
    from ilab.transfer.stores import objects_of

    try:
        return BucketUse(loaded.bucket, taken(objects_of(loaded), SHORT))
    except IlabError as error:
        return BucketUse(loaded.bucket, {}, error.message)


def _use(name: str, folders: Sequence[Path], seen: Seen, holds: str, prune: str, path: Path | None = None) -> Use:
    size = sum(_bytes(folder, seen) for folder in folders)
    return Use(name, path or folders[0], size, holds, prune)


def _caches(root: Path, models: Path) -> list[Path]:
    """The folders of a cache, without the models and the images that InstructLab's models are links into."""
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in folders if path.is_dir() and path != models and path.name != IMAGES]


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _bytes(folder: Path, seen: Seen) -> int:
    """Bytes of the files below ``folder`` that were not counted yet; links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                told = Path(parent, name).lstat()
            except OSError:  # it has just gone
                continue
            if stat.S_ISREG(told.st_mode) and (told.st_dev, told.st_ino) not in seen:
                seen.add((told.st_dev, told.st_ino))
                total += told.st_size
    return total
