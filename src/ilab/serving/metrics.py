"""What a server tells Prometheus: requests, tokens, seconds, and how many are under way."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one server, from its start on. ``path`` is a route, never what a client made up."""

    def __init__(self, model: str) -> None:
        self._registry = registry = CollectorRegistry()
        Gauge("ilab_model_info", "The model that is served.", ["model"], registry=registry).labels(model).set(1)
        self._requests = Counter("ilab_requests", "Requests answered.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "ilab_request_seconds", "From a request to the end of its answer.", ["path"], registry=registry,
            buckets=SECONDS,
        )  # fmt: skip
        self.in_flight = Gauge("ilab_requests_in_flight", "Requests under way.", registry=registry)
        self._tokens = Counter("ilab_tokens", "Tokens read and written.", ["kind"], registry=registry)
        for kind in ("prompt", "completion"):
            self._tokens.labels(kind)

    def answered(self, path: str, status: int, seconds: float) -> None:
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def used(self, prompt: int, completion: int) -> None:
        """Count tokens."""
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("completion").inc(completion)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
