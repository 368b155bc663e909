"""What stays with a background command until it ends, and writes down how it ended.

    python -P -m ilab.supervisor NEW FOLDER < request.json

It leads a session of its own, so neither Ctrl-C nor a closed terminal reaches it, and imports nothing heavy, for it
stays in memory as long as the command runs. The command itself is its child in the same process group: what stops the
group stops the command, and the supervisor lives on to see how. NEW holds the log alone; with the record in it, it is
renamed to FOLDER, so that a reader sees the whole entry or none. See :mod:`ilab.processes`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from ilab.core.pids import born

RECORD, ENDING, LOG = "process.json", "ended.json", "log"
READY = "ready"  # what is said once the record is written
MARK = "ILAB_BACKGROUND"  # tells the command that it is in the background already


def main() -> None:
    """Start the command of the request, note its pids, wait, note its exit code."""
    new, folder = Path(sys.argv[1]), Path(sys.argv[2])
    request = json.load(sys.stdin)
    if os.fork():  # whoever started us has no child that it would have to wait for
        os._exit(0)
    os.setsid()
    # A handler, not SIG_IGN: the command would inherit that, and could not be stopped any more.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave_it_to_the_command)
    with (new / LOG).open("ab") as log:
        command = subprocess.Popen(
            request["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, MARK: "1"}
        )
    me = os.getpid()
    pids = {"pid": command.pid, "born": born(command.pid), "group": me, "group_born": born(me)}
    write(new / RECORD, {**request["record"], **pids})
    os.rename(new, folder)
    with contextlib.suppress(BrokenPipeError):  # whoever started it may have been killed meanwhile
        print(READY, flush=True)  # noqa: T201 - the other end of this pipe is a program
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = command.wait()
    write(folder / ENDING, {"code": code if code >= 0 else 128 - code, "ended": time.time()})


def write(path: Path, value: dict[str, Any]) -> None:
    """Beside it, then renamed over it: a reader sees the whole or nothing."""
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(json.dumps(value), encoding="utf-8")
    os.replace(beside, path)


def _leave_it_to_the_command(_number: int, _frame: FrameType | None) -> None:
    return


if __name__ == "__main__":
    main()
