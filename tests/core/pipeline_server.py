"""A pipeline server on loopback: runs and recurring runs as the API v2beta1 keeps them, with filters on names.

What is submitted is parsed by Kubeflow's own schemas. ``work`` is called with a run's id and what was sent, and returns
the state that the run ends in; without it a run goes on until a test says how it ends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class PipelineServer:
    """``runs`` and ``recurring`` by id, oldest first; ``log`` is what every pod printed last."""

    url: str = ""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    log: str = ""
    work: Callable[[dict[str, Any]], str] | None = None

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        self.asked.append((method, path))
        what = path.strip("/").split("/")[2:]
        if what == ["healthz"]:
            return 200, {"multi_user": False}
        if what[0] == "experiments":
            one = {"experiment_id": "e1", "display_name": "nightly"}
            return 200, (one if method == "POST" or len(what) > 1 else {"experiments": [one]})
        if what == ["runs"]:
            return (200, self._begun(json.loads(body))) if method == "POST" else (200, {"runs": self._like(query)})
        if what[0] == "recurringruns":
            return self._recurring(method, what, query, body)
        if what[2:]:  # …/nodes/POD/log
            return 200, self.log
        return 200, self.runs[what[1]]

    def end(self, state: str) -> None:
        """How the newest run ends."""
        run = list(self.runs.values())[-1]
        detail = {"task_id": "t1", "display_name": "Model Packaging: package", "state": state}
        run |= {"state": state, "run_details": {"task_details": [{**detail, "child_tasks": [{"pod_name": "pod-1"}]}]}}

    def _begun(self, sent: dict[str, Any]) -> dict[str, Any]:
        parse(sent["pipeline_spec"])
        run = {**sent, "run_id": f"run-{len(self.runs) + 1}", "state": "RUNNING", "experiment_id": "e1"}
        self.runs[run["run_id"]] = run
        if self.work is not None:
            self.end(self.work(sent))
        return run

    def _like(self, query: dict[str, str]) -> list[dict[str, Any]]:
        return [run for run in reversed(self.runs.values()) if _fits(run, query)]

    def _recurring(self, method: str, what: list[str], query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"recurringRuns": [one for one in reversed(self.recurring.values()) if _fits(one, query)]}
        if method == "DELETE":
            del self.recurring[what[1]]
            return 200, {}
        sent = json.loads(body)
        parse(sent["pipeline_spec"])
        made = {**sent, "recurring_run_id": f"recurring-{len(self.asked)}", "status": "ENABLED"}
        self.recurring[made["recurring_run_id"]] = made
        return 200, made


def _fits(one: dict[str, Any], query: dict[str, str]) -> bool:
    """Whether an entry passes the filter of a list (filter.proto): a name that is the same, or has a part."""
    for wanted in json.loads(query["filter"])["predicates"] if "filter" in query else ():
        assert wanted["key"] == "display_name"
        name, text = one["display_name"], wanted["stringValue"]
        if not {"EQUALS": name == text, "IS_SUBSTRING": text in name}[wanted["operation"]]:
            return False
    return True


def parse(sent: Any) -> None:
    """What was sent, by Kubeflow's own schemas: one document, or two."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    json_format.ParseDict(sent.get("pipeline_spec", sent), pipeline_spec_pb2.PipelineSpec())
    if "platform_spec" in sent:
        json_format.ParseDict(sent["platform_spec"], pipeline_spec_pb2.PlatformSpec())


@contextmanager
def serving() -> Iterator[PipelineServer]:
    state = PipelineServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, told = state.answer(self.command, parts.path, query, body)
            content = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _handle

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    try:
        yield state
    finally:
        httpd.shutdown()
        httpd.server_close()
