"""The pods of a training job: how they are, and what they print, as events of the step that waits for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ilab.config import TrainWhere
from ilab.core.kubernetes import Api, Refused, plain
from ilab.errors import InputError
from ilab.training.elsewhere import pass_on, steps_done
from ilab.training.loop import TrainJob
from ilab.training.pods import Kind, Object, name_of, running

LOG = "pods.log"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT")  # what a line begins with; a server's own complaint does not
T = TypeVar("T")


def like_this_pod(api: Api, where: TrainWhere) -> TrainWhere:
    """``where``, and what is not said there as the pod has it in which this runs: image, volumes, pull secrets.

    Unchanged outside of pods, or where the account may not read its pod.
    """
    place = where.kubernetes
    if not api.account.pod or (place.image and place.volumes):
        return where
    spec, mine = _own(api)
    if not spec:
        return where
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


def must_be_shared(api: Api, folder: Path, volumes: Mapping[str, str]) -> None:
    """Raises InputError where ``folder`` lies on a volume of this very pod, which goes with it and no other can mount.

    ``volumes``: those that the job's pods get, claim to path.
    """
    if not api.account.pod or any(folder.is_relative_to(path) for path in volumes.values()):
        return
    spec, mine = _own(api)
    alone = {one.get("name") for one in spec.get("volumes") or [] if {"ephemeral", "emptyDir"} & set(one)}
    for mount in mine.get("volumeMounts") or []:
        if mount.get("name") in alone and folder.is_relative_to(str(mount.get("mountPath"))):
            raise InputError(
                f"the training's folder is on {mount['name']}, a volume of this pod alone",
                where=str(folder),
                hint="machines that train together share one: ilab pipeline submit -p k8s_storage_class_name=CLASS "
                "--access-mode ReadWriteMany; or train on one: -p train_num_workers=1",
            )


def _own(api: Api) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of the pod in which this runs its spec, and the container; both empty where the account may not read them."""
    try:
        pod = api.find(f"/api/v1/namespaces/{api.account.namespace}/pods/{api.account.pod}")
    except Refused:
        return {}, {}
    spec: Mapping[str, Any] = (pod or {}).get("spec") or {}
    containers: dict[Any, dict[str, Any]] = {one.get("name"): one for one in spec.get("containers") or []}
    return spec, containers.get("main") or next(iter(containers.values()), {})  # what Argo calls a task's own


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
