"""Two machines that share a bucket and nothing else: one builds and registers, the other goes on from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import KEYS, s3_server

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")]
BUCKET, STORE = "lamps", "s3://lamps/store"
WHERE = """\
  store: {store}
  s3_endpoint: {endpoint}
"""
# Every byte that comes from the bucket is counted, beside the project.
COUNT = """
from pathlib import Path
from ilab.core import remote_files
inner = remote_files._arrive
def counting(objects, name, part, size, tell):
    with Path("arrived.txt").open("a") as file:
        file.write(f"{size} {name}\\n")
    return inner(objects, name, part, size, tell)
remote_files._arrive = counting
"""
# The model of the example has a size at which its weights would pass for papers.
SMALL = f"{COUNT}from ilab.core import remote_store\nremote_store.PAPER = 500_000\n"


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "moto").mkdir()
    with s3_server(tmp_path / "moto") as address:
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
        yield address


def machine(project: Any, root: Path, endpoint: str) -> Any:
    """The project on a machine of its own."""
    settings = project.root / "ilab.yaml"
    if "s3_endpoint" not in settings.read_text():
        settings.write_text(settings.read_text() + WHERE.format(store=STORE, endpoint=endpoint))
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns("home"))
    return type(project)(root)


def arrived(machine: Any) -> list[tuple[int, str]]:
    file = machine.root / "arrived.txt"
    lines = [line.split(maxsplit=1) for line in file.read_text().splitlines()] if file.exists() else []
    file.unlink(missing_ok=True)
    return [(int(size), name) for size, name in lines]


def weights(machine: Any) -> list[str]:
    """Of the packages that came, what is no paper."""
    return [name for size, name in arrived(machine) if name.startswith("package/") and size > 500_000]


def test_a_laptop_and_another_machine(project: Any, tmp_path: Path, endpoint: str) -> None:
    laptop, other = (machine(project, tmp_path / name, endpoint) for name in ("laptop", "other"))
    said = laptop.built()
    assert f"{STORE}/registry.sqlite" in said.stdout
    assert not list(laptop.root.glob(".ilab/*.sqlite"))
    [entry] = laptop.json("registry", "list")
    assert entry["uri"].startswith(f"{STORE}/package/")
    assert laptop.built().returncode == 0  # what is registered is still there: nothing is made again
    assert {one["state"] for one in laptop.plan().values()} == {"reuse"}

    assert other.json("registry", "list") == [entry]
    assert other.ilab("registry", "alias", "small", "0.1.0", "stable").returncode == 0
    assert laptop.json("registry", "show", "small", "stable")["version"] == "0.1.0"
    assert laptop.ilab("registry", "promote", "small", "stable").returncode == 0
    assert other.json("registry", "history", "small")[-1]["what"] == "promoted"

    looked_at = other.instrumented("registry", "show", "small", before=COUNT)
    assert looked_at.returncode == 0, looked_at.stderr
    packages = {name.split("/")[1] for _, name in arrived(other) if name.startswith("package/")}
    assert packages == {entry["uri"].rpartition("/")[2]}, "it was brought by its key"

    told = other.json("pipeline", "nightly", "--dry-run")
    assert (told["how"], told["stable"]) == ("nothing", "0.1.0"), told["reason"]
    leaf = "knowledge/technology/devices/tavrin_kiln"
    other.edit(f"taxonomy/{leaf}/qna.yaml", "Who is the author of the manual?", "Who has written the manual?")
    arrived(other)
    told = json.loads(other.instrumented("--json", "pipeline", "nightly", "--dry-run", before=SMALL).stdout)
    assert told["how"] == "increment", told["reason"]
    assert told["leaves"]["changed"] == [leaf]
    assert weights(other) == [], "a plan needs only what a release tells of itself"
    previous = ("run", "--until", "previous", "-p", "previous_model=registry:stable")
    taken = other.instrumented(*previous, before=SMALL)
    assert taken.returncode == 0, taken.stderr
    assert len(weights(other)) == 1, "the step that takes the model fetches it"

    checked = json.loads(other.ilab("--json", "package", "verify", entry["uri"]).stdout)
    assert checked["digest"] == entry["digest"] and not checked["wrong"]
    assert other.json("package", "show")["digest"] == entry["digest"]

    laptop.edit("ilab.yaml", "output_model_name: small", "output_model_name: large")
    laptop.edit(f"taxonomy/{leaf}/qna.yaml", "Who is the author of the manual?", "Who has written the manual?")
    removed = {one["path"] for one in laptop.json("pipeline", "gc")["removed"]}
    assert removed and all(path.startswith(f"{STORE}/") for path in removed) and entry["uri"] not in removed
    told = other.json("pipeline", "nightly", "--dry-run")
    assert told["how"] == "increment", "gc kept what the registry points to, and what it was taught"
