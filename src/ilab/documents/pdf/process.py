"""Reads PDF files in a process of its own, so that a file that means harm harms nothing but that process.

pdfium is a large C++ library that parses whatever it is given. In its own process a crash is an error message, and the
system holds it to limits: memory, and processor time by the size of the file. One process serves a program's whole
life, one file after another; it is started with the first file, anew after a crash, and ends with its standard input.

    parent ── length, bytes of the file ──▶ child        parent ◀── length, JSON: the conversion, or the error ── child
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ilab.documents.converted import Converted, Hidden
from ilab.errors import InputError

MEMORY = 2**30  # bytes of address space, and besides:
PER_BYTE = 4  # bytes for each byte of the file
SECONDS = 20  # of processor time, and besides:
PER_MEBIBYTE = 60  # for each 2^20 bytes of the file: fifteen times what text needs
_LENGTH = struct.Struct(">Q")
_HINT = "print it to a new PDF file, or convert it to text by other means"


def read(data: bytes) -> Converted:
    """The text of a PDF as ``pdf.read`` gives it. Raises ``InputError``, also where that fails or costs too much."""
    return _CHILD.read(data)


class _Child:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def read(self, data: bytes) -> Converted:
        with self._lock:
            process = self._running()
            try:
                _send(process.stdin, data)
                answer = json.loads(_receive(process.stdout))
            except (OSError, EOFError):
                raise self._failed() from None
        if "message" in answer:
            raise InputError(answer["message"], hint=answer["hint"])
        hidden = tuple(Hidden(**entry) for entry in answer["hidden"])
        return Converted(answer["text"], answer["title"], tuple(answer["pages"]), hidden)

    def close(self) -> int:
        """End the process; returns its exit code."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not sent yet to a process that is gone
                if stream is not None:
                    stream.close()
        return process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():  # a fork must not share its parent's
            package = str(Path(__file__).parents[2])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": package},
                start_new_session=True,  # Ctrl-C is for the program; this one ends with its input
            )
            self._owner = os.getpid()
        return self._process

    def _failed(self) -> Exception:
        code = self.close()
        if code == -signal.SIGXCPU:
            return InputError("takes too long to read", hint=_HINT)
        if code < 0:
            return InputError(f"cannot be read: the PDF library fails ({signal.Signals(-code).name})", hint=_HINT)
        return RuntimeError(f"the process that reads PDF files ended with exit code {code}; its message stands above")


_CHILD = _Child()
atexit.register(_CHILD.close)


def serve(source: IO[bytes], target: IO[bytes]) -> None:
    """Answer files on ``source`` until it ends. Runs in the child."""
    from ilab.documents.pdf import reader as pdf

    while True:
        try:
            data = _receive(source)
        except EOFError:
            return
        _limit(len(data))
        answer: dict[str, Any]
        try:
            answer = asdict(pdf.read(data))
        except InputError as error:
            answer = {"message": error.message, "hint": error.hint}
        except MemoryError:
            answer = {"message": "needs too much memory to be read", "hint": _HINT}
        _send(target, json.dumps(answer).encode())


def _limit(size: int) -> None:
    """Hold this process to what a file of ``size`` bytes may cost."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + SECONDS + PER_MEBIBYTE * size // 2**20
    for kind, wanted in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, MEMORY + PER_BYTE * size)):
        most = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit on address space
            resource.setrlimit(kind, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _send(stream: IO[bytes] | None, data: bytes) -> None:
    if stream is not None:
        stream.write(_LENGTH.pack(len(data)))
        stream.write(data)
        stream.flush()


def _receive(stream: IO[bytes] | None) -> bytes:
    """The next message. Raises ``EOFError`` where the other side is gone."""
    head = stream.read(_LENGTH.size) if stream is not None else b""
    if stream is None or len(head) < _LENGTH.size:
        raise EOFError
    data = stream.read(_LENGTH.unpack(head)[0])
    if len(data) < _LENGTH.unpack(head)[0]:
        raise EOFError
    return data


def _main() -> None:
    """The child: standard output is for answers, whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
