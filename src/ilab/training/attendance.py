"""Whether anybody still waits for the pods of a training: they end by themselves where nobody does.

    the command that waits ── writes a new word every BEAT seconds ─▶ work/attended ─▶ the workers ── no new one for
    where.train.kubernetes.unattended_seconds ─▶ they save their state and end, and the job counts as complete

A task of a pipeline that is cancelled has no time to delete its job: Kubeflow's launcher ends at the first signal, and
the container with it. So the job is tied to the task by this. Words are compared, not times: clocks of machines differ.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from ilab.core.files import write_text

ATTENDED, UNATTENDED = "attended", "unattended"
BEAT = 15.0  # seconds between two words
LOOK = 5.0  # seconds between two looks of a worker


class Waiting:
    """The side of the command that waits."""

    def __init__(self, work: Path) -> None:
        self._path = work / ATTENDED
        self._last: float | None = None

    def tell(self) -> None:
        """Say that somebody is there, where that was not said lately."""
        now = time.monotonic()
        if self._last is None or now - self._last >= BEAT:
            with suppress(OSError):  # a full disk, or one that is away: the next word may get through
                write_text(self._path, uuid4().hex)
            self._last = now


class Attendance:
    """The side of a worker. ``seconds``: None where it trains to the end whoever is there."""

    def __init__(self, work: Path, seconds: float | None) -> None:
        self._path, self._seconds = work / ATTENDED, seconds
        self._word: bytes | None = None
        self._looked = self._heard = time.monotonic()
        self._lost = False

    def lost(self) -> bool:
        """Whether nobody was there for too long. Once it is so it stays so: the workers are ending."""
        if self._seconds is None or self._lost:
            return self._lost
        now = time.monotonic()
        if now - self._looked >= min(LOOK, self._seconds / 4):
            try:
                word = self._path.read_bytes()
            except FileNotFoundError:  # not written yet
                word = self._word or b""
            except OSError:  # the file system is away, or the word is just replaced: the next look tells
                return False
            self._looked = now
            if word != self._word:
                self._word, self._heard = word, now
        self._lost = now - self._heard > self._seconds
        return self._lost


def leave(work: Path) -> None:
    """Note that the workers have ended because nobody was there."""
    (work / UNATTENDED).touch()


def was_left(work: Path) -> bool:
    return (work / UNATTENDED).is_file()
