"""The release to be replaced: where it is found, what it was taught, and what is no model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ilab.artifacts import Candidates
from ilab.errors import IlabError, InputError
from ilab.packaging.image import write_layout
from ilab.packaging.previous import Releases, find_previous, take_previous
from ilab.packaging.registry import Entry, Registry

LEAVES = {"knowledge/a": "1" * 64, "compositional_skills/b": "2" * 64}
LINEAGE = {"taxonomy": {"leaves": LEAVES}}
BUILDING = ("tiny", "0.3.0")
FILES = {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def layout(model: Path, out: Path, lineage: Any = LINEAGE) -> Path:
    text = lineage if isinstance(lineage, bytes) else json.dumps(lineage).encode()
    write_layout(out, model, {"lineage.json": text, "gate.json": b"{}"}, {}, "0.1.0")
    return out


def registered(tmp_path: Path, model: Path, *versions: str) -> Path:
    registry = tmp_path / "registry.sqlite"
    for version in versions:
        place = layout(model, tmp_path / version, {**LINEAGE, "version": version})
        uri = f"oci:{place}"
        Registry(registry).register(Entry(name="tiny", version=version, digest=f"sha256:{version}", uri=uri))
    return registry


def find(locator: str, tmp_path: Path) -> Any:
    path = tmp_path / "registry.sqlite"
    releases = Releases(
        lambda: Registry(path) if path.exists() else None, lambda entry: Path(entry.uri.removeprefix("oci:"))
    )
    return find_previous(locator, tmp_path, releases, BUILDING)


def take(found: Any, tmp_path: Path) -> Candidates:
    for folder in ("out", "work"):
        (tmp_path / folder).mkdir()
    out = Candidates(tmp_path / "out")
    take_previous(found, Path, tmp_path / "work", out)
    return out


def test_none_is_no_candidate(tmp_path: Path) -> None:
    assert take(None, tmp_path).index() == []


def test_a_folder_is_taken_without_pickles_and_nobody_knows_its_leaves(model: Path, tmp_path: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    found = find("model", tmp_path)
    assert found.digest == find(str(model), tmp_path).digest
    out = take(found, tmp_path)
    assert {file.name for file in out.models()["previous"].iterdir()} == FILES
    assert out.index()[0]["leaves"] == {}
    (model / "model.safetensors").write_bytes(b"other weights")
    assert find("model", tmp_path).digest != found.digest


def test_a_package_says_what_it_was_taught(model: Path, tmp_path: Path) -> None:
    layout(model, tmp_path / "package")
    out = take(find("package", tmp_path), tmp_path)
    assert out.index()[0]["leaves"] == LEAVES
    assert {file.name for file in out.models()["previous"].iterdir()} == FILES, "its papers are not the model's"


@pytest.mark.parametrize(
    "lineage", [{}, [], {"taxonomy": None}, {"taxonomy": {"leaves": ["a"]}}, b"{", b"\xff\xfe", {"taxonomy": "x"}]
)
def test_a_package_that_does_not_say_so_is_measured_all_the_same(model: Path, tmp_path: Path, lineage: Any) -> None:
    layout(model, tmp_path / "package", lineage)
    out = take(find("package", tmp_path), tmp_path)
    assert out.index()[0]["leaves"] == {} and out.models()["previous"].is_dir()


def test_the_registry_gives_the_newest_other_version_or_the_one_asked_for(model: Path, tmp_path: Path) -> None:
    registered(tmp_path, model, "0.10.0", "0.9.0", "0.3.0", "0.11.0-rc.1")
    assert find("registry", tmp_path).details["path"] == str(tmp_path / "0.11.0-rc.1")
    assert find("registry:0.9.0", tmp_path).details["path"] == str(tmp_path / "0.9.0")
    assert find("registry:0.9.0", tmp_path).digest == find("0.9.0", tmp_path).digest


def test_what_is_being_built_is_not_its_own_predecessor(model: Path, tmp_path: Path) -> None:
    registered(tmp_path, model, "0.3.0")
    with pytest.raises(InputError, match=r"no other version than 0\.3\.0 of tiny") as error:
        find("registry", tmp_path)
    assert "-p previous_model=" in error.value.hint
    with pytest.raises(InputError, match=r"no version 7\.0\.0 of tiny"):
        find("registry:7.0.0", tmp_path)


@pytest.mark.parametrize("locator", ["nowhere", "model/config.json", "empty", "registry"])
def test_what_is_no_model_is_refused_before_anything_runs(model: Path, tmp_path: Path, locator: str) -> None:
    (tmp_path / "empty").mkdir()
    (model / "model.safetensors").unlink()
    for name in (locator, "model"):
        with pytest.raises(InputError) as error:
            find(name, tmp_path)
        assert error.value.where == "previous_model" and error.value.hint


def test_a_package_that_was_removed_is_named(model: Path, tmp_path: Path) -> None:
    registered(tmp_path, model, "0.1.0")
    (tmp_path / "0.1.0").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"the package of tiny 0\.1\.0 is gone") as error:
        find("registry", tmp_path)
    assert error.value.where == str(tmp_path / "0.1.0")


def test_a_damaged_package_is_refused(model: Path, tmp_path: Path) -> None:
    package = layout(model, tmp_path / "package")
    found = find("package", tmp_path)
    blob = max((package / "blobs" / "sha256").iterdir(), key=lambda file: file.stat().st_size)
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(IlabError):
        take(found, tmp_path)


def test_an_image_without_a_model_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    found = find(layout(model, tmp_path / "package").name, tmp_path)
    with pytest.raises(InputError, match="holds no model"):
        take(found, tmp_path)


def test_weights_are_fetched_by_the_step_alone(model: Path, tmp_path: Path) -> None:
    """A plan is made on what a package tells of itself; of another machine's release nothing else is here then."""
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 200)
    registered(tmp_path, model, "0.1.0")
    whole, papers = tmp_path / "0.1.0", tmp_path / "papers"
    shutil.copytree(whole, papers)
    for blob in (papers / "blobs" / "sha256").iterdir():
        if blob.stat().st_size > 20_000:
            blob.unlink()
    releases = Releases(lambda: Registry(tmp_path / "registry.sqlite"), lambda entry: papers)
    found = find_previous("registry", tmp_path, releases, BUILDING)
    assert found.details["path"] == str(papers) and found.digest == find("registry", tmp_path).digest
    asked: list[str] = []

    def fetch(address: str) -> Path:
        asked.append(address)
        return whole

    for folder in ("out", "work", "second"):
        (tmp_path / folder).mkdir()
    take_previous(found, fetch, tmp_path / "work", Candidates(tmp_path / "out"))
    assert asked == [str(whole)]
    assert (tmp_path / "out" / "previous" / "model.safetensors").stat().st_size > 20_000
    other = layout(model, tmp_path / "other", {**LINEAGE, "version": "of another"})
    with pytest.raises(InputError, match="no longer the one"):
        take_previous(found, lambda _: other, tmp_path / "work", Candidates(tmp_path / "second"))
