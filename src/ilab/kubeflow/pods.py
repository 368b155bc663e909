"""What later tasks take from ``resolve`` about their pods, beside what the pipeline was compiled for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ilab.parameters.infrastructure import Cluster


def outputs(asked: Cluster, then: Cluster) -> dict[str, Any]:
    """What later tasks take from ``resolve``: for each kind of pod its resources, selector and tolerations.

    ``then`` is what the pipeline was compiled for: a kind of pod that had GPUs asks for 0 of the same, where it now has
    none.
    """
    found: dict[str, Any] = {}
    for kind in ("task", "evaluation", "training"):
        pod = asdict(getattr(asked, kind))
        pod["gpu"] = pod["gpu"] or getattr(then, kind).gpu
        found |= {f"{kind}_{name}": pod[name] for name in ("cpu", "memory", "gpu")}
        found[f"{kind}_gpus"] = str(pod["gpus"])
        found[f"{kind}_node_selector"] = dict(pod["node_selector"])
        found[f"{kind}_tolerations"] = list(pod["tolerations"])
    return found


def shaped(now: Cluster, then: Cluster) -> list[str]:
    """What the tasks cannot be made into since the pipeline was compiled."""
    lines = []
    again = "compile it again for the other: ilab pipeline submit, or upload"
    if now.trainers > 1 and then.trainers == 1:
        lines.append(
            f"train_num_workers is {now.trainers} now, but the pipeline was compiled for 1: the task that starts their "
            f"job holds a trainer's processors, memory and GPUs as well; {again}"
        )
    if then.trainers == 1 and now.training.gpus and not then.training.gpus:
        lines.append(f"the pipeline was compiled for training without GPUs, and none are asked for; {again}")
    if now.evaluation.gpus and not then.evaluation.gpus:
        lines.append(f"the pipeline was compiled for evaluation without a GPU, and none is asked for; {again}")
    return lines
