"""Starting the processes that train: this one alone, or several under ``torchrun``, on one machine or on many.

    run_job ──▶ one process:  the loop, here
            ├─▶ several:      job/ on the disk ─▶ torchrun on each machine ─▶ ilab.training.worker, once for each device
            └─▶ pods:         job/ and a manifest on the disk, and no more (ilab.training.elsewhere); or, with submit,
                              made in the cluster and watched until they are done (ilab.training.cluster)

The workers are told everything by the folder ``job`` and tell everything by files: their first one writes events, line
by line, to its standard output, an error to ``error.json``; a file ``stop`` asks them to save and end. Several machines
need one file system in common and the address of the first (``where.train.master``), which prepares the job; on every
other one the line that :func:`commands` gives is typed, at any time: it waits for the first. It reads ``job`` and opens
no store.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from ilab.config import TrainWhere
from ilab.errors import IlabError, SetupError, Stopped
from ilab.training.cluster import train_in_cluster
from ilab.training.elsewhere import ERROR, STOP, check_not_away, hand_over, is_finished, noted_error, pass_on
from ilab.training.handover import write_job
from ilab.training.kernels import check_kernels
from ilab.training.loop import TrainJob, train
from ilab.training.sinks import wanted
from ilab.training.start import before_start, keep_measured_speed, tell_emulated
from ilab.training.world import World, check_together

LOG = "train.log"
LOOK = 0.2  # seconds between looks at whether to stop
WAITS = 86400  # seconds that another machine waits for the first: its line may be typed long before it is wanted


def run_job(job: TrainJob, device: str) -> None:
    """Train on ``device`` (the pods' where they train), in as many processes as ``job.where`` says.

    Raises what the loop raises.

    Before anything is spent, ``SetupError`` where memory or disk will not be enough, or a package is missing. Where
    pods train, ``HandedOver`` until they are done, unless they are waited for here.
    """
    if job.where.submit:
        check_together(job.where, job.settings.optimizer, device)
        train_in_cluster(job, device)
        return
    if is_finished(job.work):  # by pods, or killed before the result was published
        return
    check_together(job.where, job.settings.optimizer, device)
    if job.where.launcher != "here":
        hand_over(job, device)
    check_not_away(job.work)
    wanted(job.where)
    check_kernels(job.where, device)
    before_start(job, device)
    tell_emulated(job, device)
    if job.where.world == 1:
        train(job, World(0, 1, device))
    else:
        _run_processes(job, device)
    keep_measured_speed(job, device)


def commands(folder: Path, where: TrainWhere) -> list[list[str]]:
    """The line of each machine that trains the job in ``folder``, in the order of their numbers. Starts nothing."""
    return [
        command(folder, where.processes, nodes=where.nodes, node=node, master=where.master)
        for node in range(where.nodes)
    ]


def command(folder: Path, processes: int, *, nodes: int = 1, node: int = 0, master: str = "") -> list[str]:
    """The line that starts one machine's share: ``processes`` of them, machine ``node`` of ``nodes``.

    ``master`` is the address (host:port) of the first machine, needed where there are several.
    """
    where = ["--standalone"] if nodes == 1 else ["--nnodes", str(nodes), "--node-rank", str(node)]
    if nodes > 1:
        host, _, port = master.rpartition(":")
        where += ["--master-addr", host.strip("[]"), "--master-port", port]
        where += ["--rdzv-conf", f"timeout={WAITS}"] if node else []
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return [*run, *where, "-m", "ilab.training.worker", str(folder)]


def _run_processes(job: TrainJob, device: str) -> None:
    for name in (ERROR, STOP):
        (job.work / name).unlink(missing_ok=True)
    here, *others = commands(write_job(job, device).absolute(), job.where)
    with (job.work / LOG).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            here,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
            start_new_session=True,  # Ctrl-C is ours to pass on, as a request to save
        )
    for node, line in enumerate(others, 1):
        job.emit.metric(note=f"on machine {node}: {shlex.join(line)}")
    met = threading.Event()
    listener = threading.Thread(target=_listen, args=(process.stdout or (), job, met), daemon=True)
    listener.start()
    asked = False
    while process.poll() is None:
        if job.stopping():
            (job.work / STOP).touch()
            if others and not met.is_set() and not asked:  # it waits for other machines, with nothing to save
                process.terminate()
            asked = True
        try:
            process.wait(LOOK)
        except subprocess.TimeoutExpired:
            continue
    listener.join()
    if process.stdout is not None:
        process.stdout.close()
    if process.returncode and asked and not met.is_set():
        raise Stopped("stopped while waiting for the other machines", hint="run the same command to go on")
    if process.returncode:
        raise _failure(job.work, process.returncode)


def _listen(lines: Iterable[str], job: TrainJob, met: threading.Event) -> None:
    """Pass the events of the first worker on. Sets ``met`` at the first: all workers have found each other."""
    for line in lines:
        if pass_on(line, job.emit):
            met.set()


def _failure(work: Path, code: int) -> IlabError:
    """What the workers failed of: their own error, else the end of their log."""
    if (found := noted_error(work)) is not None:
        return found
    lines = (work / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "they said nothing")
    return SetupError(
        f"the training processes ended with status {code}: {said.strip()[:300]}",
        where=str(work / LOG),
        hint="look at the log; what was saved is kept, and the same command goes on from there",
    )
