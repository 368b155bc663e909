"""The training jobs of a run: none may stay behind with its GPUs when the run is over.

A job bears its run's id as a label, as the pods of the run do. The task that made it deletes it when it is done; what
is left of a task that was killed, the task `finish` deletes, or `ilab pipeline cancel`; pods that nobody waits for end
by themselves (:mod:`ilab.training.attendance`); and with the run's workflow, its owner, Kubernetes deletes it.
"""

from __future__ import annotations

from typing import Literal

from ilab.core.kubeconfig import find_account
from ilab.core.kubernetes import Api, Refused
from ilab.errors import IlabError
from ilab.kubeflow.configmap import account_beside
from ilab.training.pods import KINDS, RUN, name_of, state_of

Launcher = Literal["TrainJob", "PyTorchJob"]


def end_jobs(api: Api, namespace: str, run: str) -> list[str]:
    """Delete what is not over of the run's jobs; returns their names. A failed one is kept, to look at.

    Raises ``Refused`` where the account may not.
    """
    ended = []
    for launcher, kind in KINDS.items():
        try:
            found = api.items(kind.path(namespace), labelSelector=f"{RUN}={run}")
        except Refused as refused:
            if refused.status == 404:  # a cluster without this kind
                continue
            raise
        for job in found:
            if state_of(job)[0] in ("goes on", "suspended"):
                api.delete(kind.path(namespace, name_of(job)))
                ended.append(f"{launcher} {name_of(job)}")
    return ended


def end_jobs_of(run: str, namespace: str, host: str, context: str) -> tuple[list[str], str]:
    """The same by the user's kubeconfig: names, and a note where it could not be done; ``host`` as in ``configmap``."""
    try:
        with Api(account_beside(host, context)) as api:
            return end_jobs(api, namespace or api.account.namespace, run), ""
    except IlabError as error:
        return [], f"its training jobs could not be looked for; their pods end by themselves: {error.message}"


def known_launcher(api: Api) -> Launcher | None:
    """The kind of training job that the cluster knows, the newer one where it knows both; None: neither."""
    for launcher, kind in KINDS.items():
        listed = (api.find(f"/apis/{kind.group}") or {}).get("resources")
        if isinstance(listed, list) and any(one.get("name") == kind.plural for one in listed if isinstance(one, dict)):
            return "TrainJob" if launcher == "TrainJob" else "PyTorchJob"
    return None


def launcher_of(named: str) -> Launcher:
    """The kind of training jobs: the one that was asked for, else what the cluster knows."""
    if named in ("TrainJob", "PyTorchJob"):
        return "PyTorchJob" if named == "PyTorchJob" else "TrainJob"
    try:
        with Api(find_account()) as api:
            found = known_launcher(api)
    except IlabError as error:
        print(f"training jobs are TrainJobs; what the cluster knows could not be read: {error.message}")  # noqa: T201
        return "TrainJob"
    if found is None:
        print("the cluster knows neither TrainJob nor PyTorchJob: Kubeflow's operator is missing")  # noqa: T201
    elif found == "PyTorchJob":
        print("the cluster knows no TrainJob: training jobs are PyTorchJobs")  # noqa: T201
    return found or "TrainJob"


def end_left(run: str) -> None:
    """Delete what a task that was killed left of training jobs, and tell."""
    try:
        with Api(find_account()) as api:
            ended = end_jobs(api, api.account.namespace, run)
    except IlabError as error:
        print(f"whether training jobs are left could not be seen: {error.message}")  # noqa: T201
        return
    for job in ended:
        print(f"{job} was still there, and is deleted")  # noqa: T201
