"""Two machines with a mirror each and one bucket: artifacts by their address, what is told while they come, leases."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from s3_server import KEYS, s3_server

from ilab.artifacts import Package
from ilab.config import Loaded, Where, load
from ilab.core import remote_files
from ilab.core.events import Bus, Event
from ilab.core.pipeline import Plan, build, read_pipeline
from ilab.core.remote_store import RemoteStore
from ilab.core.run import Engine
from ilab.core.step import Counts, Site, Step
from ilab.errors import SetupError
from ilab.nightly import lease_of
from ilab.packaging.previous import Releases, find_previous
from ilab.packaging.registry import Entry
from ilab.resolvers import package_of, registry_of
from ilab.transfer.s3_objects import S3Objects
from ilab.transfer.stores import artifact_at, open_store

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
WEIGHTS = 24 << 20  # more than is fetched in silence


class Pack(Step):
    """A package of a kind: a large file, and papers."""

    type: ClassVar[str] = "package"

    def run(self, *, out: Package, site: Site) -> Counts:
        from ilab.packaging.image import write_layout

        model = site.work / "model"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text("{}")
        header = b"{}".ljust(8)
        (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(WEIGHTS))
        write_layout(out.path, model, {"lineage.json": b'{"model": {"version": "0.1.0"}}'}, {}, "0.1.0")
        return {}


class Read(Step):
    """Reads a package."""

    type: ClassVar[str] = "read"

    def run(self, package: Package, *, out: Package, site: Site) -> Counts:
        return {"files": sum(path.is_file() for path in package.path.rglob("*"))}


class Machine:
    """A home of its own, in which the mirror lies."""

    def __init__(self, folder: Path, endpoint: str, bucket: str = "s3://lamps/store") -> None:
        folder.mkdir()
        settings = f"where: {{store: '{bucket}', s3_endpoint: '{endpoint}', cache: '{folder / 'cache'}'}}\n"
        (folder / "ilab.yaml").write_text(settings)
        self.loaded: Loaded = load(folder)
        self.events: list[Event] = []

    def plan(self) -> Plan:
        pipeline = self.loaded.base / "pack.yaml"
        pipeline.write_text("name: p\nsteps:\n  pack: {step: package}\n  read: {step: read, from: {package: pack}}\n")
        read = read_pipeline(pipeline, lambda name: self.loaded.base / name)
        return build(read, {"package": Pack, "read": Read}, {}, {})

    def run(self, until: str) -> Any:
        engine = Engine(open_store(self.loaded), Where(jobs=1), Bus([self.events.append]))
        try:
            return engine.run(self.plan().until(until))[until]
        finally:
            engine.close()

    def here(self) -> set[str]:
        """The types of artifacts that lie whole in the mirror."""
        return {path.parent.parent.name for path in self.loaded.store.glob("*/*/record.json")} - {"latest"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto")) as address:
        yield address


@pytest.fixture
def machines(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Machine, Machine]]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    one = boto3.client("s3", endpoint_url=endpoint)
    one.create_bucket(Bucket="lamps")
    yield Machine(tmp_path / "laptop", endpoint), Machine(tmp_path / "other", endpoint)
    for found in one.list_objects_v2(Bucket="lamps").get("Contents", []):
        one.delete_object(Bucket="lamps", Key=found["Key"])
    one.delete_bucket(Bucket="lamps")


def registered(machine: Machine) -> Entry:
    record = machine.run("pack")
    store = open_store(machine.loaded)
    uri = store.address(store.contents(record))
    return registry_of(machine.loaded).register(Entry(name="lamp", version="0.1.0", digest="sha256:a", uri=uri))


def test_a_package_is_found_by_whoever_has_the_store(machines: tuple[Machine, Machine]) -> None:
    laptop, other = machines
    entry = registered(laptop)
    assert entry.uri.startswith("s3://lamps/store/package/")
    found = registry_of(other.loaded).get("lamp")
    assert found == entry
    papers = package_of(other.loaded, entry, whole=False)
    assert (papers / "index.json").is_file() and other.here() == set()
    assert sum(path.stat().st_size for path in papers.rglob("*") if path.is_file()) < WEIGHTS / 2
    releases = Releases(lambda: registry_of(other.loaded), lambda one: package_of(other.loaded, one))
    there = find_previous("registry", other.loaded.base, releases, ("lamp", "0.2.0"))
    assert Path((there.details or {})["path"]).parent.parent == other.loaded.store and other.here() == {"package"}
    assert package_of(other.loaded, entry, whole=False) == package_of(other.loaded, entry), "whole as it is here"


def test_who_keeps_results_in_a_folder_opens_it_too(machines: tuple[Machine, Machine]) -> None:
    laptop, other = machines
    entry = registered(laptop)
    loaded = other.loaded.with_store("results")
    assert not loaded.bucket
    assert (package_of(loaded, entry) / "oci-layout").is_file()


def test_a_path_in_another_machines_mirror_is_understood(machines: tuple[Machine, Machine]) -> None:
    laptop, other = machines
    registered(laptop)
    [old] = laptop.loaded.store.glob("package/*/oci-layout")
    shutil.rmtree(laptop.loaded.store)  # it is the other machine's, and not here
    assert other.loaded.store.name == laptop.loaded.store.name
    assert artifact_at(other.loaded, str(old.parent)).parent.parent == other.loaded.store
    gone = str(old.parent.with_name("f" * 32))
    assert artifact_at(other.loaded, gone) == Path(gone) and not Path(gone).exists()
    elsewhere = artifact_at(other.loaded, f"/nowhere/{old.parent.name}")
    assert not elsewhere.exists()


def test_what_is_large_is_told_of_while_it_comes(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop, other = machines
    laptop.run("pack")
    laptop.events.clear()
    other.run("read")
    told = [event for event in other.events if event.kind == "progress"]
    assert {event.step for event in told} == {"read"} and told[-1].data["note"] == "fetching package from the store"
    assert (told[-1].data["done"], told[-1].data["total"], told[-1].data["unit"]) == (25, 25, "MB")
    assert [event.data["done"] for event in told] == sorted(event.data["done"] for event in told)
    monkeypatch.setattr(remote_files, "WORTH_TELLING", 1 << 30)
    shutil.rmtree(other.loaded.store)
    other.events.clear()
    record = open_store(other.loaded).latest("pack")
    assert record is not None
    open_store(other.loaded).contents(record, Bus([other.events.append]).for_step("read"))
    assert other.here() == {"package"} and other.events == [], "of little nothing is said"


def test_laptop_and_pod_make_no_nightly_build_at_once(machines: tuple[Machine, Machine]) -> None:
    laptop, other = machines
    held = lease_of(laptop.loaded, "team/lamp")
    try:
        with pytest.raises(SetupError, match="another nightly build of team/lamp is under way") as caught:
            lease_of(other.loaded, "team/lamp")
        assert "s3://lamps/store/nightly/team_lamp/lease.json" in caught.value.where
        lease_of(other.loaded, "chair").release()
    finally:
        held.release()
    lease_of(other.loaded, "team/lamp").release()


def test_a_store_that_takes_no_leases_is_not_a_build_under_way(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or people wait for a build that there is not."""
    write = S3Objects.write
    monkeypatch.setattr(S3Objects, "write", lambda self, name, data, **_: write(self, name, data))
    with pytest.raises(SetupError, match="ignores If-None-Match"):
        lease_of(machines[0].loaded, "team/lamp")


def test_who_waits_for_a_download_finds_its_folder_gone(machines: tuple[Machine, Machine]) -> None:
    """Whoever brought the result removes the folder, and with it the lock that others of this machine wait for."""
    laptop, other = machines
    laptop.run("pack")
    store = open_store(other.loaded)
    record = store.latest("pack")
    assert record is not None and isinstance(store, RemoteStore)
    coming = store.root / ".fetch" / f"package.{record.key}.{record.digest[:16]}"
    found: list[Path] = []
    with store._coming(coming.name):
        waiting = threading.Thread(target=lambda: found.append(store.contents(record)))
        waiting.start()
        time.sleep(0.3)  # it is at the lock
        shutil.rmtree(coming)
    waiting.join(timeout=60)
    assert found == [store.directory("package", record.key)]
