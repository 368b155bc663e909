from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import ilab
from ilab.errors import InputError, SetupError
from ilab.packaging.registry import Entry, Registry, semantic


def entry(version: str = "0.1.0", digest: str = "sha256:a", **more: object) -> Entry:
    return Entry(name="tiny", version=version, digest=digest, uri=f"oci:/p/{digest}", **more)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "deep" / "registry.db")


def test_what_is_registered_is_found_by_a_new_reader(registry: Registry) -> None:
    kept = registry.register(entry(metrics={"accuracy": 0.75}, lineage={"steps": ["é"]}, stage="published"))
    again = Registry(Path(registry.where))
    assert again.get("tiny") == again.get("tiny", "0.1.0") == kept
    assert kept.metrics == {"accuracy": 0.75}
    assert kept.lineage == {"steps": ["é"]}
    assert (kept.stage, kept.created[-6:]) == ("published", "+00:00")
    assert again.get("tiny", "0.2.0") is None
    assert again.get("other") is None


def test_registering_twice_is_registering_once(registry: Registry) -> None:
    first = registry.register(entry())
    assert registry.register(entry(stage="ignored")) == first
    assert registry.register(entry().model_copy(update={"uri": "oci:/moved"})).uri == "oci:/moved"
    assert len(registry.history("tiny", "0.1.0")) == 1


def test_a_rebuild_moves_the_version_and_keeps_the_history(registry: Registry) -> None:
    registry.register(entry(digest="sha256:a"))
    registry.register(entry(digest="sha256:b"))
    assert [e.digest for e in registry.list()] == ["sha256:b"]
    assert [e.digest for e in registry.history("tiny", "0.1.0")] == ["sha256:a", "sha256:b"]
    registry.register(entry(digest="sha256:a"))
    found = registry.get("tiny")
    assert found is not None
    assert found.digest == "sha256:a"
    assert len(registry.history("tiny", "0.1.0")) == 2


def test_the_highest_version_is_found(registry: Registry) -> None:
    for version in ("0.10.0", "0.9.0", "1.0.0-rc.1", "0.2.0"):
        registry.register(entry(version, f"sha256:{version}"))
    found = registry.get("tiny")
    assert found is not None
    assert found.version == "1.0.0-rc.1"
    assert [e.version for e in registry.list()] == ["0.2.0", "0.9.0", "0.10.0", "1.0.0-rc.1"]


def test_semantic_order_is_that_of_the_specification() -> None:
    ordered = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1"
    jumbled = ordered.split()[::-1]
    assert sorted(jumbled, key=semantic) == ordered.split()
    assert semantic("1.0.0+build") == semantic("1.0.0")


@pytest.mark.parametrize("version", ["1", "1.0", "01.0.0", "v1.0.0", "1.0.0 ", "1.0.0-"])
def test_other_versions_are_refused(registry: Registry, version: str) -> None:
    with pytest.raises(InputError, match="no semantic version"):
        registry.register(entry(version))


@pytest.mark.parametrize("name", ["", "Big", "a b", "../a", "a'; DROP TABLE entries; --"])
def test_bad_names_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InputError, match="no name for a model"):
        registry.register(entry().model_copy(update={"name": name}))


def test_several_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    code = """
import sys
from pathlib import Path
from ilab.packaging.registry import Entry, Registry
for n in range(12):
    registry = Registry(Path(sys.argv[1]))
    registry.register(Entry(name="tiny", version=f"0.1.{n}", digest=f"sha256:{sys.argv[2]}", uri="oci:x"))
    registry.register(Entry(name=f"own{sys.argv[2]}", version=f"0.1.{n}", digest="d", uri="oci:x"))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(ilab.__file__).parents[1])}
    processes = [subprocess.Popen([sys.executable, "-c", code, path, str(n)], env=environment) for n in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    registry = Registry(path)
    assert len(registry.list()) == 12 + 3 * 12
    assert {len(registry.history("tiny", f"0.1.{n}")) for n in range(12)} == {3}
    assert not list(tmp_path.glob(".*"))


def test_files_that_are_no_registry(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, and not a database at all " * 10)
    with pytest.raises(SetupError, match=r"not a database") as caught:
        Registry(text)
    assert "--set where.registry" in caught.value.hint
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    with pytest.raises(SetupError, match="no model registry"):
        Registry(other)
    with pytest.raises(SetupError, match="cannot be used"):
        Registry(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be used"):
        Registry(tmp_path / "file" / "registry.db")


def test_an_entry_that_somebody_changed_is_named(registry: Registry) -> None:
    registry.register(entry())
    connection = sqlite3.connect(registry.where)
    connection.execute("UPDATE entries SET metrics = '{torn'")
    connection.commit()
    connection.close()
    with pytest.raises(SetupError, match="an entry of the model registry cannot be read") as caught:
        registry.list()
    assert caught.value.where == "tiny 0.1.0"


def test_a_newer_schema_is_not_touched(registry: Registry) -> None:
    connection = sqlite3.connect(registry.where)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SetupError, match="schema version 99"):
        Registry(Path(registry.where))


def test_what_others_wrote_moves_no_cursor(registry: Registry) -> None:
    registry.register(entry())
    with closing(sqlite3.connect(registry.where)) as connection:
        connection.execute("UPDATE entries SET recalled = ?", ("\x1b]0;bad\x07 it lies",))
        connection.commit()
    assert registry.list()[0].recalled == " ]0;bad  it lies"


def test_a_registry_that_was_removed_does_not_come_back_empty(registry: Registry) -> None:
    registry.register(entry())
    Path(registry.where).unlink()
    with pytest.raises(SetupError, match="cannot be used"):
        registry.list()
    assert not Path(registry.where).exists()
