"""Orthogonal-subspace fine-tuning: what a matrix knows best stays, the rest learns (OSFT, arXiv 2504.07097).

Each linear layer's matrix is split by its singular values, ``W = U_high S_high V_high + U_low S_low V_low``. The high
part is frozen; the low one, ``share`` of the directions, is trained as its three factors. So that it never reaches into
the high one's space, gradients are projected before the update and the factors after it (AdamW scales each entry on its
own, which turns a projected gradient away again).

The frozen part is kept as one dense matrix: a forward pass costs one dense and one thin product.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilab.training.method import linear_layers, load_for_training, state_of
from ilab.training.world import whole

FACTORS = ("left", "values", "right")


class OsftLinear(nn.Module):
    """A linear layer [out, in] whose ``trained`` least directions are parameters.

    ``left`` [out, trained], ``values`` [trained] and ``right`` [trained, in] are trained; ``high`` [out, in] is the
    frozen rest, ``high_left`` [out, frozen] and ``high_right`` [frozen, in] the directions that it has.
    """

    def __init__(self, layer: nn.Linear, trained: int) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        frozen = len(values) - trained
        self.left = nn.Parameter(left[:, frozen:].contiguous())
        self.values = nn.Parameter(values[frozen:].contiguous())
        self.right = nn.Parameter(right[frozen:].contiguous())
        self.bias = layer.bias
        self.register_buffer("high", (left[:, :frozen] * values[:frozen]) @ right[:frozen])
        self.register_buffer("high_left", left[:, :frozen].contiguous())
        self.register_buffer("high_right", right[:frozen].contiguous())
        self.high: Tensor
        self.high_left: Tensor
        self.high_right: Tensor

    def forward(self, states: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        low = nn.functional.linear(nn.functional.linear(states, self.right) * self.values, self.left)
        return nn.functional.linear(states, self.high, self.bias) + low

    def weight(self) -> Tensor:
        """The matrix [out, in] that the layer stands for, in fp32."""
        left, values, right = (whole(getattr(self, name).detach()) for name in FACTORS)
        return self.high + (left * values) @ right

    @torch.no_grad()
    def project(self, *, gradients: bool) -> None:
        """Take out of ``left`` and ``right``, or of their gradients, what lies in the frozen directions."""
        for parameter, project in ((self.left, self._off_left), (self.right, self._off_right)):
            found = parameter.grad if gradients else parameter
            if found is not None:
                found.copy_(project(found))

    def _off_left(self, found: Tensor) -> Tensor:
        frozen = _like(self.high_left, found)
        return found - _placed(frozen @ (frozen.T @ found), found)

    def _off_right(self, found: Tensor) -> Tensor:
        frozen = _like(self.high_right, found)
        return found - _placed((found @ frozen.T) @ frozen, found)


class Osft:
    """See :class:`ilab.training.method.Method`."""

    def __init__(self, share: float, targets: tuple[str, ...]) -> None:
        self._share = share
        self._targets = targets

    def load(self, base: Path, device: str) -> Any:
        model = load_for_training(base, torch.float32, device)
        names = linear_layers(model, self._targets)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for name in names:
            layer = model.get_submodule(name)
            directions = min(layer.weight.shape)
            model.set_submodule(name, OsftLinear(layer, max(1, round(self._share * directions))))
        return model

    def kept(self, model: nn.Module) -> dict[str, Tensor]:
        """The frozen parts too: another machine's SVD may turn a direction round."""
        found: dict[str, Tensor] = {}
        for name, layer in _layers(model):
            found |= {f"{name}.{part}": tensor for part, tensor in layer.named_parameters() if part in FACTORS}
            found |= {f"{name}.{part}": tensor for part, tensor in layer.named_buffers()}
        return found

    def before_update(self, model: nn.Module) -> None:
        for _, layer in _layers(model):
            layer.project(gradients=True)

    def after_update(self, model: nn.Module) -> None:
        for _, layer in _layers(model):
            layer.project(gradients=False)

    def has(self, model: nn.Module, name: str) -> bool:
        return name in state_of(model) or name.removesuffix(".weight") in dict(_layers(model))

    def tensor(self, model: nn.Module, name: str, base: Tensor) -> Tensor:
        layer = dict(_layers(model)).get(name.removesuffix(".weight"))
        return layer.weight() if layer is not None else whole(state_of(model)[name])

    def write_beside(self, model: nn.Module, base: Path, folder: Path, leads: bool) -> None:
        """Nothing: the factors are of no use without the run."""


def _layers(model: nn.Module) -> list[tuple[str, OsftLinear]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, OsftLinear)]


def _like(frozen: Tensor, found: Tensor) -> Tensor:
    """``frozen`` as a tensor that can be multiplied with ``found``, which may be sharded."""
    mesh = getattr(found, "device_mesh", None)
    if mesh is None:
        return frozen
    from torch.distributed.tensor import DTensor, Replicate

    made: Tensor = DTensor.from_local(frozen, mesh, [Replicate()], run_check=False)
    return made


def _placed(made: Tensor, found: Tensor) -> Tensor:
    placements = getattr(found, "placements", None)
    return made if placements is None else made.redistribute(placements=placements)  # type: ignore[attr-defined]
