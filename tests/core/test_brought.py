"""A plan where nothing that it found lies any more: fetched by commit, key and digest, or refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ilab.artifacts import Dataset
from ilab.config import Where, load
from ilab.core.step import Found, fingerprint
from ilab.documents.bring import PAGES, bring_documents, carry_pages
from ilab.documents.locate import pinned_files
from ilab.errors import InputError
from ilab.packaging.previous import bring_previous
from ilab.resolvers import resolvers
from ilab.sdg.earlier import bring_earlier
from ilab.taxonomy.locate import bring_taxonomy, read_found

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
VALUES = {"taxonomy_base": "empty", "sdg_base_model": "tiny", "sdg_max_tokens": None, "output_model_name": "m"}


def commit(folder: Path) -> None:
    identity = ("-c", "user.name=A Person", "-c", "user.email=person@example.org", "-c", "init.defaultBranch=main")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "merged")):
        subprocess.run(["git", "-C", str(folder), *identity, *words], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(EXAMPLE, tmp_path / "tree")
    commit(tmp_path / "tree")
    yield tmp_path / "tree"


def found_in(folder: Path, tree: Path, **more: Any) -> tuple[Found, Found, Where]:
    (folder / "ilab.yaml").write_text(f"where: {{cache: {folder / 'cache'}}}\n")
    loaded = load(folder, user=None)
    where = loaded.config.where
    values = {**VALUES, "output_model_version": "1", **more}
    known = resolvers(loaded, where, values, [])
    address = f"file://{tree}#main"
    return known["taxonomy"](address), known["documents"](address), where


def test_a_commit_is_fetched_again_also_when_its_branch_moved_on(tmp_path: Path, tree: Path) -> None:
    taxonomy, documents, where = found_in(tmp_path, tree)
    texts = {file.name: Path(file.path).read_bytes() for file in pinned_files(documents)}
    shutil.rmtree(tmp_path / "cache")
    next(tree.rglob("*.md")).write_text("Something else.")
    next(tree.rglob("qna.yaml")).write_text("version: 3\n")
    commit(tree)
    elsewhere = where.model_copy(update={"cache": str(tmp_path / "own")})  # of a pod that keeps it at another path
    here = bring_taxonomy(taxonomy, f"file://{tree}", tmp_path, elsewhere)
    assert len(read_found(here).leaves) == 4 and Path((here.details or {})["path"]).is_relative_to(tmp_path / "own")
    files = pinned_files(bring_documents(documents, "", tmp_path, elsewhere))
    assert {file.name: Path(file.path).read_bytes() for file in files} == texts and texts
    assert bring_taxonomy(here, "", tmp_path, where) is here, "what is here is not fetched"
    other = replace(taxonomy, digest="0" * 64)
    with pytest.raises(InputError, match="not the one that the plan was made with"):
        bring_taxonomy(other, f"file://{tree}", tmp_path, elsewhere)


def test_a_page_travels_with_the_plan(tmp_path: Path) -> None:
    page = tmp_path / "cache" / "web" / "copy"
    page.parent.mkdir(parents=True)
    page.write_text("<p>Text.</p>")
    file = {"leaf": "a", "source": "https://x", "name": "x.html", "path": str(page), "sha256": "ab", "place": "q:1"}
    found = Found("d", "l", details={"files": json.dumps([file]), "pages": '["ab"]', "trees": "{}"})
    carry_pages(found, tmp_path)
    page.unlink()
    (here,) = pinned_files(bring_documents(found, "", tmp_path, Where()))
    assert Path(here.path) == tmp_path / PAGES / "ab" and Path(here.path).read_text() == "<p>Text.</p>"


class Kept:
    """A store that has one dataset."""

    def __init__(self, root: Path, digest: str) -> None:
        self.root, self.digest, self.asked = root, digest, list[Any]()

    def named(self, address: str) -> tuple[str, str] | None:
        return ("mix", Path(address).name)

    def record(self, type_: str, key: str) -> Any:
        return self if key == "k" * 32 else None

    def contents(self, record: Any) -> Path:
        return self.root / "mix" / ("k" * 32)


def test_what_a_release_was_taught_is_that_or_nothing(tmp_path: Path) -> None:
    store: Any = Kept(tmp_path, "abc")
    path = json.dumps([f"/pod/mirror/mix/{'k' * 32}"])
    found = Found(f"earlier:{fingerprint('abc')}", "m 1", details={"paths": path})
    here = bring_earlier(found, store)
    assert json.loads((here.details or {})["paths"]) == [str(tmp_path / "mix" / ("k" * 32))]
    for wrong in (replace(found, digest="earlier:other"), replace(found, details={"paths": '["/pod/mirror/mix/x"]'})):
        with pytest.raises(InputError, match="no longer in the store"):
            bring_earlier(wrong, store)
    Dataset(tmp_path).path.joinpath("kept").mkdir()
    near = replace(found, details={"paths": json.dumps([str(tmp_path / "kept")])})
    assert bring_earlier(near, store) is near


def layout(folder: Path, told: str) -> str:
    """A small image layout in ``folder``; returns its digest."""

    def blob(contents: Any) -> dict[str, Any]:
        data = json.dumps(contents).encode()
        name = hashlib.sha256(data).hexdigest()
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (folder / "blobs" / "sha256" / name).write_bytes(data)
        return {"digest": f"sha256:{name}", "size": len(data), "mediaType": "application/json"}

    entry = blob({"schemaVersion": 2, "config": blob({"told": told}), "layers": []})
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return str(entry["digest"])


def test_a_release_is_fetched_by_its_address_and_checked(tmp_path: Path) -> None:
    digest = layout(tmp_path / "here", "one")
    layout(tmp_path / "other", "two")

    def brought(address: str) -> Found:
        details = {"path": "/pod/mirror/package/k", "form": "oci", "address": address}
        return bring_previous(Found(f"oci:{digest}", "registry:1", details=details), lambda name: tmp_path / name)

    assert (brought("here").details or {})["path"] == str(tmp_path / "here")
    with pytest.raises(InputError, match="is not here"):
        brought("gone")
    with pytest.raises(InputError, match="no longer the one"):
        brought("other")
