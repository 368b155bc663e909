"""A registry in a bucket, changed by machines that share nothing else."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import registry_machine
from registry_machine import entry
from s3_server import KEYS, lamps, s3_server

import ilab
from ilab.config import WebWhere, Where
from ilab.core import objects
from ilab.core.objects import Facts
from ilab.errors import InputError, ServiceError, SetupError
from ilab.packaging import registry_object
from ilab.packaging.registry import Registry, open_registry
from ilab.packaging.registry_object import RegistryObject
from ilab.packaging.registry_schema import SCHEMA
from ilab.packaging.stages import Stages

pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
ADDRESS = "s3://lamps/team/registry.sqlite"
NAME = "team/registry.sqlite"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto")) as address:
        yield address


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "PATIENCE", 1.0)
    with lamps(endpoint) as one:
        yield one


def opened(endpoint: str) -> Registry:
    return open_registry(ADDRESS, Where(s3_endpoint=endpoint))


def names(client: Any) -> list[str]:
    return [one["Key"] for one in client.list_objects_v2(Bucket="lamps").get("Contents", [])]


def machine(endpoint: str, task: str, who: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(ilab.__file__).parents[1])}
    command = [sys.executable, registry_machine.__file__, ADDRESS, endpoint, task, who]
    return subprocess.Popen(command, env=environment)


def test_what_one_machine_registers_the_other_finds(client: Any, endpoint: str) -> None:
    here, there = opened(endpoint), opened(endpoint)
    assert there.list() == () and names(client) == [], "reading makes nothing"
    kept = here.register(entry("0.1.0"))
    assert there.get("lamp") == kept
    Stages(there).alias("lamp", "0.1.0", "stable")
    assert Stages(here).find("lamp", "stable") == kept
    assert names(client) == [NAME], "nothing else is left in the bucket"
    assert here.where == ADDRESS


def test_a_reader_downloads_what_changed_and_nothing_else(
    client: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ilab.transfer.s3_objects import S3Objects

    sizes: list[int] = []
    get = S3Objects.get

    def counting(self: S3Objects, name: str, *, unless: str = "") -> tuple[bytes, Facts] | None:
        found = get(self, name, unless=unless)
        sizes.append(len(found[0]) if found else -1)
        return found

    opened(endpoint).register(entry("0.1.0"))
    reader = opened(endpoint)
    monkeypatch.setattr(S3Objects, "get", counting)
    assert [len(reader.list()) for _ in range(3)] == [1, 1, 1]
    assert sizes[0] > 4096 and sizes[1:] == [0, 0]
    opened(endpoint).register(entry("0.2.0"))
    assert len(reader.list()) == 2 and sizes[-1] > 4096


def test_a_change_that_changes_nothing_uploads_nothing(client: Any, endpoint: str) -> None:
    stages = Stages(opened(endpoint))
    stages.registry.register(entry("0.1.0"))
    stages.alias("lamp", "0.1.0", "stable")
    before = client.head_object(Bucket="lamps", Key=NAME)["LastModified"], stages.history("lamp")
    time.sleep(1.1)
    stages.alias("lamp", "0.1.0", "stable")
    with pytest.raises(InputError, match="not registered"):
        stages.promote("lamp", "0.9.0", "production")
    assert (client.head_object(Bucket="lamps", Key=NAME)["LastModified"], stages.history("lamp")) == before


def test_machines_change_it_at_once_and_nothing_is_lost(client: Any, endpoint: str) -> None:
    rounds, machines = 3, ("1", "2", "3")
    running = [machine(endpoint, str(rounds), who) for who in machines]
    assert [process.wait(timeout=300) for process in running] == [0] * len(machines)
    stages = Stages(opened(endpoint))
    entries = {one.version: one for one in stages.registry.list()}
    assert len(entries) == rounds * len(machines)
    assert {version for version, one in entries.items() if one.recalled} == {f"{who}.0.0" for who in machines}
    assert stages.aliases("lamp") == {f"of-{who}": f"{who}.1.0" for who in machines}
    assert [one.stage for one in entries.values()].count("production") == 1
    told = Counter(one.what for one in stages.history("lamp"))
    each = rounds * len(machines)
    assert (told["registered"], told["promoted"], told["aliased"]) == (each, each, each + len(machines))
    assert told["recalled"] == len(machines)
    assert names(client) == [NAME]


def test_who_is_killed_before_the_upload_leaves_what_was_there(client: Any, endpoint: str, tmp_path: Path) -> None:
    registry = opened(endpoint)
    registry.register(entry("0.1.0"))
    before = client.get_object(Bucket="lamps", Key=NAME)["Body"].read()
    process = machine(endpoint, "hang", str(tmp_path / "hang"))
    while not (tmp_path / "hang").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert client.get_object(Bucket="lamps", Key=NAME)["Body"].read() == before
    assert [one.version for one in registry.list()] == ["0.1.0"]


def test_who_was_slower_begins_again_with_the_others_work(client: Any, endpoint: str, tmp_path: Path) -> None:
    process = machine(endpoint, "hang", str(tmp_path / "hang"))  # the first: there is no object yet
    while not (tmp_path / "hang").exists():
        assert process.poll() is None
        time.sleep(0.05)
    opened(endpoint).register(entry("0.1.0"))
    (tmp_path / "hang").unlink()
    while not (tmp_path / "hang").exists():  # the second try
        assert process.poll() is None
        time.sleep(0.02)
    (tmp_path / "hang").unlink()
    assert process.wait(timeout=60) == 0
    assert [one.version for one in opened(endpoint).list()] == ["0.1.0", "9.0.0"]


class Losing:
    """Objects whose ``write`` happens, while its answer gets lost: what ``patiently`` tries again finds it done."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.lost, self.address = inner, 0, inner.address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, name: str, data: bytes, *, absent: bool = False, match: str = "") -> str:
        etag: str = self._inner.write(name, data, absent=absent, match=match)
        if etag and name == "registry.sqlite" and self.lost:
            self.lost -= 1
            raise ServiceError("the answer got lost", where=name, retryable=True)
        return etag


def bucket(endpoint: str) -> Any:
    from ilab.transfer.address import parse
    from ilab.transfer.s3_objects import S3Objects

    return S3Objects(parse("s3://lamps/team"), endpoint, WebWhere())


def test_a_change_whose_answer_got_lost_is_not_made_twice(
    client: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PATIENCE", 20.0)
    losing = Losing(bucket(endpoint))
    stages = Stages(Registry(RegistryObject(losing, "registry.sqlite")))
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        losing.lost = 1
        stages.registry.register(entry(version))
        stages.promote("lamp", version, "production")
    losing.lost = 1
    left, now = stages.rollback("lamp")
    assert (losing.lost, left.version, now.version) == (0, "0.3.0", "0.2.0"), "one back, not two"
    assert stages.find("lamp", "production").version == "0.2.0"
    assert len(stages.history("lamp")) == 3 + 3 + 2 + 2  # registered, promoted, archived, and the way back


class Never(Losing):
    """Somebody is always faster."""

    def write(self, name: str, data: bytes, *, absent: bool = False, match: str = "") -> str:
        if name == "registry.sqlite":
            return ""
        return str(self._inner.write(name, data, absent=absent, match=match))


def test_who_never_gets_a_turn_is_told_so(client: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_object, "WAIT", 0.3)
    with pytest.raises(SetupError, match="others changed the model registry") as caught:
        Registry(RegistryObject(Never(bucket(endpoint)), "registry.sqlite")).register(entry("0.1.0"))
    assert caught.value.where == ADDRESS and caught.value.hint


class Careless(Losing):
    """A server that passes over conditions; which, says ``ignored``."""

    ignored = ""

    def write(self, name: str, data: bytes, *, absent: bool = False, match: str = "") -> str:
        kept = {"absent": absent, "match": match} | {self.ignored: "" if self.ignored == "match" else False}
        return str(self._inner.write(name, data, **kept))


@pytest.mark.parametrize(("ignored", "named"), [("absent", "If-None-Match"), ("match", "If-Match")])
def test_a_server_that_passes_over_conditions_is_refused(client: Any, endpoint: str, ignored: str, named: str) -> None:
    careless = Careless(bucket(endpoint))
    careless.ignored = ignored
    registry = Registry(RegistryObject(careless, "registry.sqlite"))
    with pytest.raises(SetupError, match=f"ignores {named}"):
        registry.register(entry("0.1.0"))
    assert names(client) == [], "the object that it was tried with is gone"


def test_objects_that_are_no_registry(client: Any, endpoint: str, tmp_path: Path) -> None:
    registry = opened(endpoint)
    registry.register(entry("0.1.0"))
    whole = client.get_object(Bucket="lamps", Key=NAME)["Body"].read()
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    newer = bytearray(whole)
    newer[60:64] = (99).to_bytes(4, "big")  # user_version
    with closing(sqlite3.connect(tmp_path / "loose.db")) as connection:
        connection.executescript(SCHEMA.replace(" STRICT", "").replace("NOT NULL", ""))
        connection.execute("INSERT INTO entries (name, version) VALUES ('lamp', '0.1.0')")
        connection.execute("INSERT INTO current VALUES ('lamp', '0.1.0', 1)")
        connection.commit()
    with closing(sqlite3.connect(tmp_path / "view.db")) as connection:
        connection.executescript(
            f"{SCHEMA} CREATE TRIGGER again AFTER INSERT ON changes BEGIN DELETE FROM aliases; END;"
        )
    wrong = {
        "not those that ilab makes": (tmp_path / "loose.db").read_bytes(),
        "its tables are not": (tmp_path / "view.db").read_bytes(),
        "not a database": b"these are notes, and not a database at all " * 10,
        "malformed": whole[: len(whole) // 2],
        "no model registry": other.read_bytes(),
        "schema version 99": bytes(newer),
        "cannot be used": b"",
    }
    for message, body in wrong.items():
        client.put_object(Bucket="lamps", Key=NAME, Body=body)
        for use in (opened(endpoint).list, lambda: opened(endpoint).register(entry("0.2.0"))):
            with pytest.raises(SetupError, match=message) as caught:
                use()
            assert caught.value.where == ADDRESS
        assert client.get_object(Bucket="lamps", Key=NAME)["Body"].read() == body, "it is left as it is"


def test_a_file_may_be_brought_into_a_bucket(client: Any, endpoint: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    Registry(path).register(entry("0.1.0"))
    client.upload_file(str(path), "lamps", NAME)
    registry = opened(endpoint)
    assert [one.version for one in registry.list()] == ["0.1.0"]
    registry.register(entry("0.2.0"))
    client.download_file("lamps", NAME, str(tmp_path / "back.sqlite"))
    assert len(Registry(tmp_path / "back.sqlite").list()) == 2


@pytest.mark.parametrize("address", ["gs://lamps/registry.sqlite", "s3://lamps", "s3://lamps/team/", "s3:///x"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InputError, match="is no place for a registry"):
        open_registry(address, Where())


def test_a_bucket_that_is_not_there(client: Any, endpoint: str) -> None:
    registry = open_registry("s3://nowhere/registry.sqlite", Where(s3_endpoint=endpoint))
    for use in (registry.list, lambda: registry.register(entry("0.1.0"))):
        with pytest.raises(InputError, match="nothing there"):
            use()
