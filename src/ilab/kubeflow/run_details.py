"""A run as the pipeline server tells it: which of a workflow's nodes are tasks, and where the log of each is.

The server's ``task_details`` are the nodes of an Argo workflow. For every task there are several:

    package-driver ─▶ package ─▶ executor ─┬▶ executor(0)     a try that failed
                                           └▶ executor(1)     the last one: its pod has the log

``child_tasks`` names the nodes that come next, also those of later tasks, so children are taken by their names. The
log of a pod that still lives is asked for by the pod's name, which has the template in it
(``…-system-container-impl-HASH``; of a task that may be tried again ``…-retry-system-container-impl-HASH``), an
archived one by the node's id (``…-HASH``).

Source: github.com/kubeflow/pipelines: toModelTask and readRunLogFromPod of backend/src/apiserver, argocompiler of v2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED", "ERROR")
TRY = re.compile(r"executor(?:\((\d+)\))?")
TEMPLATES = ("retry-system-container-impl", "system-container-impl")
DRIVER, ROOT = "-driver", "root"


@dataclass(frozen=True)
class Task:
    """A task of a run. ``pods``: under which names its log may be; ``seconds``: None while it is not over."""

    name: str
    state: str
    seconds: float | None
    pods: tuple[str, ...]

    @property
    def step(self) -> str:
        """The step's name, without the stage that a title begins with."""
        return self.name.rpartition(": ")[2]


@dataclass(frozen=True)
class Run:
    """A run as the server tells it; ``tasks`` in the order in which they began."""

    id: str
    name: str
    state: str
    experiment: str
    tasks: tuple[Task, ...] = ()
    error: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def tasks_of(details: Sequence[Any]) -> list[Task]:
    """The tasks among a run's ``task_details``, in the order in which they began."""
    nodes = {_id(one): one for one in details}
    workflow = min(nodes, key=len, default="")  # its own node is called as it is, all others begin with that
    found = []
    for node, told in nodes.items():
        name = str(told.display_name or told.task_id)
        if name.endswith(DRIVER) or TRY.fullmatch(name) or name == ROOT or (node == workflow and len(nodes) > 1):
            continue
        began, ended = told.start_time or told.create_time, told.end_time
        seconds = (ended - began).total_seconds() if began and ended and ended.year > 1970 else None
        pods = _pods(_last_try(node, nodes), workflow)
        found.append((began, Task(name, str(told.state or "PENDING"), seconds, pods)))
    found.sort(key=lambda one: (one[0] is None, str(one[0])))
    return [task for _, task in found]


def _id(told: Any) -> str:
    return str(told.pod_name or told.task_id)


def _last_try(node: str, nodes: Mapping[str, Any]) -> str:
    """The node of the executor that was started last for the task ``node``; empty where none was."""
    last, left = "", set(nodes)
    while True:
        left.discard(node)  # a server may say anything, also that one is its own grandchild
        children = [child.pod_name for child in nodes[node].child_tasks or [] if child.pod_name in left]
        tries = [(int(found[1] or -1), child) for child in children
                 if (found := TRY.fullmatch(str(nodes[child].display_name)))]  # fmt: skip
        if not tries:
            return last
        node = last = max(tries)[1]


def _pods(node: str, workflow: str) -> tuple[str, ...]:
    prefix, _, number = node.rpartition("-")
    if not node:
        return ()
    live = tuple(f"{workflow}-{template}-{number}" for template in TEMPLATES) if prefix == workflow else ()
    return (*live, node)
