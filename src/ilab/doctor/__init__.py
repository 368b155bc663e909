"""What ``ilab doctor`` looks at: what is missing here, for which command, and the line to type.

    programs.py   Python, git, extras, programs that some commands call
    project.py    configuration, taxonomy, the store's unfinished work
    room.py       memory and disks, against what the models of the profile need
    models.py     the models of the roles that no server plays, and their chat templates
    store.py      the store's bucket: rights, conditions, what it holds; the model registry
    servers.py    the port of `ilab model serve`; teacher, judge and the other servers
    devices.py    torch, and whether it sees the GPU and suits its driver
    cluster.py    kubectl, and the context of the kubeconfig
    deployment.py what runs need in its namespace, asked of its API (kubernetes_api.py)

Three states: ``ok``; ``note``, where something that not everybody needs is missing; ``bad``, where what the
configuration asks for cannot work. Every finding that is not ``ok`` has a line to type. Nothing is changed but that an
object is written to the store's bucket and removed again, nothing is downloaded, and no secret is shown. Servers are
asked for their list of models, and for nothing that costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ilab.doctor import cluster as clusters
from ilab.doctor import devices, models, programs, project, room, servers, store
from ilab.doctor.finding import Finding

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.errors import InputError

__all__ = ["Finding", "examine"]


def examine(loaded: Loaded, wrong: InputError | None = None, *, cluster: bool = False) -> Iterator[Finding]:
    """All findings, in the order in which a person would look. Slow ones (servers, cluster, torch) come last.

    ``wrong`` is a mistake in the configuration; ``loaded`` are the defaults then. ``cluster`` looks at one even where
    nothing is configured to run there.
    """
    from ilab.hardware import detect

    hardware = detect()
    yield project.configuration(loaded, wrong)
    yield programs.python()
    yield programs.git()
    yield project.taxonomy(loaded)
    yield from programs.packages()
    yield from programs.optional()
    yield from room.memory(loaded, hardware)
    yield from room.disks(loaded)
    yield from models.roles(loaded)
    yield from project.unfinished(loaded)
    yield servers.port(loaded)
    yield from servers.endpoints(loaded)
    yield from store.bucket(loaded)
    yield from store.registry(loaded)
    if cluster or loaded.config.where.train.launcher != "here":
        yield from clusters.look(loaded)
    yield devices.torch(hardware, loaded.config.where.device)
