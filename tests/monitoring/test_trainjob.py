"""The status that Kubeflow Trainer takes, sent over TLS to a server on loopback."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from status_server import Controller, environment, make_certificate, serving

from ilab.core.events import Event
from ilab.monitoring import reporting, trainjob

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
TRAINED = [
    Event("progress", "train", {"done": 25, "total": 100, "eta": 90.7, "tokens_per_second": 1200}, 1.0),
    Event("metric", "train", {"step": 25, "epoch": 1, "loss": 1.5, "learning_rate": 2e-5}, 1.0),
    Event("metric", "train", {"note": "for people"}, 1.0),
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder)
    return folder


@pytest.fixture
def controller(certificates: Path) -> Iterator[Controller]:
    with serving(certificates) as server:
        yield server


@pytest.mark.parametrize("prefix", trainjob.PREFIXES)
def test_the_last_status_arrives(controller: Controller, certificates: Path, prefix: str) -> None:
    with reporting(environment(controller, certificates, prefix)) as sinks:
        for event in TRAINED:
            for sink in sinks:
                sink(event)
    path, authorization, body = controller.got[-1]
    assert (path, authorization) == ("/apis/trainer/status", "Bearer sesame")
    status = body["trainerStatus"]
    assert status.pop("lastUpdatedTime").endswith("Z")
    assert status["progressPercentage"] == 25 and status["estimatedRemainingSeconds"] == 90
    told = {one["name"]: one["value"] for one in status["metrics"]}
    assert told == {"loss": "1.5", "learning_rate": "2e-05", "epoch": "1", "tokens_per_second": "1200"}


def test_the_body_is_what_the_api_takes() -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models")
    status = trainjob.Status()
    for event in TRAINED:
        status(event)
    from datetime import UTC, datetime

    body = json.loads(json.dumps(status.body(datetime.now(UTC))))
    kept = models.TrainerV1alpha1UpdateTrainJobStatusRequest.from_dict(body).to_dict()
    assert set(kept["trainerStatus"]) == set(body["trainerStatus"])  # from_dict drops what it does not know


def test_many_events_are_few_posts(controller: Controller, certificates: Path) -> None:
    with reporting(environment(controller, certificates)) as (sink,):
        for done in range(500):
            sink(Event("progress", "train", {"done": done, "total": 500}, 1.0))
    assert len(controller.got) <= 3
    assert controller.got[-1][2]["trainerStatus"]["progressPercentage"] == 99


@pytest.mark.parametrize("wrong", ["refused", "untrusted", "no token", "nobody", "no address"])
def test_nothing_that_fails_reaches_the_training(controller: Controller, certificates: Path, wrong: str) -> None:
    given = environment(controller, certificates)
    url, token, ca = given
    if wrong == "refused":
        controller.code = 403
    elif wrong == "untrusted":
        given[ca] = ""
    elif wrong == "no token":
        given[token] = "/nowhere"
    elif wrong == "nobody":
        given[url] = "https://127.0.0.1:1/"
    else:
        given[url] = "https://[oops/"
    with reporting(given) as (sink,):
        sink(TRAINED[0])
    assert bool(controller.got) == (wrong == "refused")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"KUBEFLOW_TRAINER_SERVER_URL": "http://127.0.0.1/plain", "KUBEFLOW_TRAINER_SERVER_TOKEN": "/t"},
        {"KUBEFLOW_TRAINER_SERVER_URL": "https://127.0.0.1/", "RANK": "1"},
    ],
)
def test_nobody_is_told_who_did_not_ask_or_twice(environ: dict[str, str]) -> None:
    before = threading.active_count()
    with reporting(environ) as sinks:
        assert sinks == () and threading.active_count() == before
