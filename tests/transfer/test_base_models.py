"""Base models by address: the same identity wherever they come from, known from little, fetched when they are needed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from lamp import files_below, model_files

from ilab.config import WebWhere
from ilab.core.events import Bus
from ilab.errors import InputError, ServiceError
from ilab.testing.hub import Repository, serve_hub
from ilab.testing.oci_registry import TestRegistry, serve_registry
from ilab.training.base import base_folder, find_base
from ilab.transfer import base_model
from ilab.transfer.open import Access
from ilab.transfer.shelf import Shelf

NAME = "lab/lamp"
OPEN = Access(WebWhere())
QUIET = Bus().for_step("base")


@pytest.fixture
def local(tmp_path: Path) -> str:
    """The digest of the same model in a folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in model_files().items():
        (folder / name).write_bytes(content)
    return find_base(str(folder), tmp_path).digest


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are large."""
    monkeypatch.setattr(base_model, "SMALL", 20_000)


def test_a_plan_fetches_the_small_files_of_a_hub_and_the_step_the_rest(
    local: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = model_files()["model.safetensors"]
    with serve_hub({NAME: Repository(model_files())}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        found = find_base(f"hf://{NAME}", Path(), OPEN)
        assert found.digest == local
        assert found.revision == hub.repositories[NAME].commit
        assert found.details is not None
        assert found.details["missing"] == str(len(weights))
        assert (Path(found.details["folder"]) / "tokenizer.json").read_bytes() == model_files()["tokenizer.json"]
        assert not [one for one in hub.asked if hashlib.sha256(weights).hexdigest() in one.path]
        assert Shelf(models).find(NAME) is None
        folder = base_folder(found, OPEN, QUIET)
        assert files_below(folder) == model_files()
        assert folder == models / "lab" / "lamp"
        before = len(hub.asked)
        again = find_base(f"hf://{NAME}", Path(), OPEN)
        assert (again.digest, (again.details or {})["missing"]) == (local, "0")
        assert not [one for one in hub.asked[before:] if "resolve" in one.path]


def test_a_model_that_changes_after_the_plan_is_not_taken(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub({NAME: Repository(model_files())}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        found = find_base(f"hf://{NAME}", Path(), OPEN)
        hub.repositories[NAME] = Repository({**model_files(), "tokenizer.json": b"{ }"})
        with pytest.raises(InputError, match="no longer the one"):
            base_folder(found, OPEN, QUIET)
        assert find_base(f"hf://{NAME}", Path(), OPEN).digest != found.digest


def push(registry: TestRegistry, repository: str, files: dict[str, bytes]) -> None:
    import json

    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "size": len(content),
            "annotations": {"org.opencontainers.image.title": name},
        }
        for name, content in files.items()
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}"}
    media = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media, "config": {**config, "size": 2}, "layers": layers}
    registry.put(repository, "1.0", json.dumps(manifest).encode(), media, [b"{}", *files.values()])


def test_a_registry_with_a_layer_for_each_file(local: str, models: Path) -> None:
    with serve_registry() as registry:
        push(registry, "lab/lamp", model_files())
        push(registry, "other/lamp", {**model_files(), "tokenizer.json": b"{ }"})
        found = find_base(f"oci://{registry.host}/lab/lamp:1.0", Path(), OPEN)
        assert found.digest == local
        assert (found.details or {})["missing"] == str(len(model_files()["model.safetensors"]))
        other = find_base(f"oci://{registry.host}/other/lamp:1.0", Path(), OPEN)
        places = {base_folder(one, OPEN, QUIET) for one in (found, other)}
        assert len(places) == 2  # two models whose names end alike do not meet
        assert find_base(f"oci://{registry.host}/lab/lamp:1.0", Path(), OPEN).digest == local


def test_what_is_no_base_model_is_told(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: str
) -> None:
    assert find_base(f"file://{tmp_path}/mine", Path()).digest == local
    files = model_files()
    del files["tokenizer.json"]
    gguf = Repository({"lamp-Q4_K_M.gguf": b"GGUF" + b"\0" * 50})
    with serve_hub({NAME: Repository(files), "lab/small": gguf}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
            find_base(f"hf://{NAME}", Path(), OPEN)
        with pytest.raises(InputError, match="GGUF"):
            find_base("hf://lab/small", Path(), OPEN)
        with pytest.raises(InputError, match="names no model"):
            find_base("hf://lamp", Path(), OPEN)
    with pytest.raises((InputError, ServiceError)):
        find_base(f"hf://{NAME}", Path(), OPEN)
    with pytest.raises(InputError, match="no such base model"):
        find_base("nowhere", tmp_path)
