"""Models in an object store: moto's server, another program, over HTTP. Left out where boto3 or moto is missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lamp import EXTRA, Run, files_below, model_files

from ilab.config import WebWhere, load
from ilab.core.events import Bus
from ilab.errors import InputError, ServiceError
from ilab.resolvers import registry_address
from ilab.training.base import base_folder, find_base
from ilab.transfer import base_model
from ilab.transfer import fetch as fetching
from ilab.transfer.open import Access
from ilab.transfer.stores import latest_of, open_store

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    home = tmp_path_factory.mktemp("moto")
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A client of boto3's own; the bucket ``lamps`` is new."""
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="lamps")
    yield client
    for one in client.list_objects_v2(Bucket="lamps").get("Contents", []):
        client.delete_object(Bucket="lamps", Key=one["Key"])
    client.delete_bucket(Bucket="lamps")


def test_what_was_uploaded_comes_back(ilab: Run, models: Path, tmp_path: Path, store: Any, endpoint: str) -> None:
    source = tmp_path / "lamp"
    source.mkdir()
    for name, content in {**model_files(), "optimizer.pt": b"\x80"}.items():
        (source / name).write_bytes(content)
    ilab("model", "upload", "-m", "lamp", "--dest-type", "s3", "-d", "lamps", "--s3-endpoint", endpoint)
    keys = {one["Key"]: one["LastModified"] for one in store.list_objects_v2(Bucket="lamps")["Contents"]}
    assert sorted(keys) == sorted(f"lamp/{name}" for name in model_files())
    ilab("model", "upload", "-m", "lamp", "-d", "s3://lamps/lamp", "--s3-endpoint", endpoint)
    assert keys == {one["Key"]: one["LastModified"] for one in store.list_objects_v2(Bucket="lamps")["Contents"]}
    ilab("model", "download", "-rp", "s3://lamps/lamp", "--s3-endpoint", endpoint)
    assert files_below(models / "lamp") == model_files()
    assert "here already" in ilab("model", "download", "-rp", "s3://lamps/lamp", "--s3-endpoint", endpoint).output


def test_objects_of_others_are_taken_and_go_on_where_they_were(
    ilab: Run, models: Path, store: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    for name, content in {**model_files(), **EXTRA}.items():
        store.put_object(Bucket="lamps", Key=f"deep/lamp/{name}", Body=content)
    dry = json.loads(ilab("--json", "model", "download", "-rp", "s3://lamps/deep/lamp", "--dry-run").stdout)
    assert dry[0]["files"] == {name: len(content) for name, content in model_files().items()}
    from ilab.config import WebWhere
    from ilab.transfer.address import parse
    from ilab.transfer.s3 import Bucket
    from ilab.transfer.shelf import Shelf

    listing = Bucket(parse("s3://lamps/deep/lamp"), "", WebWhere()).listing()
    [weights] = [file for file in listing.files if file.name == "model.safetensors"]
    part = Shelf(models).partial("lamp") / f"{weights.key}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(model_files()["model.safetensors"][:70_000])
    done = json.loads(ilab("--json", "model", "download", "-rp", "s3://lamps/deep/lamp").stdout)
    assert done[0]["received"] == dry[0]["missing"] - 70_000
    assert files_below(models / "lamp") == model_files()


def test_a_wrong_beginning_is_noticed_by_md5(
    ilab: Run, models: Path, store: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest comes, the whole is wrong, so all of it is asked for again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setattr(fetching, "_pause", lambda error, tries: 0.0)
    for name, content in model_files().items():
        store.put_object(Bucket="lamps", Key=f"lamp/{name}", Body=content)
    from ilab.config import WebWhere
    from ilab.transfer.address import parse
    from ilab.transfer.s3 import Bucket
    from ilab.transfer.shelf import Shelf

    listing = Bucket(parse("s3://lamps/lamp"), "", WebWhere()).listing()
    [weights] = [file for file in listing.files if file.name == "model.safetensors"]
    assert weights.checksum.kind == "md5"
    part = Shelf(models).partial("lamp") / f"{weights.key}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(70_000))
    ilab("model", "download", "-rp", "s3://lamps/lamp")
    assert files_below(models / "lamp") == model_files()


def test_failures_say_what_to_do(
    ilab: Run, store: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="there is nothing there"):
        ilab("model", "download", "-rp", "s3://no-such-bucket/lamp", "--s3-endpoint", endpoint)
    with pytest.raises(InputError, match="there is nothing there"):
        ilab("model", "download", "-rp", "s3://lamps/lamp", "--s3-endpoint", endpoint)
    with pytest.raises(InputError, match="--s3-endpoint"):
        ilab("model", "download", "-rp", "s3://lamps/lamp", "--s3-endpoint", "nonsense")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ServiceError, match="cannot be used"):
        ilab("model", "download", "-rp", "s3://lamps/lamp", "--s3-endpoint", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(InputError, match="there are no keys") as caught:
        ilab("model", "download", "-rp", "s3://lamps/lamp", "--s3-endpoint", endpoint)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_a_base_model_in_a_bucket(
    ilab: Run, models: Path, tmp_path: Path, store: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects that carry their SHA-256 tell what they are; others are fetched to know it."""
    folder = tmp_path / "lamp"
    folder.mkdir()
    for name, content in model_files().items():
        (folder / name).write_bytes(content)
        store.put_object(Bucket="lamps", Key=f"plain/lamp/{name}", Body=content)
    ilab("model", "upload", "-m", "lamp", "-d", "s3://lamps/ours/lamp", "--s3-endpoint", endpoint)
    monkeypatch.setattr(base_model, "SMALL", 20_000)
    access = Access(WebWhere(), s3_endpoint=endpoint)
    local = find_base(str(folder), tmp_path)
    ours = find_base("s3://lamps/ours/lamp", tmp_path, access)
    plain = find_base("s3://lamps/plain/lamp", tmp_path, access)
    assert ours.digest == plain.digest == local.digest
    weights = len(model_files()["model.safetensors"])
    assert [(one.details or {})["missing"] for one in (ours, plain)] == [str(weights), "0"]
    for one in (ours, plain):
        assert files_below(base_folder(one, access, Bus().for_step("base"))) == model_files()


def test_a_store_by_its_address(
    ilab: Run, models: Path, tmp_path: Path, store: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "ilab.yaml").write_text(f"where: {{store: 's3://lamps/store/', s3_endpoint: '{endpoint}'}}\n")
    loaded = load(project)
    assert loaded.bucket == "s3://lamps/store"
    assert loaded.store.parent == tmp_path / "cache" / "instructlab" / "stores"
    assert registry_address(loaded) == "s3://lamps/store/registry.sqlite"
    given = load(project, flags={"where.registry": "lamps.sqlite"})
    assert registry_address(given) == str(project / "lamps.sqlite")
    given = load(project, flags={"where.registry": "s3://lamps/all.sqlite", "where.store": "results"})
    assert registry_address(given) == "s3://lamps/all.sqlite"
    other = load(project, flags={"where.s3_endpoint": "https://elsewhere.example"})
    assert other.store != loaded.store  # a bucket of the same name at another server
    opened = open_store(loaded)
    opened.memo("rows")
    assert latest_of(loaded, "items") == loaded.store / "latest" / "items"
    with pytest.raises(InputError, match="generated"):
        ilab("-C", str(project), "data", "list")
    with pytest.raises(InputError, match="is no place for a store"):
        open_store(load(project, flags={"where.store": "gs://lamps/store"}))
    with pytest.raises(InputError, match="no name of a bucket"):
        open_store(load(project, flags={"where.store": "s3://Lamps_/store"}))
