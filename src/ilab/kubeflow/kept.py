"""The plan of a run where its last task finds it, which by Kubeflow's rules takes nothing from the others.

With a store in a bucket it lies there (``kubeflow/RUN/``), since no volume need be shared then; else on the volume
(``runs/RUN/``). ``ilab pipeline gc`` leaves those of the newest runs in the bucket.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ilab.config import S3, Where
from ilab.core.files import write_bytes
from ilab.core.objects import Objects, patiently
from ilab.core.remote_store import PLANS


@dataclass(frozen=True)
class Kept:
    """``store``: address of a bucket or a folder; ``root``: folder of the run's volume; ``run``: the run's id."""

    store: str
    root: str
    run: str

    def keep(self, folder: Path, names: Iterable[str], where: Where) -> None:
        """The files ``names`` of ``folder``. Raises ServiceError where the bucket does not take them."""
        if self.store.startswith(S3):
            objects = self._objects(where)
            for name in names:
                patiently(partial(objects.write, f"{self._prefix}/{name}", (folder / name).read_bytes()))
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(folder / name, self._folder / name)

    def found(self, names: Iterable[str], where: Where, into: Path) -> Path:
        """The folder that they are in: ``into``, where they came out of a bucket. What was not kept is not there."""
        if not self.store.startswith(S3):
            return self._folder
        objects = self._objects(where)
        for name in names:
            there = patiently(partial(objects.get, f"{self._prefix}/{name}"))
            if there is not None:
                write_bytes(into / name, there[0])
        return into

    @property
    def _prefix(self) -> str:
        return f"{PLANS}/{self.run}"

    @property
    def _folder(self) -> Path:
        return Path(self.root, "runs", self.run)

    def _objects(self, where: Where) -> Objects:
        from ilab.transfer.address import parse
        from ilab.transfer.s3_objects import S3Objects

        return S3Objects(parse(self.store.rstrip("/")), where.s3_endpoint or "", where.web)
