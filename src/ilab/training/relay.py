"""The pods of a training job: how they are, and what they print, as events of the step that waits for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ilab.config import TrainWhere
from ilab.core.kubernetes import Api, Refused, plain
from ilab.core.trust import CONFIG_MAP
from ilab.errors import InputError
from ilab.training.elsewhere import pass_on, steps_done
from ilab.training.loop import TrainJob
from ilab.training.pods import RUN, TOKEN_VARIABLES, TOKENS_SECRET, Kind, Object, name_of, running

LOG = "pods.log"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT")  # what a line begins with; a server's own complaint does not
T = TypeVar("T")


def this_pod(api: Api) -> Object | None:
    """The pod in which this runs; None outside of pods, or where the account may not read it."""
    if not api.account.pod:
        return None
    try:
        return api.find(f"/api/v1/namespaces/{api.account.namespace}/pods/{api.account.pod}")
    except Refused:
        return None


def like_this_pod(pod: Object | None, where: TrainWhere) -> TrainWhere:
    """``where``, and what is not said there as ``pod`` has it: image, volumes, pull secrets."""
    place = where.kubernetes
    if pod is None or (place.image and place.volumes):
        return where
    spec, mine = _task_of(pod)
    claims = {
        one.get("name"): one["persistentVolumeClaim"]["claimName"]
        for one in spec.get("volumes") or []
        if "persistentVolumeClaim" in one
    }
    volumes = {
        claims[one.get("name")]: str(one.get("mountPath"))
        for one in mine.get("volumeMounts") or []
        if one.get("name") in claims and not one.get("subPath")
    }
    pulled = tuple(str(one.get("name")) for one in spec.get("imagePullSecrets") or [])
    update = {
        "image": place.image or mine.get("image"),
        "volumes": place.volumes or volumes,
        "image_pull_secrets": place.image_pull_secrets or pulled,
    }
    return where.model_copy(update={"kubernetes": place.model_copy(update=update)})


def must_be_shared(pod: Object | None, folder: Path, volumes: Mapping[str, str]) -> None:
    """Raises InputError where ``folder`` is on a volume of this very ``pod``, which no other can mount.

    ``volumes``: those that the job's pods get, claim to path.
    """
    if pod is None or any(folder.is_relative_to(path) for path in volumes.values()):
        return
    spec, mine = _task_of(pod)
    alone = {one.get("name") for one in spec.get("volumes") or [] if {"ephemeral", "emptyDir"} & set(one)}
    for mount in mine.get("volumeMounts") or []:
        if mount.get("name") in alone and folder.is_relative_to(str(mount.get("mountPath"))):
            raise InputError(
                f"the training's folder is on {mount['name']}, a volume of this pod alone",
                where=str(folder),
                hint="machines that train together share one: ilab pipeline submit -p k8s_storage_class_name=CLASS "
                "--access-mode ReadWriteMany; or train on one: -p train_num_workers=1",
            )


def _task_of(pod: Object) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of a task's pod the spec, and the container that does the work."""
    spec: Mapping[str, Any] = pod.get("spec") or {}
    containers: dict[Any, dict[str, Any]] = {one.get("name"): one for one in spec.get("containers") or []}
    return spec, containers.get("main") or next(iter(containers.values()), {})  # what Argo calls a task's own


def owned_like(pod: Object | None, body: dict[str, Any], namespace: str, pods_namespace: str) -> dict[str, Any]:
    """The job ``body`` with the label of the run that ``pod`` is of, and with the same owner: the run's workflow.

    Kubernetes deletes an object with its owner, where both are in one namespace.
    """
    metadata: Mapping[str, Any] = (pod or {}).get("metadata") or {}
    run = (metadata.get("labels") or {}).get(RUN)
    keys = ("apiVersion", "kind", "name", "uid")
    owners = [{key: one[key] for key in keys} for one in metadata.get("ownerReferences") or [] if one.get("controller")]
    made = dict(body["metadata"])
    if run:
        made["labels"] = {**made.get("labels", {}), RUN: run}
    if owners and namespace == pods_namespace:
        made["ownerReferences"] = owners
    return {**body, "metadata": made}


def equipped_like(pod: Object | None, body: dict[str, Any]) -> dict[str, Any]:
    """The job ``body``, whose pods get the certificates and the tokens as ``pod`` has them: by reference, no values.

    What is reported from a training goes to the same servers as what its task reports.
    """
    spec, mine = _task_of(pod or {})
    volumes = [one for one in spec.get("volumes") or [] if _shared(one)]
    names = {one["name"] for one in volumes}
    mounts = [one for one in mine.get("volumeMounts") or [] if one.get("name") in names]
    keys = {one.get("name"): (one.get("valueFrom") or {}).get("secretKeyRef") for one in mine.get("env") or []}
    variables = [
        {"name": name, "valueFrom": {"secretKeyRef": keys[name]}} for name in TOKEN_VARIABLES if keys.get(name)
    ]
    made: dict[str, Any] = json.loads(json.dumps(body))  # no part of it twice: kinds of pods may share one
    for below, container, environment in _pods_of(made):
        there = {one["name"] for one in environment.get("env") or []}
        _extend(below, "volumes", volumes)
        _extend(container, "volumeMounts", mounts)
        _extend(environment, "env", [one for one in variables if one["name"] not in there])
    return made


def _shared(volume: Mapping[str, Any]) -> bool:
    """Whether a volume of a task's is that of the certificates or the tokens."""
    held = (volume.get("configMap") or {}).get("name"), (volume.get("secret") or {}).get("secretName")
    return held[0] == CONFIG_MAP or held[1] == TOKENS_SECRET


def _pods_of(body: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Of a job's kinds of pods the spec, the container, and what holds its variables."""
    if "trainer" in body["spec"]:  # a TrainJob
        for patch in body["spec"]["runtimePatches"]:
            for job in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
                pod = job["template"]["spec"]["template"]["spec"]
                yield pod, pod["containers"][0], body["spec"]["trainer"]
        return
    for replicas in body["spec"]["pytorchReplicaSpecs"].values():
        pod = replicas["template"]["spec"]
        yield pod, pod["containers"][0], pod["containers"][0]


def _extend(there: dict[str, Any], name: str, more: Sequence[Any]) -> None:
    if more:
        there[name] = [*(there.get(name) or []), *more]


def _belongs(event: Object, name: str, since: str) -> bool:
    about = (event.get("involvedObject") or {}).get("name") or ""
    last = event.get("lastTimestamp") or event.get("eventTime")
    return (about == name or about.startswith(f"{name}-")) and (not last or last >= since)


class PodsOfJob:
    """The pods of one job: their state, their warnings, and the lines of their logs that were not told yet."""

    def __init__(self, api: Api, job: TrainJob, kind: Kind, namespace: str, name: str) -> None:
        self.api, self.job, self.kind, self.name = api, job, kind, name
        self.base = f"/api/v1/namespaces/{namespace}"
        self.complaint = ""  # the last line that looks like an error
        self._heard: dict[str, tuple[str, int]] = {}  # pod -> time stamp of its last line, and how many lines have it
        self._forbidden: set[str] = set()

    def all(self) -> list[dict[str, Any]]:
        return self._allowed("pods", lambda: self.api.items(f"{self.base}/pods", labelSelector=self._selector), [])

    @property
    def seen(self) -> bool:
        """Whether this account may look at pods."""
        return "pods" not in self._forbidden

    def warnings(self, job: Object) -> list[dict[str, Any]]:
        """Events of the namespace that warn of what was made for ``job``, but not for an earlier one of its name."""
        query = {"fieldSelector": "type=Warning"}
        none: list[dict[str, Any]] = []
        found = self._allowed("events", lambda: self.api.items(f"{self.base}/events", **query), none)
        return [one for one in found if _belongs(one, self.name, str(job.get("metadata", {}).get("creationTimestamp")))]

    def relay(self, pods: Sequence[Object], last: bool) -> None:
        """Pass new lines on: the first worker's events as this step's, everything else as remarks, and to a file.

        ``last``: no more will come, so that a line without its end is one too.
        """
        lines = []
        for pod in sorted(pods, key=name_of):
            if not running([pod]):
                continue
            for line in self._lines(name_of(pod), last):
                if not pass_on(line, self.job.emit) and (said := plain(line)):
                    self.complaint = said if "Error" in said else self.complaint
                    lines.append(f"{name_of(pod)}: {said}")
        for remark in lines:
            self.job.emit.metric(note=remark)
        if lines:
            with (self.job.work / LOG).open("a", encoding="utf-8") as log:
                log.writelines(f"{remark}\n" for remark in lines)
        if self._forbidden & {"pods", "pods/log"}:
            self.job.emit.progress(steps_done(self.job.work), None, "steps")

    @property
    def _selector(self) -> str:
        return f"{self.kind.label}={self.name}"

    def _lines(self, pod: str, last: bool) -> list[str]:
        """The lines of ``pod`` that were not given yet."""
        since, count = self._heard.get(pod, ("", 0))
        query = {"container": self.kind.container, "timestamps": "true", **({"sinceTime": since} if since else {})}
        text = self._allowed("pods/log", lambda: self.api.log(f"{self.base}/pods/{pod}/log", **query), "")
        whole = text.split("\n")
        rest = whole.pop()
        if rest and last:
            whole.append(rest)
        fresh, same = [], 0
        for line in whole:
            stamp, _, said = line.partition(" ")
            if not STAMP.match(stamp) or stamp.rstrip("Z") < since.rstrip("Z"):  # zeros at its end may be left out
                continue
            same = same + 1 if stamp == since else 1
            if stamp == since and same <= count:
                continue
            since, count = stamp, same
            fresh.append(said)
        if since:
            self._heard[pod] = since, count
        return fresh

    def _allowed(self, what: str, ask: Callable[[], T], otherwise: T) -> T:
        """What ``ask`` returns, ``otherwise`` where the account may not or there is nothing yet; told once."""
        if what in self._forbidden:
            return otherwise
        try:
            return ask()
        except Refused as refused:
            if refused.status == 403:
                self._forbidden.add(what)
                self.job.emit.metric(note=f"the account may not read {what}, so they are not shown: {refused.message}")
            elif refused.retryable:
                raise
            return otherwise
