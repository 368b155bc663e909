"""Runs a function on hostile input in a process of its own, so that a hang, a crash or a leak is an answer.

    with Sandbox("prove_leaf:prove", scratch) as sandbox:
        sandbox.run(b"version: 3", b"knowledge/a/qna.yaml")     # AssertionError with the process's own traceback

The process takes one input after another. For each it may use so many seconds of processor time (so a loaded machine
changes no verdict), and so much address space in all. It may write only below ``scratch``, which is its current
folder, read only there and where Python's own files are, and neither open a connection nor start a program, but for
the one module it is allowed to start (``starts``): Python's audit hooks see to it. What C libraries open themselves, and
what that other process does, they do not see; tests put baits out for that.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import IO, Any

CPU_SECONDS = 20
MEMORY = 3 * 2**30
LAST_NET = 900  # seconds of real time after which a process that waits for something is given up
_FORBIDDEN = {"socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system", "os.exec"}
_FORBIDDEN |= {"os.fork", "os.posix_spawn", "pickle.find_class"}
_CHANGES = ("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Sandbox:
    """``target`` is ``module:function`` as this process would import it; it is given the parts of an input."""

    def __init__(self, target: str, scratch: Path, *, memory: int = MEMORY, starts: str = "") -> None:
        paths = os.pathsep.join(filter(None, sys.path))  # as an argument: of PYTHONPATH every started Python would read
        self.command = [sys.executable, __file__, target, str(memory), starts, paths]
        self.scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, *parts: bytes) -> str:
        """What the function returned. Raises AssertionError where it raised, hung, crashed or did what it may not."""
        process = self._process or self._start()
        assert process.stdin and process.stdout
        try:
            _send(process.stdin, parts)
            ready, _, _ = select.select([process.stdout], [], [], LAST_NET)
            failed, told = _receive(process.stdout) if ready else [b"1", b"waits for something"]
        except (OSError, EOFError):
            raise AssertionError(self._ended()) from None
        if failed == b"1":
            raise AssertionError(told.decode(errors="replace"))
        return told.decode()

    def close(self) -> None:
        """End the process, if one is running."""
        if self._process is not None:
            self._ended()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.scratch,
            env={**os.environ, "TMPDIR": str(self.scratch), "PYTHONHASHSEED": "0"},
        )
        return self._process

    def _ended(self) -> str:
        """Close the process; how it ended, in words."""
        process, self._process = self._process, None
        assert process and process.stdin and process.stdout
        with contextlib.suppress(OSError):  # a pipe whose other end is gone
            process.stdin.close()
        process.stdout.close()
        code = process.wait()
        if code == -signal.SIGXCPU:
            return "takes too much processor time"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _send(stream: IO[bytes], parts: tuple[bytes, ...] | list[bytes]) -> None:
    stream.write(struct.pack(">I", len(parts)) + b"".join(struct.pack(">Q", len(part)) + part for part in parts))
    stream.flush()


def _receive(stream: IO[bytes]) -> list[bytes]:
    (count,) = struct.unpack(">I", _exactly(stream, 4))
    return [_exactly(stream, struct.unpack(">Q", _exactly(stream, 8))[0]) for _ in range(count)]


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


class _Watch:
    """Python's audit hook: remembers what is done that may not be done, and refuses it."""

    def __init__(self, starts: str) -> None:
        self.starts = ["-m", starts]
        here = Path.cwd().resolve()
        roots = {Path(name).resolve() for name in (*filter(None, sys.path), sys.prefix, sys.base_prefix)}
        self.inside = str(here)
        self.readable = [str(root) for root in roots] + [self.inside, "/dev/", "/proc/self/", "/usr/share/zoneinfo"]
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and not self._may_open(os.fsdecode(path), flags or 0):
                self._refuse(f"opens {path!r} with flags {flags}")
        elif event in _CHANGES:
            if not self._below(os.fsdecode(arguments[0]), [self.inside]):
                self._refuse(f"{event} {arguments!r}")
        elif event in _FORBIDDEN and not (event == "subprocess.Popen" and list(arguments[1])[-2:] == self.starts):
            self._refuse(f"{event} {arguments!r}"[:300])

    def _refuse(self, what: str) -> None:
        self.seen.append(what)
        raise PermissionError(what)

    def _may_open(self, path: str, flags: int) -> bool:
        return self._below(path, [self.inside, "/dev/null"] if flags & _WRITING else self.readable)

    @staticmethod
    def _below(path: str, roots: list[str]) -> bool:
        return os.path.realpath(path).startswith(tuple(roots))


def _serve(target: str, memory: int, starts: str) -> None:
    """Answer inputs on standard input until it is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    watch = _Watch(starts)
    sys.addaudithook(watch)
    while True:
        try:
            parts = _receive(sys.stdin.buffer)
        except EOFError:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            answer = [b"0", str(function(*parts) or "").encode()]
        except BaseException:  # whatever it is, it is the answer
            told = io.StringIO()
            traceback.print_exc(file=told, limit=-12)
            answer = [b"1", told.getvalue().encode("utf-8", "backslashreplace")]
        if watch.seen:
            answer = [b"1", "\n".join(watch.seen).encode("utf-8", "backslashreplace")]
            watch.seen.clear()
        _send(answers, answer)


if __name__ == "__main__":
    sys.path[:] = sys.argv[4].split(os.pathsep)
    _serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
