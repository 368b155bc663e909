"""A Kubernetes cluster, as far as kubectl (or oc) knows it: the context, the way there, what may be made there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ilab.doctor.finding import Finding

if TYPE_CHECKING:
    from ilab.config import Loaded

PATIENCE = 20  # seconds that a tool may take
MADE = {  # launcher: what it makes there
    "TrainJob": "trainjobs.trainer.kubeflow.org",
    "PyTorchJob": "pytorchjobs.kubeflow.org",
    "here": "jobs.batch",
}
NEEDED = "model train on a cluster"


def look(loaded: Loaded) -> Iterator[Finding]:
    """The tool, its context, and whether what training makes may be made in the namespace. Nothing is made."""
    where = loaded.config.where.train
    tool = shutil.which("kubectl") or shutil.which("oc")
    if tool is None:
        fix = "install kubectl or oc" + (
            "" if where.launcher == "here" else "; or ilab config set where.train.launcher here"
        )
        yield Finding("cluster", "bad", "neither kubectl nor oc is installed", NEEDED, fix)
        return
    name = "oc" if tool.endswith("oc") else "kubectl"
    yield Finding("cluster", "ok", tool)
    code, context, _ = _run(tool, "config", "current-context")
    if code or not context:
        fix = "oc login URL" if name == "oc" else f"{name} config get-contexts   then: {name} config use-context NAME"
        yield Finding("cluster context", "bad", "none is chosen", NEEDED, fix)
        return
    yield Finding("cluster context", "ok", context)
    namespace = where.kubernetes.namespace
    yield _rights(tool, name, MADE[where.launcher], namespace)


def _rights(tool: str, name: str, resource: str, namespace: str | None) -> Finding:
    """Whether the server answers, knows who asks, and lets them make ``resource``."""
    place = ("--namespace", namespace) if namespace else ()
    asked = ("auth", "can-i", "create", resource, *place)
    code, said, complained = _run(tool, *asked, "--request-timeout=10s")
    if said.splitlines()[-1:] == ["yes"]:
        return Finding("cluster rights", "ok", f"{resource} may be made{f' in {namespace}' if namespace else ''}")
    typed = " ".join((name, *asked))
    if said.splitlines()[-1:] == ["no"]:
        found = f"you may not make {resource}{f' in {namespace}' if namespace else ''}"
        return Finding("cluster rights", "bad", found, NEEDED, f"ask whoever runs the cluster; to look again: {typed}")
    reason = (complained.splitlines() or [f"exit code {code}"])[-1]
    lower = complained.lower()
    if "unauthorized" in lower or "logged in" in lower or "expired" in lower:
        return Finding(
            "cluster rights",
            "bad",
            f"the token counts no more: {reason}",
            NEEDED,
            "oc login URL   or renew the kubeconfig",
        )
    return Finding("cluster rights", "bad", f"the cluster does not answer: {reason}", NEEDED, f"{name} cluster-info")


def _run(tool: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of ``tool``; 124 where it took too long."""
    try:
        done = subprocess.run(
            [tool, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {PATIENCE} seconds"
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout.strip(), done.stderr.strip()
