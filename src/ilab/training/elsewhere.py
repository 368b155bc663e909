"""A training that pods do: it is handed over by files, and taken back by the same command.

    the command ─▶ job/ and job.yaml in the work folder ─▶ HandedOver (exit status 6)
    kubectl apply -f job.yaml ─▶ the pods train on job/ and end with finished.json, or with error.json
    the same command again ─▶ the candidates as if they had been trained here, or what went wrong

The work folder is that of the step's key, so nothing can be taken for the result of another training. No process of
this program runs in between, and nothing of the store is open. With ``where.train.submit`` the command makes the job
itself and waits for it (:mod:`ilab.training.cluster`).
"""

from __future__ import annotations

import json
from pathlib import Path

from ilab import errors
from ilab.config import TrainWhere
from ilab.core.events import Emit
from ilab.core.files import read_json, write_json, write_text
from ilab.core.step import fingerprint
from ilab.errors import IlabError, SetupError, Stopped
from ilab.training.handover import FOLDER, JOB, told, write_job
from ilab.training.loop import TrainJob
from ilab.training.manifests import Kind, check, manifest
from ilab.training.metrics import read_metrics
from ilab.training.start import before_start

ERROR, FINISHED, STOP, MANIFEST = "error.json", "finished.json", "stop", "job.yaml"


class HandedOver(Stopped):
    """The training waits for pods, or they are at it. ``manifest`` is the file to apply."""

    def __init__(self, message: str, *, hint: str, where: str, manifest: Path) -> None:
        super().__init__(message, hint=hint, where=where)
        self.manifest = manifest


def hand_over(job: TrainJob, device: str) -> None:
    """Prepare ``job`` for pods with ``device``. Always raises: ``HandedOver``; or the pods' error, once.

    ``InputError`` where the settings are not enough for a manifest, ``SetupError`` where the disk is too small.
    """
    path = job.work / MANIFEST
    check_for_pods(job)
    if (job.work / ERROR).is_file():
        raise _given_back(job.work)
    if _stands(job, device):
        step = steps_done(job.work)
        raise HandedOver(
            f"the training is with the pods: {f'step {step} is done' if step else 'they have not begun'}",
            hint=f"kubectl apply -f {path}  (unless you did); run the same command again when they are done",
            where=str(path),
            manifest=path,
        )
    prepare(job, device)
    raise HandedOver(
        "the training is prepared for the pods",
        hint=f"kubectl apply -f {path}  and, when they are done, the same command again",
        where=str(path),
        manifest=path,
    )


def prepare(job: TrainJob, device: str) -> Path:
    """Write the folder of ``job`` and the manifest, unless both stand already. Returns the manifest.

    Raises ``InputError`` where the settings are not enough for it, ``SetupError`` where memory or disk are too small.
    """
    path = job.work / MANIFEST
    check_for_pods(job)
    if not _stands(job, device):
        before_start(job, device)
        (job.work / STOP).unlink(missing_ok=True)  # of an earlier run, here
        folder = write_job(job, device)
        write_text(path, manifest(_kind(job.where), job_name(job.work, job.where), folder, job.where))
    return path


def check_for_pods(job: TrainJob) -> None:
    """Raises ``InputError`` where pods could not run ``job``."""
    _kind(job.where)
    check(job_name(job.work, job.where), (job.work / FOLDER, job.base, job.work), job.where)


def steps_done(work: Path) -> int:
    """How far the workers are, by the metrics that they write."""
    return max((int(row["step"]) for row in read_metrics(work)), default=0)


def pass_on(line: str, emit: Emit) -> bool:
    """Tell ``emit`` the event that the first worker told by ``line``; False where it tells none: a library's remark."""
    try:
        told = json.loads(line)
        kind, data = told["event"], told["data"]
        if kind == "progress":
            emit.progress(**data)
        elif kind == "metric":
            emit.metric(**data)
    except (ValueError, KeyError, TypeError):
        return False
    return True


def check_not_away(work: Path) -> None:
    """Raises ``SetupError`` where pods may be training in ``work``, so that nobody else begins there too."""
    path = work / FOLDER / JOB
    if path.is_file() and read_json(path)["where"].get("launcher", "here") != "here":
        raise SetupError(
            "this training was handed over to pods",
            where=str(path),
            hint="go on with the same launcher (where.train.launcher). To train here: end the job (kubectl delete -f "
            f"{work / MANIFEST}), then remove {path}",
        )


def is_finished(work: Path) -> bool:
    """Whether workers have come to the end of the training whose folder this is."""
    return (work / FINISHED).is_file()


def note_finished(work: Path, steps: int) -> None:
    write_json(work / FINISHED, {"steps": steps})


def note_error(work: Path, error: IlabError) -> None:
    """Write down what the workers ended with, for whoever started them."""
    kind = {"kind": type(error).__name__, "message": error.message, "where": error.where, "hint": error.hint}
    write_json(work / ERROR, kind)


def noted_error(work: Path) -> IlabError | None:
    """What the workers ended with, if it was an error that they could tell."""
    if not (work / ERROR).is_file():
        return None
    found = read_json(work / ERROR)
    kind = getattr(errors, found["kind"], None)
    known: type[IlabError] = kind if isinstance(kind, type) and issubclass(kind, IlabError) else IlabError
    return known(found["message"], where=found["where"], hint=found["hint"])


def job_name(work: Path, where: TrainWhere) -> str:
    """A name for the cluster: the same for the same training in the same store, another for any other.

    Two runs of a pipeline may have the same path on volumes of their own, so the volume counts.
    """
    folder = work.resolve()
    claims = [claim for claim, mount in where.kubernetes.volumes.items() if folder.is_relative_to(mount)]
    return f"ilab-train-{fingerprint(str(folder), sorted(claims))[:10]}"


def _kind(where: TrainWhere) -> Kind:
    if where.launcher == "here":
        raise ValueError("this job is not for pods")
    return where.launcher


def _stands(job: TrainJob, device: str) -> bool:
    """Whether this very job is written, with its manifest: pods may be reading it."""
    path = job.work / FOLDER / JOB
    return path.is_file() and (job.work / MANIFEST).is_file() and bool(read_json(path) == told(job, device))


def _given_back(work: Path) -> IlabError:
    """The error of the pods. It is told once: the next run prepares the job anew, and it goes on from its state."""
    found = noted_error(work)
    for path in (work / ERROR, work / FOLDER / JOB):
        path.unlink(missing_ok=True)
    again = f"the same command again; then kubectl replace --force -f {work / MANIFEST}"
    if found is None:
        return SetupError("the pods ended with an error that cannot be read", where=str(work), hint=again)
    found.hint = f"{found.hint}; {again}" if found.hint else again
    return found
