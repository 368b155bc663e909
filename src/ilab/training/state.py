"""What a training run needs to go on exactly where it was: weights, optimizer moments, and a cursor.

A state is a directory ``state-<step>`` of safetensors and JSON (no pickle), written beside, flushed, then renamed; the
newest whole one counts and older ones go. Data order, dropout and augmentation derive from (seed, step), so the cursor
is all the randomness there is to save, and a resumed run ends in the same bytes as an unbroken one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ilab.core.files import fsync_tree, read_json, write_json
from ilab.models.weights import saving

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_state(work: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write ``state-<step>`` and remove older states once it is whole."""
    temporary, final = work / f".state-{step}", work / f"state-{step:08d}"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    names: dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
    weights = {name: p.detach().cpu().contiguous() for p, name in names.items()}
    moments = {
        f"{names[parameter]}/{key}": value.detach().cpu().contiguous()
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if key in MOMENTS
    }
    with saving(temporary):
        save_file(weights, temporary / "weights.safetensors")
        save_file(moments, temporary / "optimizer.safetensors")
    write_json(temporary / "cursor.json", {"step": step})
    fsync_tree(temporary)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    for older in sorted(work.glob("state-*"))[:-1]:
        shutil.rmtree(older)


def load_state(work: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore the newest whole state. Returns the number of steps already done, 0 where there is none."""
    states = sorted(work.glob("state-*"))
    if not states:
        return 0
    weights = load_file(states[-1] / "weights.safetensors")
    moments = load_file(states[-1] / "optimizer.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
            state: dict[str, Any] = {}
            for key in MOMENTS:
                value = moments[f"{name}/{key}"]
                state[key] = value.clone() if key == "step" else value.to(parameter.device, copy=True)
            optimizer.state[parameter] = state
    step: int = read_json(states[-1] / "cursor.json")["step"]
    return step
