"""Stages, aliases, recalls and the way back; and that nothing of it is lost or half done."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ilab.cli.app import hoisted, main
from ilab.errors import GateError, InputError
from ilab.packaging.registry import Entry, Registry
from ilab.packaging.stages import Stages


def entry(version: str, digest: str = "") -> Entry:
    return Entry(name="lamp", version=version, digest=digest or f"sha256:{version}", uri=f"oci:/p/{version}")


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    registry = Registry(tmp_path / "registry.sqlite")
    for version in ("0.1.0", "0.2.0", "0.10.0"):
        registry.register(entry(version))
    return Stages(registry)


def of_stage(stages: Stages) -> dict[str, str]:
    return {one.version: one.stage for one in stages.registry.list()}


def test_one_version_is_in_production(stages: Stages) -> None:
    assert set(of_stage(stages).values()) == {"candidate"}
    stages.promote("lamp", "0.1.0", "production")
    stages.promote("lamp", "0.2.0", "staging")
    stages.promote("lamp", "staging", "production")
    assert of_stage(stages) == {"0.1.0": "archived", "0.2.0": "production", "0.10.0": "candidate"}
    assert stages.find("lamp", "production").version == "0.2.0"
    with pytest.raises(InputError, match="no stage"):
        stages.promote("lamp", "0.2.0", "prod")
    with pytest.raises(InputError, match=r"0\.9\.0 is not registered") as caught:
        stages.promote("lamp", "0.9.0", "production")
    assert "lamp 0.1.0, lamp 0.2.0" in caught.value.hint


def test_an_alias_points_to_a_version(stages: Stages) -> None:
    stages.alias("lamp", "0.1.0", "stable")
    stages.alias("lamp", "latest", "nightly")
    assert stages.aliases("lamp") == {"nightly": "0.10.0", "stable": "0.1.0"}
    assert stages.find("lamp", "stable").version == "0.1.0" and stages.find("lamp").version == "0.10.0"
    for bad in ("latest", "production", "0.1.0", "A", ""):
        with pytest.raises(InputError, match="no alias"):
            stages.alias("lamp", "0.1.0", bad)


def test_the_way_back_is_what_was_there_before(stages: Stages) -> None:
    with pytest.raises(InputError, match="not registered"):
        stages.rollback("lamp")
    stages.promote("lamp", "0.1.0", "production")
    with pytest.raises(InputError, match=r"nothing usable came before 0\.1\.0"):
        stages.rollback("lamp")
    stages.promote("lamp", "0.10.0", "production")
    stages.promote("lamp", "0.2.0", "production")
    left, now = stages.rollback("lamp")
    assert (left.version, now.version, now.stage) == ("0.2.0", "0.10.0", "production")
    for version in ("0.1.0", "0.2.0", "0.2.0"):
        stages.alias("lamp", version, "stable")
    assert stages.rollback("lamp", "stable")[1].version == "0.1.0"
    assert stages.aliases("lamp") == {"stable": "0.1.0"}


def test_a_recalled_version_is_passed_over_and_cannot_come_back_by_chance(stages: Stages) -> None:
    for version in ("0.1.0", "0.2.0", "0.10.0"):
        stages.promote("lamp", version, "production")
    stages.alias("lamp", "0.2.0", "stable")
    stages.recall("lamp", "0.2.0", "it  says\nnonsense")
    assert stages.aliases("lamp") == {}
    assert stages.registry.recalled("sha256:0.2.0") == stages.find("lamp", "0.2.0")
    assert stages.find("lamp", "0.2.0").recalled == "it says nonsense"
    for act in (lambda: stages.promote("lamp", "0.2.0", "staging"), lambda: stages.alias("lamp", "0.2.0", "stable")):
        with pytest.raises(GateError, match="was recalled: it says nonsense"):
            act()
    assert stages.rollback("lamp")[1].version == "0.1.0", "0.2.0 came before, but was recalled"
    stages.recall("lamp", "0.10.0", "it too")
    assert stages.find("lamp").version == "0.1.0", "latest is the highest that was not recalled"
    stages.reinstate("lamp", "0.10.0")
    assert stages.registry.recalled("sha256:0.10.0") is None and of_stage(stages)["0.10.0"] == "archived"
    with pytest.raises(InputError, match="needs a reason"):
        stages.recall("lamp", "0.1.0", " ")
    stages.registry.register(entry("0.2.0"))
    assert stages.find("lamp", "0.2.0").recalled, "registering the same package again does not take a recall back"
    stages.registry.register(entry("0.2.0", "sha256:mended"))
    assert not stages.find("lamp", "0.2.0").recalled


def test_the_history_says_who_did_what(stages: Stages) -> None:
    stages.promote("lamp", "0.1.0", "production")
    stages.promote("lamp", "0.1.0", "production")
    stages.recall("lamp", "0.1.0", "bad")
    told = [(one.version, one.what, one.detail) for one in stages.history("lamp")]
    assert told[:3] == [(version, "registered", "") for version in ("0.1.0", "0.2.0", "0.10.0")]
    assert told[3:] == [
        ("0.1.0", "promoted", "production"),
        ("0.1.0", "recalled", "bad"),
        ("0.1.0", "archived", "archived"),
    ]
    assert all(one.person and one.time.endswith("+00:00") for one in stages.history("lamp"))


def test_a_failure_in_the_middle_changes_nothing(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.packaging import stages as module

    stages.promote("lamp", "0.1.0", "production")
    before, history = of_stage(stages), stages.history("lamp")
    noted = module.note_change

    def dies(connection: sqlite3.Connection, one: Entry, what: str, detail: str) -> None:
        if one.version == "0.2.0":
            raise KeyboardInterrupt
        noted(connection, one, what, detail)

    monkeypatch.setattr(module, "note_change", dies)
    with pytest.raises(KeyboardInterrupt):
        stages.promote("lamp", "0.2.0", "production")
    assert of_stage(stages) == before and stages.history("lamp") == history


def test_a_registry_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE entries (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL,
            uri TEXT NOT NULL, created TEXT NOT NULL, metrics TEXT NOT NULL, lineage TEXT NOT NULL,
            stage TEXT NOT NULL, UNIQUE (name, version, digest)
        ) STRICT;
        CREATE TABLE current (
            name TEXT NOT NULL, version TEXT NOT NULL, entry INTEGER NOT NULL REFERENCES entries (id),
            PRIMARY KEY (name, version)
        ) STRICT;
        INSERT INTO entries VALUES (1, 'lamp', '0.1.0', 'sha256:a', 'oci:/p', 't', '{"score": 1}', '{}', 'candidate');
        INSERT INTO current VALUES ('lamp', '0.1.0', 1);
        PRAGMA application_id = 1768710498;
        PRAGMA user_version = 1;
        """
    )
    connection.close()
    stages = Stages(Registry(path))
    assert stages.promote("lamp", "latest", "production").metrics == {"score": 1}
    assert stages.history("lamp")[-1].detail == "production"


@pytest.fixture
def ilab(tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        words = ["--set", f"where.registry={stages.registry.where}", *arguments]
        result = CliRunner().invoke(main, hoisted(words), standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


def test_the_commands(ilab: Callable[..., str], stages: Stages) -> None:
    assert "lamp 0.1.0 is in the stage production" in ilab("registry", "promote", "lamp", "0.1.0")
    assert "lamp 0.10.0 is stable" in ilab("registry", "alias", "lamp", "latest", "stable")
    ilab("registry", "promote", "lamp", "stable")
    assert "production is 0.1.0 again, no more 0.10.0" in ilab("registry", "rollback", "lamp")
    told = json.loads(ilab("registry", "recall", "lamp", "0.10.0", "--reason", "wrong dates", "--json"))
    assert (told["stage"], told["recalled"], told["aliases"]) == ("archived", "wrong dates", [])
    assert "recalled" in ilab("registry", "list")
    assert json.loads(ilab("--json", "registry", "show", "lamp"))["version"] == "0.2.0"
    assert [one["what"] for one in json.loads(ilab("--json", "registry", "history", "lamp"))][-2:] == [
        "unaliased",
        "recalled",
    ]
    assert "promoted production" in ilab("registry", "history", "lamp")
    ilab("registry", "recall", "lamp", "0.10.0", "--undo")
    assert stages.find("lamp").version == "0.10.0"
    with pytest.raises(InputError, match="not registered"):
        ilab("registry", "history", "other")


def test_who_fetches_a_recalled_package_is_warned(
    ilab: Callable[..., str], stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ilab.packaging.image import write_layout
    from ilab.testing.oci_registry import serve_registry

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    header = b"{}".ljust(8)
    (tmp_path / "model" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    digest = write_layout(tmp_path / "package", tmp_path / "model", {}, {}, "0.2.0")
    stages.registry.register(entry("0.2.0", digest))
    stages.recall("lamp", "0.2.0", "wrong dates")
    with serve_registry() as registry:
        place = f"{registry.host}/lab/lamp:0.2.0"
        ilab("package", "push", place, "--package", "package")
        (told,) = json.loads(ilab("--json", "model", "download", "-rp", f"oci://{place}"))
        assert told["recalled"] == "lamp 0.2.0: wrong dates"
        assert json.loads(ilab("--json", "model", "info", "lamp"))["recalled"] == "lamp 0.2.0: wrong dates"
        assert "was recalled" in ilab("package", "verify", "--quick", place)
