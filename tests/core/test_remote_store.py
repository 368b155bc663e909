"""A store in a bucket, shared by machines that have a mirror each. The server is moto's, a program of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from bucket import plan_for, store_at

from ilab.config import Where
from ilab.core import objects, remote_lease, remote_work
from ilab.core.files import write_text
from ilab.core.remote_lease import RemoteLease, is_held_remotely
from ilab.core.remote_store import RemoteStore
from ilab.core.remote_work import Work
from ilab.core.run import Engine
from ilab.core.store import RecordFile, digest_tree
from ilab.errors import InputError, ServiceError, SetupError

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = serve(port, tmp_path_factory.mktemp("moto"))
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


def serve(port: int, home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    wait_for(answers)
    return process


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Machine:
    """A mirror of its own."""

    def __init__(self, root: Path, endpoint: str, source: Path) -> None:
        self.root, self.endpoint, self.source = root, endpoint, source

    @property
    def store(self) -> RemoteStore:
        return store_at(self.root, self.endpoint)

    def run(self, times: int = 5, **more: Any) -> dict[str, RecordFile]:
        toy.CALLS.clear()
        engine = Engine(self.store, Where(jobs=1))
        try:
            return engine.run(plan_for(self.source, times), **more)
        finally:
            engine.close()

    def states(self) -> set[str]:
        return {one.state for one in Engine(self.store, Where()).preview(plan_for(self.source))}

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(HERE / "bucket.py"), str(self.root), self.endpoint, str(self.source)]
        return subprocess.Popen(command, cwd=self.source.parent, stderr=subprocess.DEVNULL)


class Place:
    """A bucket, and machines that share it."""

    def __init__(self, root: Path, endpoint: str) -> None:
        self.root, self.endpoint = root, endpoint
        self.client = boto3.client("s3", endpoint_url=endpoint)
        self.source = root / "source.txt"
        self.source.write_text("# note\nx\n")

    def machine(self, name: str) -> Machine:
        return Machine(self.root / name, self.endpoint, self.source)

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket="toys").get("Contents", [])
        return [one["Key"].removeprefix("store/") for one in found]

    def corrupt(self, name: str, body: bytes) -> None:
        self.client.put_object(Bucket="toys", Key=f"store/{name}", Body=body)


@pytest.fixture
def place(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(objects, "PATIENCE", 1.0)
    monkeypatch.setattr(objects, "SHORT", 0.1)
    one = Place(tmp_path, endpoint)
    one.client.create_bucket(Bucket="toys")
    yield one
    for name in one.names():
        one.client.delete_object(Bucket="toys", Key=f"store/{name}")
    one.client.delete_bucket(Bucket="toys")


def test_two_machines_share_results_and_fetch_what_they_read(place: Place) -> None:
    first = place.machine("a").run()
    assert toy.CALLS == ["load", "strip", "join"]
    second = place.machine("b")
    assert second.states() == {"reuse"}
    assert second.run() == first
    assert toy.CALLS == []
    assert not list((place.root / "b").glob("*/*/record.json"))  # nothing was read, so nothing was fetched
    assert second.run(times=3)["slow"].inputs == first["slow"].inputs
    assert toy.CALLS == ["join"]
    fetched = {path.parent.parent.name for path in (place.root / "b").glob("*/*/record.json")}
    assert fetched == {"strip", "slow", "join", "latest"}  # strip was read, the others were made
    for type_, key in ((one.type, one.key) for one in first.values()):
        record = second.store.record(type_, key)
        assert record is not None
        assert digest_tree(second.store.contents(record)) == record.digest
    assert second.store.latest("join") != first["join"]
    assert place.machine("a").store.latest("join") == second.store.latest("join")


def test_the_bucket_outlives_its_mirrors(place: Place) -> None:
    machine = place.machine("a")
    first = machine.run()
    shutil.rmtree(machine.root)
    assert machine.run() == first
    assert toy.CALLS == []
    assert (machine.store.contents(first["join"]) / "text.txt").read_text().startswith("a=x")


def test_a_comment_is_linked_on_another_machine_without_fetching(place: Place) -> None:
    before = place.machine("a").run()
    place.source.write_text("# another note\nx\n")
    other = place.machine("b")
    after = other.run()
    assert toy.CALLS == ["load", "strip"]
    assert after["join"].linked_to == before["join"].key
    third = place.machine("c").store
    record = third.record("join", after["join"].key)
    assert record == after["join"]
    assert digest_tree(third.contents(record)) == record.digest
    text = (other.store.contents(after["join"]) / "text.txt").read_text()
    assert (other.root / "join" / after["join"].key / "text.txt").read_text() == text


def test_a_run_that_is_killed_in_the_middle_of_a_step_goes_on_elsewhere(place: Place) -> None:
    (place.root / "stop").touch()
    process = place.machine("a").start()
    wait_for(lambda: [name for name in place.names() if name.endswith("work.json")])
    wait_for(lambda: [name for name in place.names() if name.startswith("memo/rows/")])
    slow = next(name.partition("/work.json")[0] for name in place.names() if name.endswith("work.json"))
    cursor = next((place.root / "a" / "slow").glob("*.partial/work/state/cursor.txt"))
    wait_for(lambda: cursor.read_text() == "3")
    mark = cursor.parents[2] / "sent.json"
    sent = mark.read_text()
    wait_for(lambda: (mark.read_text() != sent) or _work_says(place, "3"))
    assert is_held_remotely(place.machine("b").store.objects, f"{slow}/lease.json")
    with pytest.raises(SetupError, match="is already making this result"):
        place.machine("b").run()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (place.root / "stop").unlink()
    counts = place.machine("b").run()["slow"].counts
    assert toy.CALLS == ["join"]
    assert counts["begun"] == 3
    assert place.machine("b").store.memo("rows").exists()
    assert not [name for name in place.names() if ".partial/" in name]
    again = place.machine("a").run()
    assert toy.CALLS == []
    assert again["slow"].counts == counts


def _work_says(place: Place, text: str) -> bool:
    blobs = [name for name in place.names() if ".partial/work/" in name]
    bodies = [place.client.get_object(Bucket="toys", Key=f"store/{name}")["Body"].read() for name in blobs]
    return text.encode() in bodies


def test_item_level_answers_are_shared(place: Place) -> None:
    first = place.machine("a").run()
    assert first["slow"].counts == {"begun": 0, "written": 5, "found": 0}
    second = place.machine("b").run(times=7)
    assert second["slow"].counts == {"begun": 0, "written": 2, "found": 5}
    third = place.machine("a").run(times=8)
    assert third["slow"].counts == {"begun": 0, "written": 1, "found": 7}
    assert len([name for name in place.names() if name.startswith("memo/rows/")]) == 3


def test_an_upload_that_is_killed_is_not_visible_and_is_made_good(place: Place) -> None:
    (place.root / "hang").write_text("strip/")
    machine = place.machine("a")
    process = machine.start()
    wait_for(lambda: [name for name in place.names() if name.startswith("strip/") and name.endswith("files.json")])
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert {one.type for one in place.machine("b").store.records()} == {"load"}
    (place.root / "hang").unlink()
    machine.run()
    assert toy.CALLS == ["join"]  # strip was kept here, and is sent by the run that needs it
    assert {one.type for one in place.machine("b").store.records()} == {"load", "strip", "slow", "join"}


def test_a_server_that_is_gone_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = place.machine("a")
    put = type(machine.store.objects).put
    tries: list[str] = []

    def away(self: Any, name: str, path: Path, sha256: str = "") -> None:
        tries.append(name)
        if len(tries) < 3:
            raise ServiceError("the store cannot be used", retryable=True)
        put(self, name, path, sha256)

    monkeypatch.setattr(type(machine.store.objects), "put", away)
    monkeypatch.setattr(objects, "PATIENCE", 10.0)
    machine.run()
    assert len(tries) > 4
    monkeypatch.setattr(objects, "PATIENCE", 0.0)
    gone = Machine(machine.root, "http://127.0.0.1:9", place.source)
    with pytest.raises(ServiceError) as caught:
        gone.run()
    assert "kept on this machine" in caught.value.hint
    assert machine.states() == {"reuse"}


def test_bytes_that_are_not_those_of_the_record_are_found(place: Place) -> None:
    made = place.machine("a").run()["strip"]
    name = f"strip/{made.key}"
    place.corrupt(f"{name}/text.txt", b"y\n")
    store = place.machine("b").store
    with pytest.raises(ServiceError, match="its checksum is wrong") as caught:
        store.contents(made)
    assert "--force" in caught.value.hint
    assert not (place.root / "b" / name).exists()
    place.corrupt(f"{name}/files.json", b'{"../../evil": [2, "00"]}')
    with pytest.raises(ServiceError, match="leads elsewhere"):
        store.contents(made)
    place.corrupt(f"{name}/files.json", b'{"text.txt": [2, "00"]}')
    with pytest.raises(ServiceError, match="not the one that the record speaks of"):
        store.contents(made)
    place.machine("a").run(force=frozenset({"strip"}))
    assert (place.machine("b").store.contents(made) / "text.txt").read_text() == "x\n"
    place.corrupt(f"{name}/record.json", b"{}")
    with pytest.raises(SetupError, match="cannot be read"):
        place.machine("b").store.record("strip", made.key)


def test_a_download_that_was_cut_goes_on_where_it_was(place: Place) -> None:
    place.source.write_bytes(os.urandom(1 << 20).hex().encode())
    made = place.machine("a").run()["load"]
    store = place.machine("b").store
    whole = (place.root / "a" / "load" / made.key / "text.txt").read_bytes()
    asked: list[int] = []
    stream = store.objects.stream

    def cut(name: str, start: int) -> Any:
        asked.append(start)
        if len(asked) == 1:
            return First(stream(name, start), 5000)
        return stream(name, start)

    store.objects.stream = cut  # type: ignore[method-assign]
    assert (store.contents(made) / "text.txt").read_bytes() == whole
    assert asked == [0, 5000]


class First:
    """The beginning of a stream."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._most = stream, most

    def __enter__(self) -> Iterator[bytes]:
        return iter([next(self._stream.__enter__())[: self._most]])

    def __exit__(self, *error: Any) -> None:
        self._stream.__exit__(*error)


def test_a_lease_is_held_by_one_renewed_and_taken_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.machine("a").store
    monkeypatch.setattr(remote_lease, "BEAT", 0.05)
    name = "slow/k.partial/lease.json"
    lease = RemoteLease(store.objects, name)
    etag = store.objects.get(name)[1].etag  # type: ignore[index]
    wait_for(lambda: store.objects.get(name)[1].etag != etag)  # type: ignore[index]
    with pytest.raises(SetupError, match="is already making"):
        RemoteLease(store.objects, name)
    lease.check()
    place.corrupt(name, b'{"host": "elsewhere", "pid": 1, "id": "z"}')
    wait_for(lambda: lease._lost)
    monkeypatch.setattr(remote_lease, "BEAT", 60.0)
    with pytest.raises(ServiceError, match="took this over"):
        lease.check()
    lease.release()
    with pytest.raises(SetupError, match="process 1 on elsewhere"):
        RemoteLease(store.objects, name)
    monkeypatch.setattr(remote_lease, "STALE", -1.0)
    after = RemoteLease(store.objects, name)
    after.release()
    assert store.objects.get(name) is None


def test_a_server_without_conditions_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.machine("a").store
    write = store.objects.write
    monkeypatch.setattr(store.objects, "write", lambda name, data, **_: write(name, data))
    with pytest.raises(SetupError, match="ignores If-None-Match"):
        RemoteLease(store.objects, "slow/k.partial/lease.json")


def test_work_is_sent_once_and_only_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.machine("a").store
    partial = place.root / "partial"
    (partial / "work" / "state-1").mkdir(parents=True)
    (partial / "work" / "state-1" / "weights").write_bytes(b"w" * 100)
    (partial / "work" / ".state-2").mkdir()
    (partial / "work" / ".state-2" / "weights").write_bytes(b"half")
    monkeypatch.setattr(remote_work, "SMALL", 50)  # what is larger is linked
    work = Work(store.objects, "slow/k.partial", partial)
    work.send()
    names = place.names()
    assert len(names) == 2
    (partial / "work" / "log").write_text("a line\n")
    work.send(now=True)
    assert set(names) < set(place.names())
    shutil.rmtree(partial / "work" / "state-1")
    work.send(now=True)
    assert len(place.names()) == 2  # what is no longer part of it has gone
    other = place.root / "other"
    (other / "work").mkdir(parents=True)
    (other / "work" / "older").touch()
    Work(store.objects, "slow/k.partial", other).restore()
    assert {path.name: path.read_text() for path in (other / "work").iterdir()} == {"log": "a line\n"}
    (other / "work" / "log").write_text("two lines\n")
    Work(store.objects, "slow/k.partial", other).restore()  # sent from here: what was done since is not thrown away
    assert (other / "work" / "log").read_text() == "two lines\n"


def test_work_that_never_rests_is_sent_all_the_same(place: Place) -> None:
    """A log that grows all the time, and a state that is replaced: each snapshot is what lay there at one moment."""
    store = place.machine("a").store
    partial, other = place.root / "partial", place.root / "other"
    (partial / "work").mkdir(parents=True)
    (other / "work").mkdir(parents=True)
    stop = threading.Event()

    def grow() -> None:
        with (partial / "work" / "log").open("a") as log:
            for number in range(1_000_000):
                log.write(f"{number}\n")
                log.flush()
                write_text(partial / "work" / "state", f"{number}\n" * 1000)
                if stop.is_set():
                    return

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        work = Work(store.objects, "slow/k.partial", partial)
        wait_for((partial / "work" / "state").exists)

        def sent() -> bool:
            work.send(now=True)
            return any(name.endswith("work.json") for name in place.names())

        wait_for(sent)
    finally:
        stop.set()
        thread.join()
    Work(store.objects, "slow/k.partial", other).restore()
    log, state = ((other / "work" / name).read_text().split() for name in ("log", "state"))
    assert len(state) == 1000
    assert int(state[0]) in (len(log) - 2, len(log) - 1)


def test_runs_and_rubbish(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, other = place.machine("a"), place.machine("b")
    record = machine.run()["join"]
    store = machine.store
    run = store.root / "runs" / f"2030-01-01T00-00-00.001{store.label}"
    run.mkdir(parents=True)
    (run / "events.jsonl").write_text("one\n")
    store.close()
    seen = other.store
    assert [path.read_text() for path in seen.runs("events.jsonl", newest=1)] == ["one\n"]
    (run / "events.jsonl").write_text("one\ntwo\n")
    store.close()
    assert [path.read_text() for path in seen.runs("events.jsonl")] == ["one\ntwo\n"]
    seen.close()
    partial = place.root / "partial"
    (partial / "work").mkdir(parents=True)
    (partial / "work" / "log").write_text("four")
    Work(store.objects, f"slow/{'0' * 32}.partial", partial).send()
    [abandoned] = seen.partials()
    assert (seen.size(abandoned) > 4, seen.held(abandoned)) == (True, False)
    seen.remove_partial(abandoned)
    assert not other.store.partials()
    monkeypatch.setattr("ilab.core.remote_store.NEWEST", 1)
    for name in ("a/plan.json", "a/ilab.yaml", "b/plan.json"):
        store.objects.write(f"kubeflow/{name}", b"{}")
    [outdated] = seen.outdated_plans()
    assert (seen.size(outdated) > 0, outdated.parent) == (True, seen.root / "kubeflow")
    seen.remove_partial(outdated)
    assert not seen.outdated_plans() and len([name for name in place.names() if "kubeflow/" in name]) in (1, 2)
    assert other.store.remove(record) > 0
    assert other.store.record("join", record.key) is None
    assert not [name for name in place.names() if name.startswith("join/") and record.key in name]


def test_what_a_person_has_to_mend(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = place.machine("a")
    store = machine.store
    monkeypatch.setattr(store.objects, "_bucket", "nobody")
    with pytest.raises(InputError, match="there is nothing there"):
        store.record("load", "0" * 32)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place.root))
    with pytest.raises(InputError) as caught:
        machine.store.record("load", "0" * 32)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
