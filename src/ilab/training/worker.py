"""One of several training processes, which torchrun starts: ``-m ilab.training.worker FOLDER``.

The first of them tells events on its standard output, and how it ended by a file in the work folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from ilab.config import TrainWhere
from ilab.config_where import MonitoringWhere
from ilab.core.events import Bus, Event
from ilab.core.files import read_json
from ilab.core.trust import trust_bundle
from ilab.errors import IlabError, Stopped
from ilab.monitoring import monitored, reporting
from ilab.training.attendance import Attendance, leave
from ilab.training.elsewhere import ERROR, STOP, job_name, note_error, note_finished
from ilab.training.handover import JOB, read_job
from ilab.training.loop import TrainJob, train
from ilab.training.world import joined


def main(folder: Path) -> int:
    """Train this process's share. Returns the exit status: 0, or 1 after an error that is told in ``error.json``."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda got, _: asked.append(got))
    trust_bundle()
    work = folder.parent
    place = TrainWhere.model_validate(read_json(folder / JOB)["where"])
    with reporting() as sinks, monitored(_monitoring(place), work / job_name(work, place)) as counted:
        bus = Bus([_tell, counted, *sinks])
        job, device = read_job(folder, bus.for_step("train"), lambda: False)
        attended = Attendance(work, job.where.kubernetes.unattended_seconds)
        job = replace(job, stopping=lambda: bool(asked) or attended.lost() or (work / STOP).exists())
        return _train(job, device, work, attended)


def _train(job: TrainJob, device: str, work: Path, attended: Attendance) -> int:
    with joined(device) as world:
        if world.leads:
            (work / ERROR).unlink(missing_ok=True)  # of an earlier try, where a pod was started again
            job.emit.progress(0, None, "steps", note=f"{world.size} processes have found each other")
        try:
            steps = train(job, world)
        except IlabError as error:
            unattended = isinstance(error, Stopped) and bool(world.total((float(attended.lost()),))[0])
            if world.leads:
                leave(work) if unattended else note_error(work, error)
            return 0 if unattended else 1  # nobody is to start the pods again
        if world.leads:
            note_finished(work, steps)
    return 0


def _monitoring(where: TrainWhere) -> MonitoringWhere:
    """What the first process of all shows of the job, which counts as the run; in a pod others ask for it."""
    first = os.environ.get("RANK", "0") == "0" and where.launcher != "here"
    port = where.kubernetes.metrics_port if first else None
    return MonitoringWhere(port=port, address="0.0.0.0")  # noqa: S104 - Prometheus asks from another pod


def _tell(event: Event) -> None:
    sys.stdout.write(json.dumps({"event": event.kind, "data": event.data}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
