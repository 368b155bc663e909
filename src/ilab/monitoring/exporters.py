"""The endpoint that Prometheus scrapes, and the file that a node exporter collects."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from ilab.config_where import MonitoringWhere
from ilab.core.events import Event, Sink
from ilab.core.files import write_text
from ilab.errors import SetupError, Stopped
from ilab.homes import expanded
from ilab.monitoring.metrics import CONTENT_TYPE, exposition
from ilab.monitoring.state import RunState

PORT_FILE = "metrics-port"
EVERY = 15.0  # seconds between two versions of the file


class Monitor:
    """The state of one run, for several threads: events come from the steps, readers from the exporters."""

    def __init__(self, folder: Path, stuck: float) -> None:
        self.folder, self._stuck = folder, stuck
        self._state = RunState.of(folder, time.time())
        self._lock = threading.Lock()
        self._began, self._asked = time.monotonic(), False
        self._collected = threading.Event()  # the last figures, by whoever collects them
        self.over = False

    def take(self, event: Event) -> None:
        with self._lock:
            self._state.take(event)

    def end(self, state: Literal["done", "failed", "stopped"]) -> None:
        with self._lock:
            self._state.end(state)
            self.over = True

    def given(self, *, last: bool) -> None:
        """Somebody who collects the figures over the network has them, the ``last`` ones perhaps."""
        self._asked = True
        if last:
            self._collected.set()

    def linger(self, seconds: float) -> None:
        """Wait until the last figures are collected: not longer than ``seconds``, and not at all where nobody asked
        in as long a time before."""
        if self._asked or time.monotonic() - self._began < seconds:
            self._collected.wait(seconds)

    def text(self) -> str:
        try:
            free: int | None = shutil.disk_usage(self.folder).free
        except OSError:  # the folder is gone, or its disk: what is known is told all the same
            free = None
        with self._lock:
            return exposition(self._state, time.time(), stuck=self._stuck, free=free)


@contextmanager
def monitored(where: MonitoringWhere, folder: Path) -> Iterator[Sink]:
    """A sink whose events the exporters of ``where`` show until the block ends; nothing is opened where none is asked.

    ``folder`` is the run's. Raises SetupError before anything runs where a port is taken or the file cannot be written.
    """
    if where.port is None and not where.textfile:
        yield lambda event: None
        return
    monitor = Monitor(folder, where.stuck_minutes * 60)
    with ExitStack() as open_:
        if where.port is not None:
            open_.enter_context(_endpoint(monitor, where.address, where.port))
        if where.textfile:
            open_.enter_context(_textfile(monitor, expanded(where.textfile)))
        try:
            yield monitor.take
        except Stopped:
            monitor.end("stopped")
            raise
        except BaseException:
            monitor.end("failed")
            _linger(monitor, where)
            raise
        monitor.end("done")
        _linger(monitor, where)


def _linger(monitor: Monitor, where: MonitoringWhere) -> None:
    if where.port is not None and where.linger:
        monitor.linger(where.linger)


@contextmanager
def _endpoint(monitor: Monitor, address: str, port: int) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # a client that sends nothing holds its thread no longer

        def do_GET(self) -> None:
            found, over = self.path.partition("?")[0] == "/metrics", monitor.over
            body = (monitor.text() if found else "the metrics are at /metrics\n").encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE if found else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if found:
                monitor.given(last=over)

        def log_message(self, *_: object) -> None:
            """Nothing: the terminal belongs to the run."""

    try:
        server = _Server((address, port), Handler)
    except (OSError, OverflowError) as error:
        hint = "take another with --set where.monitoring.port=PORT; 0 takes a free one"
        raise SetupError(f"no metrics can be served at {address}:{port}: {error}", hint=hint) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        if port == 0:  # which one it took is told beside the run's other files
            write_text(monitor.folder / PORT_FILE, f"{server.server_address[1]}\n")
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing: a reader that goes away in mid-answer is no news."""


@contextmanager
def _textfile(monitor: Monitor, path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, monitor.text())
    except OSError as error:
        hint = "correct where.monitoring.textfile: a file of the folder that the node exporter collects"
        raise SetupError(f"the metrics cannot be written: {error.strerror}", where=str(path), hint=hint) from error
    over = threading.Event()

    def write() -> None:
        while not over.wait(EVERY):
            _write(path, monitor)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _write(path, monitor)


def _write(path: Path, monitor: Monitor) -> None:
    with suppress(OSError):  # a full disk must not stop the run
        write_text(path, monitor.text())
