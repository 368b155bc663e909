"""A training that pods do, made in the cluster by this process and watched until it is over.

    job/ and job.yaml (ilab.training.elsewhere) ─▶ POST ─▶ every LOOK seconds: the job, its pods, their logs
      complete ─▶ finished.json ─▶ the job is deleted, the candidates are taken over
      failed   ─▶ the workers' own error, or what the pods died of; the job is kept, for whoever wants to look
      stopped  ─▶ the job is deleted; its pods are told by SIGTERM and save their state
      killed   ─▶ the pods train on, in a pipeline not for long (ilab.training.attendance)

Looking again and again needs no state and no thread: a lost connection costs one look, and a process that was killed is
followed by one that finds the same job, because its name comes from the work folder, which is that of the step's key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

import yaml

from ilab.core.kubeconfig import find_account
from ilab.core.kubernetes import Api, Refused
from ilab.core.step import fingerprint
from ilab.errors import IlabError, InputError, ServiceError, SetupError, Stopped
from ilab.training.attendance import UNATTENDED, Waiting, was_left
from ilab.training.elsewhere import ERROR, is_finished, job_name, noted_error, prepare, steps_done
from ilab.training.handover import told
from ilab.training.loop import TrainJob
from ilab.training.manifests import MARK
from ilab.training.pods import KINDS, Kind, Object, Trouble, running, state_of, troubles
from ilab.training.relay import PodsOfJob, equipped_like, like_this_pod, must_be_shared, owned_like, this_pod

LOOK = 2.0  # seconds between two looks
GLANCE = 0.2  # seconds between two looks at whether to stop
LOST = 900.0  # seconds that the API server may be away
LATE = 60.0  # seconds until another machine's file is seen here, and until deleted pods are gone beyond their grace


def train_in_cluster(job: TrainJob, device: str) -> None:
    """Have pods with ``device`` train ``job``; returns when they are done.

    Raises what the workers ended with; ``SetupError`` or ``InputError`` where the cluster does not take the job or its
    pods do not start, ``ServiceError`` where it is not reached, ``Stopped`` after ``job.stopping`` turned true.
    """
    place = job.where.kubernetes
    try:
        with Api(find_account(place.kubeconfig, place.context)) as api:
            pod = this_pod(api)
            job = replace(job, where=like_this_pod(pod, job.where))
            must_be_shared(pod, job.work, job.where.kubernetes.volumes)
            _Submission(api, job, device, pod).run()
    except IlabError as error:
        if not is_finished(job.work):
            raise
        job.emit.metric(note=f"the training is done; its job may still be in the cluster: {error.message}")


class _Submission:
    """One job of a cluster, from this process's point of view."""

    def __init__(self, api: Api, job: TrainJob, device: str, pod: Object | None) -> None:
        self.api, self.job, self.device, self.pod = api, job, device, pod
        self.kind: Kind = KINDS[job.where.launcher]
        self.namespace = job.where.kubernetes.namespace or api.account.namespace
        self.name = job_name(job.work, job.where)
        self.path = self.kind.path(self.namespace, self.name)
        self._pods = PodsOfJob(api, job, self.kind, self.namespace, self.name)
        self._waiting = Waiting(job.work)
        self._told: set[str] = set()
        self._stuck_since: float | None = None
        self._done_since: float | None = None

    def run(self) -> None:
        if is_finished(self.job.work):  # killed before the result was published
            self._clear()
            return
        found = self._standing()
        if found is None:
            self._create()
        else:
            self._tell(f"{self.job.where.launcher} {self.name} is there already; it is followed")
        self._watch()
        self._clear()

    # -- making it ---------------------------------------------------------------------------------------------------

    def _standing(self) -> Object | None:
        """The job if it is there, is this very training, and has not failed; anything else of its name is removed."""
        found = self._try(lambda: self.api.find(self.path))
        if found is None:
            return None
        metadata = found.get("metadata") or {}
        same = (metadata.get("annotations") or {}).get(MARK) == fingerprint(told(self.job, self.device))
        over = state_of(found)[0] == "failed" or was_left(self.job.work)
        if same and not metadata.get("deletionTimestamp") and not over:
            return found
        self._tell(f"{self.job.where.launcher} {self.name} of an earlier run is removed; it goes on from its state")
        self.api.delete(self.path)
        while self.api.find(self.path) is not None:  # two must never train in the same folder
            self._pause()
            if self.job.stopping():
                raise Stopped("stopped while the earlier job was ending", hint="run the same command to go on")
        return None

    def _create(self) -> None:
        manifest = prepare(self.job, self.device)
        for name in (ERROR, UNATTENDED):
            (self.job.work / name).unlink(missing_ok=True)
        body = yaml.safe_load(manifest.read_text(encoding="utf-8"))
        body = owned_like(self.pod, body, self.namespace, self.api.account.namespace)
        if self.namespace == self.api.account.namespace:  # where the Secrets are that this pod has
            body = equipped_like(self.pod, body)
        self._try(lambda: self.api.create(self.kind.path(self.namespace), body))
        self._tell(f"{self.job.where.launcher} {self.name} is made in {self.namespace}")

    def _try(self, ask: Callable[[], Object | None]) -> Object | None:
        """What ``ask`` returns; a refusal of the API server as what there is to do about it."""
        try:
            return ask()
        except Refused as refused:
            if refused.status == 409:  # made by a process that was killed before it was told
                return None
            raise self._explained(refused) from refused

    def _explained(self, refused: Refused) -> IlabError:
        message, launcher, resource = refused.message, self.job.where.launcher, self.kind.resource
        if refused.status == 403 and "quota" in message:
            return SetupError(message, where=self._at(), hint="ask for less, or for a larger quota: kubectl get quota")
        if refused.status in (401, 403):
            rights = f"kubectl auth can-i create {resource} -n {self.namespace}"
            hint = (
                f"the account needs create, get and delete of {resource} (docs/how-to/train-on-a-cluster.md); {rights}"
            )
            return SetupError(message, where=self._at(), hint=hint)
        if refused.status == 404:
            other = "PyTorchJob" if launcher == "TrainJob" else "TrainJob"
            hint = f"Kubeflow's operator for it must be installed; or --set where.train.launcher={other}"
            return SetupError(f"the cluster knows no {launcher}, or no namespace {self.namespace}", hint=hint)
        if refused.status in (400, 422):
            return InputError(message, where=self._at(), hint="correct the settings where.train.kubernetes")
        return refused

    # -- following it ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        lost: float | None = None
        while True:
            if self.job.stopping():
                self._cancel()
            self._waiting.tell()
            try:
                if self._look():
                    return
                lost = None
            except ServiceError as error:
                if not error.retryable:
                    raise self._explained(error) if isinstance(error, Refused) else error from error
                lost = time.monotonic() if lost is None else lost
                self._tell(f"{error.message}; trying again")
                if time.monotonic() - lost > LOST:
                    error.hint = f"the pods go on without it; the same command follows them again: {self._at()}"
                    raise
            self._pause()

    def _look(self) -> bool:
        """Take in what is new. Returns whether the training is done."""
        found = self.api.find(self.path)
        if found is None:
            if is_finished(self.job.work):
                return True
            message = f"{self.job.where.launcher} {self.name} was deleted before it was done"
            raise Stopped(message, hint="its state is saved; the same command makes it again")
        state, said = state_of(found)
        pods = self._pods.all()
        self._pods.relay(pods, last=state in ("done", "failed"))
        if state == "failed":
            raise self._failure(pods, said)
        if state == "done":
            return self._delivered()
        if state == "suspended":
            self._tell(f"{self.name} waits in the cluster's queue: {said}")
            self._stuck_since = None
        elif self._pods.seen:
            self._consider(found, pods)
        return False

    def _delivered(self) -> bool:
        """Whether the result is seen here; a file system of several machines may be late."""
        if is_finished(self.job.work):
            return True
        if was_left(self.job.work):
            message = f"the pods of {self.name} ended because nobody waited for them"
            raise Stopped(message, hint="their state is saved; the same command goes on from there")
        self._done_since = self._done_since or time.monotonic()
        if time.monotonic() - self._done_since > LATE:
            raise SetupError(
                f"{self.name} is complete, but its result is not in this folder",
                where=str(self.job.work),
                hint="where.train.kubernetes.volumes must be the claim that is mounted here too",
            )
        return False

    def _consider(self, job: Object, pods: Sequence[Object]) -> None:
        """Tell what is wrong with the pods; give up where it keeps them from starting for too long."""
        found = troubles(pods, () if running(pods) else self._pods.warnings(job))
        for trouble in found:
            self._tell(f"{trouble.message}  ({trouble.hint})")
        stuck = [trouble for trouble in found if trouble.starting]
        if not pods and not stuck:
            stuck = [Trouble("there are none", f"is Kubeflow's operator running? kubectl describe {self._kubectl}")]
        if not stuck:
            self._stuck_since = None
            return
        self._stuck_since = self._stuck_since or time.monotonic()
        waited = time.monotonic() - self._stuck_since
        if waited >= self.job.where.kubernetes.start_seconds:
            raise SetupError(
                f"the pods cannot start: {stuck[0].message}",
                where=self._at(),
                hint=f"{stuck[0].hint}. The job is kept, and the same command follows it; to give it up: "
                f"kubectl delete {self._kubectl}",
            )

    def _failure(self, pods: Sequence[Object], said: str) -> IlabError:
        """What the workers told of, else what their pods died of, else what the job says."""
        kept = f"the job is kept, to look at: kubectl describe {self._kubectl}; the same command goes on from its state"
        found = noted_error(self.job.work)
        if found is not None:
            found.hint = f"{found.hint}; {kept}" if found.hint else kept
            return found
        died = sorted(troubles(pods), key=lambda one: "memory" not in one.message)
        words = [died[0].message if died else said or "nobody said why", self._pods.complaint]
        hint = f"{died[0].hint}; {kept}" if died else kept
        return SetupError(
            f"the training job failed: {': '.join(one for one in words if one)}", where=self._at(), hint=hint
        )

    # -- ending it ---------------------------------------------------------------------------------------------------

    def _cancel(self) -> NoReturn:
        try:
            self.api.delete(self.path)
        except IlabError as error:
            hint = f"delete it yourself: kubectl delete {self._kubectl}"
            raise Stopped(f"stopped, but its job is still there: {error.message}", hint=hint) from error
        raise Stopped(
            f"the training was stopped after step {steps_done(self.job.work)}, and its job deleted",
            where=self._at(),
            hint="the pods save their state; the same command goes on from there",
        )

    def _clear(self) -> None:
        """Delete the job, which has done its work; that it stays behind is no reason to fail."""
        try:
            self.api.delete(self.path)
        except IlabError as error:
            self._tell(f"the job was not deleted: {error.message}  (kubectl delete {self._kubectl})")

    # -- words -------------------------------------------------------------------------------------------------------

    @property
    def _kubectl(self) -> str:
        return f"{self.kind.resource} {self.name} -n {self.namespace}"

    def _at(self) -> str:
        return f"{self.job.where.launcher} {self.namespace}/{self.name}"

    def _tell(self, note: str) -> None:
        if note not in self._told:
            self._told.add(note)
            self.job.emit.metric(note=note)

    def _pause(self) -> None:
        end = time.monotonic() + LOOK
        while (left := end - time.monotonic()) > 0 and not self.job.stopping():
            time.sleep(min(left, GLANCE))
