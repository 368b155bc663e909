"""The shipped pipeline, compiled once; a bucket."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from on_kubeflow import documents, made, shipped


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return documents(made(shipped()), tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The bucket ``runs`` of a server in this process, which the environment leads to."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    # What one server kept the next one has, too, in the same process.
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}"}
    for name, value in {**keys, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    try:
        yield boto3.resource("s3").create_bucket(Bucket="runs")
    finally:
        server.stop()
