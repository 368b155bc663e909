"""Progress of a TrainJob's pod for Kubeflow Trainer, which shows it in the job's status (KEP-2779, Trainer 2.2).

The controller gives the pod an address and files with a token and a certificate, by environment variables. The names
are those that transformers 5.23 reads (``KUBEFLOW_TRAINER_SERVER_URL``, ``_CA_CERT``, ``_TOKEN``), or the enhancement
proposal's (``KUBEFLOW_TRAINER_STATUS_…``). The first process tells; a thread of its own sends, so that a slow or
missing controller never holds up a step, and only the newest status is sent.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ilab.core.events import Event, Sink

PREFIXES = ("KUBEFLOW_TRAINER_SERVER_", "KUBEFLOW_TRAINER_STATUS_")
EVERY = 5.0  # seconds between two posts, and that one may take
SHOWN = ("loss", "validation_loss", "learning_rate", "epoch")


class Status:
    """The newest status as the API takes it; a sink."""

    def __init__(self) -> None:
        self._progress: dict[str, int] = {}
        self._metrics: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        data = event.data
        if event.kind == "progress" and data.get("total"):
            share = 100 * data["done"] / data["total"]
            self._progress = {"progressPercentage": max(0, min(int(share), 100))}
            if data.get("eta") is not None:
                self._progress["estimatedRemainingSeconds"] = max(0, int(data["eta"]))
            if data.get("tokens_per_second") is not None:
                self._metrics["tokens_per_second"] = str(data["tokens_per_second"])
        elif event.kind == "metric":
            self._metrics |= {name: str(data[name]) for name in SHOWN if data.get(name) is not None}

    def body(self, now: datetime) -> dict[str, Any]:
        metrics = [{"name": name, "value": value} for name, value in sorted(self._metrics.items())]
        told = {**self._progress, **({"metrics": metrics} if metrics else {})}
        return {"trainerStatus": {**told, "lastUpdatedTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")}}


@contextmanager
def reporting(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[Sink, ...]]:
    """The sink of this process, if it is the first one of a TrainJob that wants to be told; what is left goes out last.

    Never raises: a status is worth no training.
    """
    asked = next(({name: environ.get(f"{one}{name}", "") for name in ("URL", "TOKEN", "CA_CERT")}
                  for one in PREFIXES if environ.get(f"{one}URL")), None)  # fmt: skip
    # A token goes over TLS only.
    if asked is None or environ.get("RANK", "0") != "0" or not asked["URL"].startswith("https://"):
        yield ()
        return
    poster = _Poster(asked)
    try:
        yield (poster.take,)
    finally:
        poster.close()


class _Poster:
    def __init__(self, asked: Mapping[str, str]) -> None:
        self._asked = asked
        self._status, self._lock = Status(), threading.Lock()
        self._news, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self, event: Event) -> None:
        with self._lock:
            self._status(event)
        self._news.set()

    def close(self) -> None:
        self._over.set()
        self._news.set()
        self._thread.join(2 * EVERY)

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()  # before the look at the end, so that no wake-up is lost
            over = self._over.is_set()
            self._post()
            if over:
                return
            self._over.wait(EVERY)

    def _post(self) -> None:
        import httpx2

        with self._lock:
            body = self._status.body(datetime.now(UTC))
        try:
            token = Path(self._asked["TOKEN"]).read_text(encoding="utf-8").strip()  # read again: it is renewed
            context = ssl.create_default_context(cafile=self._asked["CA_CERT"] or None)
            headers = {"Authorization": f"Bearer {token}"}
            with httpx2.Client(verify=context, timeout=EVERY, trust_env=False) as client:
                client.post(self._asked["URL"], json=body, headers=headers)
        except (OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL):
            return  # the next one may get through
