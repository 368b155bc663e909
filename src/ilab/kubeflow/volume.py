"""Where the tasks of a run keep files, and how many machines may therefore train.

    --claim NAME                a volume that is there, which runs share
    a store in a bucket         nothing is shared: each task has a volume of its own, which goes with its pod
    otherwise                   a workspace, made with the run and shared by its tasks

A volume is ``ReadWriteOnce`` (block storage, as of the default class: one machine at a time) unless
``where.kubeflow.access_mode`` says that several see it. Machines that train together must all see one, so with
``ReadWriteOnce`` one trains. A number of workers that nobody asked for, a default of the table, then means one, with
the same samples in an update; any other is an error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from ilab.errors import InputError
from ilab.parameters import BY_NAME
from ilab.parameters.infrastructure import Cluster
from ilab.parameters.parameter import Environment

WORKERS = "train_num_workers"
USUAL = {BY_NAME[WORKERS].default_in(environment) for environment in get_args(Environment)}
SEVERAL = "ReadWriteMany"
HOW = f"ilab pipeline submit -p k8s_storage_class_name=CLASS --access-mode {SEVERAL}, with a class of file storage"


def machines(asked: Cluster, several: bool) -> tuple[Cluster, str]:
    """What is ``asked`` of the cluster, with one trainer where the volume is not for ``several`` machines.

    Also a note for people, maybe empty. Raises InputError for more, where that is no default of the table.
    """
    if several or asked.trainers == 1:
        return asked, ""
    if asked.trainers not in USUAL:
        raise InputError(
            f"{asked.trainers} workers train on as many machines, and the run's volume is for one at a time",
            where=WORKERS,
            hint=f"-p {WORKERS}=1, which trains with train_gpu_per_worker GPUs; or {HOW}",
        )
    note = f"one machine trains, not {asked.trainers}: the run's volume is for one at a time"
    return replace(asked, trainers=1), note
