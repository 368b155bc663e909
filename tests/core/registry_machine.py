"""A machine that changes a registry in a bucket: a process of its own, which may be made to wait before it uploads."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ilab.config import Where
from ilab.packaging.registry import Entry, open_registry
from ilab.packaging.registry_object import RegistryObject
from ilab.packaging.stages import Stages


def entry(version: str, digest: str = "") -> Entry:
    return Entry(name="lamp", version=version, digest=digest or f"sha256:{version}", uri=f"oci:/p/{version}")


def work(stages: Stages, who: str, rounds: int) -> None:
    """Whatever one does with a registry, over and over, on versions of its own."""
    for number in range(rounds):
        version = f"{who}.{number}.0"
        stages.registry.register(entry(version))
        stages.alias("lamp", version, f"of-{who}")
        stages.promote("lamp", version, "production")
    stages.recall("lamp", f"{who}.0.0", f"made by {who}")
    stages.rollback("lamp", f"of-{who}")


if __name__ == "__main__":
    address, endpoint, task, who = sys.argv[1:]
    registry = open_registry(address, Where(s3_endpoint=endpoint))
    if task == "hang":
        upload = RegistryObject._upload

        def hanging(self: RegistryObject, data: bytes) -> bool:
            Path(who).touch()
            while Path(who).exists():
                time.sleep(0.02)
            return upload(self, data)

        RegistryObject._upload = hanging  # type: ignore[method-assign]
        registry.register(entry("9.0.0"))
    else:
        work(Stages(registry), who, int(task))
