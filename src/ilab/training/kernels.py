"""What computes the layers: PyTorch operation by operation, PyTorch's compiler, or Liger's fused kernels.

Liger (arXiv 2410.10989) has norms and gates in one kernel each, for CUDA. They are put into the one model that is
trained. Its package also changes names of transformers for every model of the process; that is taken back, so that an
evaluation behind the training computes as it always does. Hence rotations stay PyTorch's. So does the loss, which is
never held whole anyway (:mod:`ilab.training.loss`). Before the first step the changed model must give the logits of the
unchanged one. None of this has been tried on a GPU.
"""

from __future__ import annotations

import inspect
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ilab.config import TrainWhere
from ilab.errors import SetupError

PACKAGE = "liger_kernel"
OFF = ("rope", "cross_entropy", "fused_linear_cross_entropy")
TOKENS = 16  # of the text on which both models must agree
CLOSE = {False: 1e-3, True: 5e-2}  # relative difference of logits that rounding explains, in fp32 and (True) in bf16


def check_kernels(where: TrainWhere, device: str) -> None:
    """Raises ``SetupError`` where what is asked for cannot be had on ``device``."""
    if where.compile and device == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise SetupError(
            "PyTorch compiles for the CPU with a C++ compiler, and this machine has none",
            where="where.train.compile",
            hint="install g++, or leave it out: --set where.train.compile=false",
        )
    if where.compile and device.startswith("cuda") and find_spec("triton") is None:
        raise SetupError(
            "PyTorch compiles for GPUs with triton, which is not installed",
            where="where.train.compile",
            hint="pip install triton, or leave it out: --set where.train.compile=false",
        )
    if where.kernels != "liger":
        return
    if not device.startswith("cuda"):
        raise SetupError(
            f"Liger's kernels are for CUDA, and this training runs on {device}",
            where="where.train.kernels",
            hint="leave it out: --set where.train.kernels=auto",
        )
    if find_spec(PACKAGE) is None:
        raise SetupError(
            "Liger's kernels are not installed",
            where="where.train.kernels",
            hint="pip install 'ilab[liger]', or --set where.train.kernels=auto",
        )


def use_kernels(model: Any, where: TrainWhere, device: str) -> bool:
    """Put Liger's kernels into ``model`` where they are wanted. Returns whether it was done.

    ``auto`` wants them on CUDA where the package is installed and knows the model's family. Raises ``SetupError`` where
    they are asked for and cannot be had, or where the model computes something else with them.
    """
    check_kernels(where, device)
    if where.kernels == "torch" or not device.startswith("cuda") or find_spec(PACKAGE) is None:
        return False
    family = model.config.model_type
    fuse = import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN.get(family)
    if fuse is None and where.kernels == "auto":
        return False
    if fuse is None:
        raise SetupError(
            f"Liger has no kernels for models of the family {family}",
            where="where.train.kernels",
            hint="--set where.train.kernels=auto",
        )
    fuse_model(model, fuse)
    return True


def fuse_model(model: Any, fuse: Callable[..., None]) -> None:
    """Let ``fuse``, Liger's function for the family of ``model``, change this model and no other.

    Raises ``SetupError`` where the logits are not what they were.
    """
    before = _logits(model)
    switches = {name: False for name in OFF if name in inspect.signature(fuse).parameters}
    with _taken_back(type(model).__module__):
        fuse(model=model, **switches)
    after = _logits(model)
    apart = float((after - before).abs().max() / before.abs().max())
    if not apart <= CLOSE[next(model.parameters()).dtype != torch.float32]:  # a NaN is not close either
        raise SetupError(
            f"this model computes something else with Liger's kernels: its logits differ by {apart:.1%}",
            where="where.train.kernels",
            hint="--set where.train.kernels=torch",
        )


@contextmanager
def _taken_back(module: str) -> Iterator[None]:
    """Give the names of a module what they stood for, at the end."""
    names = vars(sys.modules[module])
    before = dict(names)
    try:
        yield
    finally:
        names.update(before)


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    """Of a short text, in float32."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    ids = torch.arange(TOKENS, device=device).unsqueeze(0) % model.config.get_text_config().vocab_size
    logits: Tensor = model(input_ids=ids, use_cache=False).logits.float()
    model.train(was_training)
    return logits
