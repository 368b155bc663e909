"""The devices that train together: one process each, sharded by FSDP2 (``fully_shard``), gloo or NCCL between them.

``torchrun`` starts the processes and tells each its rank; alone, nothing is initialised and every method is the plain
thing. The loss is summed and divided by a count that the plan knows, so ranks agree on nothing but sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ilab.config import TrainWhere
from ilab.errors import SetupError

PATIENCE = timedelta(minutes=30)  # for a rank that loads, saves or exports while the others wait


@dataclass(frozen=True)
class World:
    """This process among ``size`` of them. ``device`` is a torch device."""

    rank: int
    size: int
    device: str

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def shard(self, model: nn.Module, layers: Sequence[nn.Module], low: bool) -> None:
        """Share the parameters out, layer by layer; the rest as one group. ``low``: compute in bf16, reduce in fp32."""
        if self.size == 1:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(self.device.partition(":")[0], (self.size,))
        precision = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if low else None, reduce_dtype=torch.float32 if low else None
        )
        for part in (*layers, model):
            fully_shard(part, mesh=mesh, mp_policy=precision)

    def reshard(self, model: nn.Module) -> None:
        """Give the gathered parameters back, after a forward pass that no backward pass follows."""
        if self.size == 1:
            return
        from torch.distributed.fsdp import FSDPModule

        for part in model.modules():
            if isinstance(part, FSDPModule):
                part.reshard()

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of ``values`` over all processes, in float64."""
        if self.size == 1:
            return list(values)
        device = self.device if self.device.startswith("cuda") else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def check_together(where: TrainWhere, optimizer: str, device: str) -> None:
    """Raises ``SetupError`` where several processes could not train together on ``device``, with this optimizer."""
    if where.world > 1 and optimizer == "adamw_8bit":
        raise SetupError(
            f"moments in eight bits are not shared out over {where.world} processes",
            where="train_optimizer",
            hint="-p train_optimizer=adamw, whose moments are shared out; or --set where.train.processes=1",
        )
    if where.world > 1 and not device.startswith(("cpu", "cuda")):
        raise SetupError(
            f"several processes train together on CPUs or CUDA devices, not on {device}",
            where="where.train.processes",
            hint="--set where.train.processes=1, or --set where.device=cpu",
        )


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one, on every process that calls this; the tensor itself where it is whole."""
    full: Any = getattr(tensor, "full_tensor", None)
    made: Tensor = full() if full is not None else tensor
    return made


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The world that torchrun made, left again at the end; this process alone where none did."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield World(0, 1, device)
        return
    local = int(os.environ["LOCAL_RANK"])
    if device.startswith("cuda"):
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
