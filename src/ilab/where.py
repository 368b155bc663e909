"""The settings about *where* as steps get them: paths made absolute, parameters of that kind filled in.

What a person wrote under ``where`` goes before a parameter, which is the more general word: ``sdg_batch_size`` times
``sdg_num_workers`` requests are under way unless ``where.teacher.in_flight`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ilab.parameters import Given
from ilab.parameters.infrastructure import Cluster, cluster
from ilab.resolvers import registry_address, where_packages_go

if TYPE_CHECKING:
    from ilab.config import Endpoint, Loaded, TrainWhere, Where

# Parameters of the pods that train: which setting of where.train each is.
TRAINING_PODS = {
    "train_num_workers": "nodes",
    "train_gpu_per_worker": "kubernetes.gpus",
    "train_gpu_identifier": "kubernetes.gpu_identifier",
    "train_cpu_limit": "kubernetes.cpus",
    "train_memory_per_worker": "kubernetes.memory",
    "train_node_selectors": "kubernetes.node_selector",
    "train_tolerations": "kubernetes.tolerations",
    "k8s_node_selector": "kubernetes.node_selector",
    "k8s_tolerations": "kubernetes.tolerations",
}


def where_for(loaded: Loaded, values: Mapping[str, Any], train: TrainWhere | None = None) -> Where:
    """``loaded``'s settings about where, under the parameters' ``values``; ``train`` in place of where.train."""
    where = loaded.config.where
    update: dict[str, Any] = {"store": str(loaded.store), "registry": registry_address(loaded)}
    update["package"] = where_packages_go(loaded, values)
    if train is not None:
        update["train"] = train
    if where.cache:
        update["cache"] = str(loaded.path(where.cache))
    if where.web.ca_file:
        update["web"] = where.web.model_copy(update={"ca_file": str(loaded.path(where.web.ca_file))})
    update["evaluate"] = where.evaluate.model_copy(update=_evaluation(where, values))
    for name, endpoint in (("teacher", where.teacher), ("verifier", where.verifier), ("judge", where.judge)):
        if endpoint is not None:
            update[name] = endpoint.model_copy(update=_endpoint(name, endpoint, loaded, values))
    return where.model_copy(update=update)


def in_cluster(
    asked: Cluster, launcher: Literal["TrainJob", "PyTorchJob"] = "TrainJob", *, as_job: bool = False
) -> dict[str, Any]:
    """``where.train`` of a pipeline that runs in a cluster: one trainer is the task's own pod, more are a job's.

    ``as_job``: also one is, since the task's own pod was not made to train. Image and volumes are not said: they are
    those of the pod that makes the job.
    """
    pod = asked.training
    processes = max(1, pod.gpus)
    if asked.trainers == 1 and not as_job:
        return {"processes": processes}
    found: dict[str, Any] = {
        "gpus": pod.gpus,
        "gpu_identifier": pod.gpu or "nvidia.com/gpu",
        "cpus": pod.cpu,
        "memory": pod.memory,
        "node_selector": dict(pod.node_selector),
        "tolerations": [dict(one) for one in pod.tolerations],
    }
    return {
        "launcher": launcher,
        "submit": True,
        "nodes": asked.trainers,
        "processes": processes,
        "kubernetes": found,
    }


def _evaluation(where: Where, values: Mapping[str, Any]) -> dict[str, Any]:
    given = where.evaluate
    batch = values["eval_batch_size"] if given.batch is None else given.batch
    final = values["final_eval_batch_size"]
    return {
        "batch": batch,
        "final_batch": given.final_batch or (batch if not final else final if final == "auto" else int(final)),
        "final_workers": given.final_workers or _number(values["final_eval_max_workers"]),
        "mt_bench_workers": given.mt_bench_workers or _number(values["mt_bench_max_workers"]),
    }


def _number(text: str) -> int | None:
    return None if text == "auto" else int(text)


def _endpoint(name: str, endpoint: Endpoint, loaded: Loaded, values: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if endpoint.in_flight is None:
        given["in_flight"] = values["sdg_batch_size"] * values["sdg_num_workers"]
    if endpoint.context is None and name == "teacher":
        given["context"] = values["server_ctx_size"]
    if endpoint.tokenizer:
        given["tokenizer"] = str(loaded.path(endpoint.tokenizer))
    return given


def training_pods(values: Mapping[str, Any], given: Mapping[str, Given], loaded: Loaded) -> TrainWhere | None:
    """``where.train`` of a training that is handed to pods, with the parameters that somebody gave; None for one here.

    A default is a guess about somebody's cluster; the compiled pipeline makes it, a manifest written by hand does not.
    """
    train = loaded.config.where.train
    if train.launcher == "here":
        return None
    worker = cluster(values).training
    known = {
        "nodes": values["train_num_workers"],
        "kubernetes.gpus": worker.gpus,
        "kubernetes.gpu_identifier": values["train_gpu_identifier"],
        "kubernetes.cpus": worker.cpu,
        "kubernetes.memory": worker.memory,
        "kubernetes.node_selector": dict(worker.node_selector),
        "kubernetes.tolerations": worker.tolerations,
    }
    update: dict[str, Any] = {}
    for name, path in TRAINING_PODS.items():
        if given[name].origin in ("default", "environment prod") or f"where.train.{path}" in loaded.origins:
            continue
        update[path] = known[path]
    if "kubernetes.gpus" in update and "where.train.processes" not in loaded.origins:
        update["processes"] = max(1, known["kubernetes.gpus"])
    pods = {path.removeprefix("kubernetes."): value for path, value in update.items() if path.startswith("kubernetes.")}
    own = {path: value for path, value in update.items() if not path.startswith("kubernetes.")}
    return train.model_copy(update={**own, "kubernetes": train.kubernetes.model_copy(update=pods)})
