"""Keeps a server only as long as whoever started it lives.

    python -I -S keeper.py GRACE COMMAND…

The command is the keeper's child, in a session of its own. When the keeper's standard input ends, which it does when
the starter closes the pipe or is gone, however it went (kill -9 too), the command's whole process group gets SIGINT,
and SIGKILL after GRACE seconds. The command's exit code is the keeper's. Nothing but the standard library is imported:
it lies in memory as long as the server. :class:`Child` is the starter's side.

A pipe, not PR_SET_PDEATHSIG: that one fires when the *thread* ends that started the child, and is Linux's alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

GRACE = 20.0  # seconds that a server gets to stop after SIGINT
MORE = 10.0  # seconds longer that the starter waits for the keeper


class Child:
    """A command under a keeper, its output in ``log``. Leaving the context stops it, with all of its children."""

    def __init__(self, command: Sequence[str], log: IO[bytes] | int | None, grace: float = GRACE) -> None:
        self._grace = grace
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(grace), *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches the starter alone, which stops the command in order
        )

    @property
    def code(self) -> int | None:
        """The command's exit code; None while it lives."""
        return self._keeper.poll()

    def wait(self) -> int:
        """The command's exit code, once it has ended."""
        return self._keeper.wait()

    def stop(self) -> int:
        """Stop the command and wait for its end; a second call does nothing. Returns its exit code."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        try:
            return self._keeper.wait(self._grace + MORE)
        except subprocess.TimeoutExpired:  # stopped (SIGSTOP) itself: its death leaves the command to the system
            self._keeper.kill()
            return self._keeper.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main(grace: float, command: Sequence[str]) -> int:
    """Run ``command`` until it ends, or until standard input does. Returns its exit code."""
    over, ended = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def tell(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left of the group
            os.killpg(child.pid, number)

    def read() -> None:
        while os.read(0, 4096):
            pass
        over.set()

    def stop() -> None:
        over.wait()
        if not ended.is_set():
            tell(signal.SIGINT)
        if not ended.wait(grace):
            tell(signal.SIGKILL)

    for work in (read, stop):
        threading.Thread(target=work, daemon=True).start()
    code = child.wait()
    ended.set()
    tell(signal.SIGKILL)  # workers that outlive their server would hold its memory
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    os._exit(main(float(sys.argv[1]), sys.argv[2:]))  # at once: a thread may still be reading
