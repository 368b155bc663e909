"""How the weights change: one class per method, all behind the same small interface.

    full    every weight, in fp32
    lora    a low-rank adapter beside frozen weights          (lora.py)
    qlora   the same beside weights in four bits              (lora.py)
    osft    the directions of each matrix that matter least   (osft.py)

The loop knows nothing but this: which module to train, which tensors a state keeps, what to do around an update, and
what each tensor of the base has become.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ilab.models.weights import load_weights
from ilab.training.attention import attention_for
from ilab.training.settings import TrainSettings
from ilab.training.world import whole


class Method(Protocol):
    """A way to train. Made for one run, and used with the model that ``load`` gave."""

    def load(self, base: Path, device: str) -> Any:
        """The base on ``device``, ready for training: what is not trained requires no gradient."""

    def kept(self, model: nn.Module) -> dict[str, Tensor]:
        """By name: all tensors without which the run could not go on, whatever the base gives."""

    def before_update(self, model: nn.Module) -> None:
        """Between the backward pass and the optimizer."""

    def after_update(self, model: nn.Module) -> None:
        """After the optimizer."""

    def has(self, model: nn.Module, name: str) -> bool:
        """Whether the model has what the base's files call by this name."""

    def tensor(self, model: nn.Module, name: str, base: Tensor) -> Tensor:
        """What ``base``, the base's tensor of this name, has become.

        Called by all processes alike, as parts of the tensor may lie in any of them.
        """

    def write_beside(self, model: nn.Module, base: Path, folder: Path, leads: bool) -> None:
        """What is kept beside the model itself, as an adapter."""


class Full:
    """Every weight is trained, in fp32."""

    def load(self, base: Path, device: str) -> Any:
        return load_for_training(base, torch.float32, device)

    def kept(self, model: nn.Module) -> dict[str, Tensor]:
        return dict(model.named_parameters())

    def before_update(self, model: nn.Module) -> None:
        """Nothing: the gradients are used as they are."""

    def after_update(self, model: nn.Module) -> None:
        """Nothing: the weights are what the optimizer made of them."""

    def has(self, model: nn.Module, name: str) -> bool:
        return name in state_of(model)

    def tensor(self, model: nn.Module, name: str, base: Tensor) -> Tensor:
        return whole(state_of(model)[name])

    def write_beside(self, model: nn.Module, base: Path, folder: Path, leads: bool) -> None:
        """Nothing."""


def load_for_training(base: Path, dtype: Any, device: str, quantization: Any = None) -> Any:
    """The base with the attention that it is trained with. Raises ``InputError`` as ``load_weights`` does."""
    model = load_weights(base, dtype, device, quantization=quantization)
    model.set_attn_implementation(attention_for(model.config))
    return model


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the optimizer changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def state_of(model: nn.Module) -> Mapping[str, Tensor]:
    """Parameters and buffers by every name they have, tied ones under each."""
    found = dict(model.named_buffers(remove_duplicate=False))
    found.update(model.named_parameters(remove_duplicate=False))
    return found


def linear_layers(model: Any, targets: tuple[str, ...]) -> list[str]:
    """Names of the linear layers that an adapter changes: those whose last part is in ``targets``.

    Without targets all of them but the output head. Raises ``InputError`` for a target that is nowhere.
    """
    from ilab.errors import InputError

    head = model.get_output_embeddings()
    found = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    ends = {name.rpartition(".")[2] for name in found}
    if unknown := sorted(set(targets) - ends):
        raise InputError(
            f"this model has no linear layer named {unknown[0]}",
            where="train_lora_targets",
            hint=f"it has {', '.join(sorted(ends))}",
        )
    return [name for name in found if not targets or name.rpartition(".")[2] in targets]


def method_of(settings: TrainSettings) -> Method:
    """The method that the settings name. Raises ``SetupError`` where a package that it needs is missing."""
    if settings.method == "full":
        return Full()
    if settings.method == "osft":
        from ilab.training.osft import Osft

        return Osft(settings.osft_share, settings.lora_targets)
    from ilab.training.lora import Lora

    return Lora(settings)
