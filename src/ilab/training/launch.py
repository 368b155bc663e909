"""Starting the processes that train: this one alone, or several under ``torchrun``.

    run_job ──▶ one process:  the loop, here
            └─▶ several:      job/ on the disk ─▶ torchrun ─▶ ilab.training.worker, once for each device

The workers are told everything by the folder ``job`` and tell everything by files: their first one writes events, line
by line, to its standard output, an error to ``error.json``; a file ``stop`` asks them to save and end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from ilab import errors
from ilab.core.files import read_json
from ilab.errors import IlabError, SetupError
from ilab.training.handover import write_job
from ilab.training.loop import TrainJob, train
from ilab.training.world import World

ERROR, LOG, STOP = "error.json", "train.log", "stop"
LOOK = 0.2  # seconds between looks at whether to stop


def run_job(job: TrainJob, device: str) -> None:
    """Train, with as many processes as ``job.where`` says. Raises what the loop raises."""
    if job.where.processes == 1:
        train(job, World(0, 1, device))
        return
    for name in (ERROR, STOP):
        (job.work / name).unlink(missing_ok=True)
    folder = write_job(job, device)
    with (job.work / LOG).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command(folder, job.where.processes),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(job),
            start_new_session=True,  # Ctrl-C is ours to pass on, as a request to save
        )
    listener = threading.Thread(target=_listen, args=(process.stdout or (), job), daemon=True)
    listener.start()
    while process.poll() is None:
        if job.stopping():
            (job.work / STOP).touch()
        try:
            process.wait(LOOK)
        except subprocess.TimeoutExpired:
            continue
    listener.join()
    if process.stdout is not None:
        process.stdout.close()
    if process.returncode:
        raise _failure(job.work, process.returncode)


def command(folder: Path, processes: int, *, nodes: int = 1, node: int = 0, master: str = "") -> list[str]:
    """The line that starts one machine's share: ``processes`` of them, machine ``node`` of ``nodes``.

    ``master`` is the address (host:port) of the first machine, needed where there are several.
    """
    where = ["--standalone"] if nodes == 1 else ["--nnodes", str(nodes), "--node-rank", str(node)]
    if nodes > 1:
        host, _, port = master.rpartition(":")
        where += ["--master-addr", host, "--master-port", port]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return [*run, *where, "-m", "ilab.training.worker", str(folder)]


def _environment(job: TrainJob) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(job.threads)}


def _listen(lines: Iterable[str], job: TrainJob) -> None:
    """Pass the events of the first worker on."""
    for line in lines:
        try:
            told = json.loads(line)
            kind, data = told["event"], told["data"]
        except (ValueError, KeyError, TypeError):  # a library's remark
            continue
        if kind == "progress":
            job.emit.progress(**data)
        elif kind == "metric":
            job.emit.metric(**data)


def _failure(work: Path, code: int) -> IlabError:
    """What the workers failed of: their own error, else the end of their log."""
    if (work / ERROR).is_file():
        told = read_json(work / ERROR)
        kind: type[IlabError] = getattr(errors, told["kind"])
        return kind(told["message"], where=told["where"], hint=told["hint"])
    lines = (work / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "they said nothing")
    return SetupError(
        f"the training processes ended with status {code}: {said.strip()[:300]}",
        where=str(work / LOG),
        hint="look at the log; what was saved is kept, and the same command goes on from there",
    )
