"""What `ilab doctor` and `ilab system df` tell of a store in a bucket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from s3_server import KEYS, lamps, s3_server

from ilab.cli.app import main
from ilab.config import Loaded, load
from ilab.core import objects
from ilab.doctor import Finding, store
from ilab.errors import InputError
from ilab.packaging.registry import Entry
from ilab.resolvers import registry_of

pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
KEY = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto")) as address:
        yield address


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "SHORT", 0.1)
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with lamps(endpoint) as one:
        yield one


def settled(folder: Path, endpoint: str, bucket: str = "lamps") -> Loaded:
    (folder / "ilab.yaml").write_text(f"where: {{store: 's3://{bucket}/store', s3_endpoint: '{endpoint}'}}\n")
    return load(folder)


def fill(client: Any) -> None:
    """Two results, one of them linked to the other, unfinished work, and what belongs to no result."""
    for name, size in {
        f"store/package/{KEY}/blobs/sha256/a": 3000,
        f"store/package/{KEY}/record.json": 100,
        f"store/train/{KEY}/record.json": 200,
        f"store/train/{KEY}.partial/work/x": 5000,
        "store/memo/teacher/a.jsonl": 40,
        "store/train/contents/abc": 7,
        "elsewhere/x": 999,
    }.items():
        client.put_object(Bucket="lamps", Key=name, Body=bytes(size))


def look(loaded: Loaded) -> Finding:
    [found] = store.bucket(loaded)
    return found


def test_a_bucket_that_can_be_used(client: Any, endpoint: str, tmp_path: Path) -> None:
    fill(client)
    before = client.list_objects_v2(Bucket="lamps")["KeyCount"]
    found = look(settled(tmp_path, endpoint))
    assert (found.state, found.name) == ("ok", "store in the bucket")
    assert "can be read and written, on conditions; 2 results" in found.found
    assert client.list_objects_v2(Bucket="lamps")["KeyCount"] == before, "what it was tried with is gone"
    assert list(store.bucket(load(tmp_path, flags={"where.store": "results"}))) == []


def test_a_bucket_that_cannot(client: Any, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.transfer.s3_objects import S3Objects

    missing = look(settled(tmp_path, endpoint, "nowhere"))
    assert missing.state == "bad" and "cannot be listed: there is nothing there" in missing.found
    assert "s3 mb" in missing.fix
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = look(settled(tmp_path, f"http://127.0.0.1:{free.getsockname()[1]}"))
    assert gone.state == "bad" and "s3://lamps/store cannot be listed" in gone.found and gone.fix
    write = S3Objects.write

    def refused(self: S3Objects, name: str, data: bytes, **more: Any) -> str:
        raise InputError("the store refuses access (AccessDenied)", where=name, hint="check what your keys may do")

    def careless(self: S3Objects, name: str, data: bytes, **more: Any) -> str:
        return write(self, name, data)

    monkeypatch.setattr(S3Objects, "write", refused)
    found = look(settled(tmp_path, endpoint))
    assert found.state == "bad" and "cannot be written: the store refuses access" in found.found
    assert found.fix == "check what your keys may do"
    monkeypatch.setattr(S3Objects, "write", careless)
    found = look(settled(tmp_path, endpoint))
    assert found.state == "bad" and "ignores If-None-Match and If-Match" in found.found


def test_the_registry_is_told_of(client: Any, endpoint: str, tmp_path: Path) -> None:
    loaded = settled(tmp_path, endpoint)
    for version in ("0.1.0", "0.2.0"):
        registry_of(loaded).register(Entry(name="lamp", version=version, digest=version, uri="oci:/p"))
    [found] = store.registry(loaded)
    assert (found.state, found.found) == ("ok", "s3://lamps/store/registry.sqlite: 2 versions of 1 models")
    (tmp_path / ".ilab").mkdir()
    (tmp_path / ".ilab" / "registry.sqlite").touch()
    earlier, found = store.registry(loaded)
    assert earlier.state == "note" and f"aws s3 cp {tmp_path}/.ilab/registry.sqlite s3://lamps/" in earlier.fix
    (tmp_path / ".ilab" / "registry.sqlite").unlink()
    client.put_object(Bucket="lamps", Key="store/registry.sqlite", Body=b"notes " * 100)
    [found] = store.registry(loaded)
    assert found.state == "bad" and "not a database" in found.found
    folder = load(tmp_path, flags={"where.store": "results", "where.registry": "none.sqlite"})
    assert list(store.registry(folder)) == [] and not (tmp_path / "none.sqlite").exists()


def test_df_tells_of_the_bucket(client: Any, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(client)
    settled(tmp_path, endpoint)
    monkeypatch.chdir(tmp_path)
    told = json.loads(CliRunner().invoke(main, ["--json", "system", "df"]).stdout)["bucket"]
    assert (told["address"], told["results"], told["bytes"]) == ("s3://lamps/store", 2, 8347)
    assert told["types"] == {
        "unfinished": {"results": 0, "bytes": 5000},
        "package": {"results": 1, "bytes": 3100},
        "train": {"results": 1, "bytes": 200},
        "other": {"results": 0, "bytes": 47},
    }
    said = CliRunner().invoke(main, ["system", "df"]).stdout
    assert "In the bucket s3://lamps/store: " in said and "2 results" in said and "ilab pipeline gc" in said
    settled(tmp_path, endpoint, "nowhere")
    away = CliRunner().invoke(main, ["system", "df"])
    assert away.exit_code == 0 and "not known: there is nothing there" in away.stdout
