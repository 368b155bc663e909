"""A controller of Kubeflow Trainer on loopback, as far as it takes the status of jobs: HTTPS, a token, a POST."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PREFIX = "KUBEFLOW_TRAINER_SERVER_"


class Controller(ThreadingHTTPServer):
    """Takes statuses as the controller does; answers ``code``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, str, dict[str, Any]]] = []
        self.code = 200
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """A client that does not trust us goes away."""


class _Handler(BaseHTTPRequestHandler):
    server: Controller

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.code)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def make_certificate(folder: Path) -> None:
    """``server.pem`` and ``server.key`` for 127.0.0.1, and a file ``token``. Needs openssl."""
    name = ["-subj", "/CN=controller", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    line = ["openssl", *new, *name, "-keyout", "server.key", "-out", "server.pem"]
    subprocess.run(line, cwd=folder, check=True, capture_output=True)
    (folder / "token").write_text("sesame\n")


@contextmanager
def serving(folder: Path) -> Iterator[Controller]:
    """A controller with the certificate in ``folder``."""
    server = Controller(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(controller: Controller, folder: Path, prefix: str = PREFIX) -> dict[str, str]:
    """What the controller gives a pod."""
    url = f"https://127.0.0.1:{controller.server_address[1]}/apis/trainer/status"
    found = {"URL": url, "TOKEN": str(folder / "token"), "CA_CERT": str(folder / "server.pem")}
    return {f"{prefix}{name}": value for name, value in found.items()}
