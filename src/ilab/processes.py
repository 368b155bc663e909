"""Commands in the background: started, listed, followed, stopped.

    <data home>/processes/<id>/process.json    what was started, where, by which pids; written once
                               log             all it says; for the owner alone
                               ended.json      its exit code; written once

A folder each, so that two that start at once need no lock, and a torn file harms one entry at most. Whether it still
runs is never written down but asked of the system, with pid *and* start time: after a crash, or a restart of the
machine, nothing has to be put right, and a pid that was given to another program is never signalled.

No secret is written: keys are given by reference, the environment is inherited and not stored, and a password in an
address is left out of the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ilab.core.files import read_json
from ilab.core.pids import born
from ilab.errors import InputError, SetupError
from ilab.homes import data_home
from ilab.supervisor import ENDING, LOG, READY, RECORD, write

State = Literal["running", "done", "stopped", "failed", "lost", "elsewhere"]
STOPPED = (6, 130, 143)  # a budget, Ctrl-C, a termination signal: the same command goes on
KILLED = 128 + signal.SIGKILL
PROGRAM = (sys.executable, "-P", "-m", "ilab")
POLL = 0.2  # seconds between two looks at a process or its log
ABANDONED = 3600.0  # seconds after which an entry that is still not whole never will be
TAIL = 8192  # bytes of a log in which its last line is looked for


@dataclass(frozen=True)
class Process:
    """One background command. ``code`` and ``ended`` are known once it has ended, times are seconds since 1970.

    ``lost``: it is gone without a word (killed together with its supervisor, or the machine was restarted).
    ``elsewhere``: started on another machine with the same home folder, where alone one can know.
    """

    id: str
    log: Path
    state: State
    command: tuple[str, ...] = ()
    directory: str = ""
    host: str = ""
    started: float = 0.0
    ended: float | None = None
    code: int | None = None
    pid: int = 0
    group: int = 0

    def facts(self) -> dict[str, Any]:
        """The process as JSON; ``progress`` is the last it said."""
        return {
            "id": self.id,
            "state": self.state,
            "exit_code": self.code,
            "started": _iso(self.started) if self.started else None,
            "ended": _iso(self.ended) if self.ended else None,
            "seconds": round(self.seconds, 1) if self.seconds is not None else None,
            "command": list(self.command),
            "directory": self.directory,
            "host": self.host,
            "pid": self.pid if self.state == "running" else None,
            "log": str(self.log),
            "progress": self.progress(),
        }

    @property
    def seconds(self) -> float | None:
        """How long it has run, or did; None where nobody knows."""
        if not self.started or self.state in ("lost", "elsewhere"):
            return None
        return max(0.0, (self.ended or time.time()) - self.started)

    def progress(self) -> str:
        """The last line of its log; of one that failed, the last error."""
        return _end_of(self.log, "error:" if self.state in ("failed", "stopped") else "")


class Processes:
    """The background commands of this user, in ``root``."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or data_home() / "processes"

    def all(self) -> list[Process]:
        """All of them, the oldest first; a torn entry is one that was lost."""
        if not self.root.is_dir():
            return []
        found = [self.read(path.name) for path in self.root.iterdir() if re.fullmatch("[0-9a-f]{8}", path.name)]
        return sorted(found, key=lambda process: (process.started, process.id))

    def find(self, text: str | None) -> Process:
        """The one whose id begins with ``text``, without it the newest. Raises InputError for none, or several."""
        known = self.all()
        fitting = [one for one in known if one.id.startswith(text)] if text else known[-1:]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            message = f"there is no background process {text}" if text else "there is no background process"
            raise InputError(message, hint="see: ilab process list")
        raise InputError(f"{text} is the beginning of several ids", hint=", ".join(one.id for one in fitting))

    def read(self, identity: str) -> Process:
        """The process as it is now."""
        folder = self.root / identity
        state, told, ending = self._state(folder)
        return Process(
            id=identity,
            log=folder / LOG,
            state=state,
            command=tuple(told.get("arguments", ())),
            directory=told.get("directory", ""),
            host=told.get("host", ""),
            started=told.get("started", 0.0),
            ended=ending.get("ended"),
            code=ending.get("code"),
            pid=told.get("pid", 0),
            group=told.get("group", 0),
        )

    def _state(self, folder: Path) -> tuple[State, dict[str, Any], dict[str, Any]]:
        told = _read(folder / RECORD)
        for _ in range(2):  # it may end between the two questions
            ending = _read(folder / ENDING)
            if ending:
                code = ending.get("code")
                return ("done" if code == 0 else "stopped" if code in STOPPED else "failed"), told, ending
            if _lives(told, "pid", "born") or _lives(told, "group", "group_born"):
                return "running", told, {}
        # Only now: a laptop's name may have changed since.
        return ("elsewhere" if told and told.get("host") != socket.gethostname() else "lost"), told, {}

    # -- starting ------------------------------------------------------------------------------------------------

    def start(self, arguments: Sequence[str], program: Sequence[str] = PROGRAM) -> Process:
        """Start ``ilab ARGUMENTS`` from the present folder in a session of its own.

        Raises InputError where the very same command runs already, SetupError where it cannot be started.
        """
        shown, directory = tuple(map(without_password, arguments)), str(Path.cwd())
        for other in self.all():
            if (other.state, other.command, other.directory) == ("running", shown, directory):
                raise InputError("this command runs in the background already", hint=f"ilab process attach {other.id}")
        identity = secrets.token_hex(4)
        new, folder = self._new(identity), self.root / identity
        place = {"directory": directory, "host": socket.gethostname(), "started": time.time()}
        request = json.dumps({"command": [*program, *arguments], "record": {"arguments": shown, **place}})
        # -P: a module of the folder that one happens to stand in must not take the place of ours.
        supervisor = [sys.executable, "-P", "-m", "ilab.supervisor", str(new), str(folder)]
        with (new / LOG).open("ab") as log:
            starting = subprocess.Popen(
                supervisor, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        said, _ = starting.communicate(request)  # its end of the pipe is closed once it has said this
        if said.strip() != READY:
            raise SetupError(f"it could not be started in the background: {_end_of(new / LOG)}", where=str(self.root))
        return self.read(identity)

    def _new(self, identity: str) -> Path:
        """A folder with an empty log, under a name that is not listed."""
        folder = self.root / f".{identity}.new"
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(mode=0o700)
            os.close(os.open(folder / LOG, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise SetupError(f"cannot be written: {error.strerror}", where=str(self.root)) from error
        return folder

    # -- following and stopping ----------------------------------------------------------------------------------

    def follow(self, process: Process) -> Iterator[str]:
        """The lines of its log from the first, as they come, until it has ended. Touches the process in no way."""
        rest = b""
        with process.log.open("rb") as log:
            while True:
                running = self.read(process.id).state == "running"  # asked first: the last words are read after it
                *lines, rest = (rest + log.read()).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
                if not running:
                    break
                time.sleep(POLL)
        if rest:
            yield rest.decode("utf-8", "replace")

    def stop(self, process: Process, kill_after: float | None = None) -> Process:
        """Ask it to stop as Ctrl-C does, which saves its work, and wait; after ``kill_after`` seconds, kill it.

        Raises InputError where it does not run here.
        """
        self._signal(process, signal.SIGINT)
        asked = time.monotonic()
        while (now := self.read(process.id)).state == "running":
            if kill_after is not None and time.monotonic() - asked >= kill_after:
                return self._kill(process)
            time.sleep(POLL)
        return now

    def _kill(self, process: Process) -> Process:
        with contextlib.suppress(InputError):  # it has just ended by itself
            self._signal(process, signal.SIGKILL)
        while self.read(process.id).state == "running":
            time.sleep(POLL)
        if self.read(process.id).state == "lost":  # its supervisor died with it
            write(process.log.with_name(ENDING), {"code": KILLED, "ended": time.time()})
        return self.read(process.id)

    def _signal(self, process: Process, number: int) -> None:
        """To the whole group, as a terminal does; only if that is still the one that was started."""
        now = self.read(process.id)
        if now.state == "elsewhere":
            raise InputError(f"{now.id} runs on {now.host}", hint=f"there: ilab process stop {now.id}")
        if now.state != "running":
            raise InputError(f"{now.id} does not run any more ({now.state})", hint=f"ilab process remove {now.id}")
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            if os.getpgid(now.pid) == now.group:
                os.killpg(now.group, number)

    def remove(self, process: Process) -> None:
        """Forget an ended process and its log. Raises InputError where it still runs, or may."""
        now = self.read(process.id)
        if now.state in ("running", "elsewhere"):
            where = "runs" if now.state == "running" else f"may run on {now.host}"
            raise InputError(f"{now.id} still {where}", hint=f"ilab process stop {now.id}")
        doomed = self.root / f".{now.id}.removed"
        with contextlib.suppress(FileNotFoundError):  # somebody else was faster
            os.rename(self.root / now.id, doomed)  # so that no half of it is ever listed
        for leftover in self.root.glob(".*"):
            with contextlib.suppress(FileNotFoundError):
                if leftover.suffix == ".removed" or time.time() - leftover.stat().st_mtime > ABANDONED:
                    shutil.rmtree(leftover, ignore_errors=True)


def without_password(argument: str) -> str:
    """``argument`` with ``***`` for what stands between ``//`` and ``@`` of an address in it."""
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", "***", argument)


def _end_of(log: Path, start: str = "") -> str:
    """The last line that begins with ``start``, else the last of all."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - TAIL))
            lines = handle.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return ([line for line in said if line.startswith(start)] or said or [""])[-1]


def _lives(told: dict[str, Any], pid: str, since: str) -> bool:
    return isinstance(told.get(pid), int) and told.get(since) is not None and born(told[pid]) == told[since]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
