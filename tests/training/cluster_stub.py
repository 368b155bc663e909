"""An API server of Kubernetes for one namespace, over TLS: jobs are kept, pods and their logs are scripted or played."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from ilab.training.pods import KINDS

TOKEN = "a-token-of-the-test"
JOB = re.compile(r"/apis/(?P<group>[^/]+/[^/]+)/namespaces/team/(?P<plural>[a-z]+)(?:/(?P<name>[-a-z0-9]+))?")
LABELS = {kind.plural: kind.label for kind in KINDS.values()}
Script = Sequence[Callable[["Stub"], None]]


def certificates(folder: Path) -> None:
    """server.pem with server.key for 127.0.0.1, its own authority."""
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", "server.key", "-out", "server.pem"]
    subprocess.run([*new, *named, *files], cwd=folder, check=True, capture_output=True)


class Stub:
    """``script``: what happens at the next looks at the job, one thing a look. ``asked``: method and path of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.events: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.queries: list[dict[str, str]] = []
        self.script: list[Callable[[Stub], None]] = []
        self.refuse: dict[tuple[str, str], tuple[int, str]] = {}  # (method, end of path) -> answer
        self.cuts = 0
        self.ending = 0  # looks that a job takes to be gone
        self.on_create: Callable[[dict[str, Any]], None] = lambda job: None
        self.on_delete: Callable[[], None] = lambda: None
        self.alive: Callable[[], bool] = lambda: False  # whether processes of its pods still run
        self.address = ""
        self.known = {kind.group: kind.plural for kind in KINDS.values()}  # what discovery tells

    def condition(self, type_: str, reason: str = "", message: str = "") -> None:
        for job in self.jobs.values():
            one = {"type": type_, "status": "True", "reason": reason, "message": message}
            job.setdefault("status", {}).setdefault("conditions", []).append(one)

    def pod(self, name: str, phase: str, **status: Any) -> None:
        job = next(iter(self.jobs.values()))
        labels = {LABELS[job["plural"]]: job["metadata"]["name"]}
        self.pods = [pod for pod in self.pods if pod["metadata"]["name"] != name]
        self.pods.append({"metadata": {"name": name, "labels": labels}, "status": {"phase": phase, **status}})

    def say(self, pod: str, line: str, stamp: str = "") -> None:
        said = self.logs.setdefault(pod, [])
        said.append((stamp or f"2026-11-21T10:00:{len(said):02}.5Z", line))

    def kubeconfig(self, **user: Any) -> Path:
        """A file with the way here."""
        ca = base64.b64encode((self.folder / "server.pem").read_bytes()).decode()
        found = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.address, "certificate-authority-data": ca}}],
            "users": [{"name": "u", "user": user or {"token": TOKEN}}],
        }
        path = self.folder / "kubeconfig"
        path.write_text(yaml.safe_dump(found))
        return path


@contextmanager
def serving(stub: Stub) -> Iterator[Stub]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(stub.folder / "server.pem", stub.folder / "server.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub))
    server.daemon_threads = True
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    stub.address = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        lock = threading.Lock()

        def log_message(self, format: str, *arguments: Any) -> None:
            return

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_DELETE(self) -> None:
            self._answer("DELETE")

        def _answer(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            with self.lock:
                if stub.cuts:
                    stub.cuts -= 1
                    self.close_connection = True
                    return  # not a byte
                path = urlsplit(self.path).path
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                stub.asked.append((method, path))
                stub.queries.append(query)
                status, found = self._found(method, path, query, json.loads(body) if body else {})
            data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _found(self, method: str, path: str, query: Mapping[str, str], body: Any) -> tuple[int, Any]:
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                return 401, {"message": "Unauthorized"}
            for (refused, end), (status, message) in stub.refuse.items():
                if method == refused and path.endswith(end):
                    return status, {"kind": "Status", "message": message}
            if path.removeprefix("/apis/") in stub.known:
                return 200, {"resources": [{"name": stub.known[path.removeprefix("/apis/")]}]}
            if path.startswith("/api/v1/namespaces/team/"):
                return self._core(path.removeprefix("/api/v1/namespaces/team/"), query)
            if not (match := JOB.fullmatch(path)) or LABELS.get(match["plural"]) is None:
                return 404, {"message": "the server could not find the requested resource"}
            if method == "GET" and not match["name"]:
                return self._listed(match["plural"], query)
            return self._job(method, match["plural"], match["name"], body)

        def _core(self, path: str, query: Mapping[str, str]) -> tuple[int, Any]:
            if path == "events":
                return 200, {"items": stub.events}
            if path == "pods":
                name, _, value = query["labelSelector"].partition("=")
                return 200, {"items": [pod for pod in stub.pods if pod["metadata"]["labels"].get(name) == value]}
            if path.endswith("/log"):
                since = query.get("sinceTime", "")[:19]  # the server knows seconds only
                said = stub.logs.get(path.split("/")[1], [])
                return 200, "".join(f"{stamp} {line}\n" for stamp, line in said if stamp[:19] >= since)
            pod = next((pod for pod in stub.pods if pod["metadata"]["name"] == path.split("/")[1]), None)
            return (200, pod) if pod else (404, {"message": "no such pod"})

        def _listed(self, plural: str, query: Mapping[str, str]) -> tuple[int, Any]:
            label, _, value = query["labelSelector"].partition("=")
            found = [job for job in stub.jobs.values() if job["plural"] == plural]
            return 200, {"items": [job for job in found if job["metadata"].get("labels", {}).get(label) == value]}

        def _job(self, method: str, plural: str, name: str | None, body: Any) -> tuple[int, Any]:
            if method == "POST":
                name = body["metadata"]["name"]
                if name in stub.jobs:
                    return 409, {"message": f"{name} already exists"}
                body["metadata"]["creationTimestamp"] = "2026-11-21T10:00:00Z"
                stub.jobs[name] = {**body, "plural": plural}
                stub.on_create(body)
                return 201, body
            job = stub.jobs.get(name or "")
            if job is None:
                return 404, {"message": f"{name} not found"}
            if method == "DELETE":
                assert body == {"propagationPolicy": "Foreground"}
                job["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z"
                stub.on_delete()
            elif stub.script:
                stub.script.pop(0)(stub)
            if "deletionTimestamp" in job["metadata"]:
                stub.ending -= 1
                if stub.ending < 0 and not stub.alive():
                    del stub.jobs[name or ""]
                    stub.pods, stub.logs = [], {}
            return 200, job

    return Handler


class Played:
    """The pods of a ``TrainJob`` as real processes with Kubeflow's environment; a thread keeps the stub up to date."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.threads: list[threading.Thread] = []
        stub.on_create, stub.on_delete, stub.alive = self.start, self.end, self.alive

    def start(self, job: dict[str, Any]) -> None:
        trainer = job["spec"]["trainer"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(trainer["numNodes"]):
            environment = {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "lo",
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            name = f"{job['metadata']['name']}-node-0-{rank}"
            self.processes[name] = subprocess.Popen(
                trainer["command"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                cwd=self.stub.folder,
            )
            self.stub.pod(name, "Running")
            self.threads.append(threading.Thread(target=self._hear, args=(name,), daemon=True))
            self.threads[-1].start()

    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def _hear(self, name: str) -> None:
        process = self.processes[name]
        for line in process.stdout or ():
            now = time.time()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09}Z"
            self.stub.say(name, line.rstrip("\n"), stamp)
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()
        self.stub.pod(name, "Succeeded" if process.returncode == 0 else "Failed")
        if all(one.poll() is not None for one in self.processes.values()):
            bad = [one.returncode for one in self.processes.values() if one.returncode]
            self.stub.condition("Failed" if bad else "Complete", "JobsFailed" if bad else "JobsCompleted")
