"""One of several training processes, which :mod:`ilab.training.launch` starts: ``-m ilab.training.worker FOLDER``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from ilab.core.events import Bus, Event
from ilab.core.files import write_json
from ilab.errors import IlabError
from ilab.training.handover import read_job
from ilab.training.launch import ERROR, STOP
from ilab.training.loop import train
from ilab.training.world import joined


def main(folder: Path) -> int:
    """Train this process's share. Returns the exit status: 0, or 1 after an error that is told in ``error.json``."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda got, _: asked.append(got))
    work = folder.parent
    job, device = read_job(folder, Bus([_tell]).for_step("train"), lambda: bool(asked) or (work / STOP).exists())
    with joined(device) as world:
        try:
            train(job, world)
        except IlabError as error:
            if world.leads:
                told = {"message": error.message, "where": error.where, "hint": error.hint}
                write_json(work / ERROR, {"kind": type(error).__name__, **told})
            return 1
    return 0


def _tell(event: Event) -> None:
    sys.stdout.write(json.dumps({"event": event.kind, "data": event.data}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
