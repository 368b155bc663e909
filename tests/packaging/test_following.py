"""What changes in the registry here is told to the others; what cannot be told stays changed, and is told later."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from told import TOKEN, Mlflow

from ilab.cli.app import hoisted, main
from ilab.config import PackageWhere, WebWhere, Where
from ilab.errors import GateError, InputError, ServiceError
from ilab.packaging.registry import Entry, Registry
from ilab.packaging.sinks import followed, to_be
from ilab.packaging.stages import Stages
from ilab.testing.loopback import serving


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    registry = Registry(tmp_path / "registry.sqlite")
    for version in ("0.1.0", "0.2.0"):
        registry.register(Entry(name="lamp", version=version, digest=f"sha256:{version}", uri=f"oci:/p/{version}"))
    return Stages(registry)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Mlflow, str]]:
    server = Mlflow()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    monkeypatch.setenv("ML_TOKEN", TOKEN)
    with serving(application) as url:
        yield server, url


@pytest.fixture
def ilab(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def run(url: str, *arguments: str) -> Any:
        others = {"package.mlflow": url, "package.mlflow_token": "env:ML_TOKEN"} if url else {}
        given = {"registry": stages.registry.where, **others}
        words = [word for name, value in given.items() for word in ("--set", f"where.{name}={value}")]
        result = CliRunner().invoke(main, hoisted(["--json", *words, "registry", *arguments]), standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout)

    return run


def state(server: Mlflow) -> dict[str, tuple[str, str, str]]:
    """Version of ours to stage, aliases, reason of a recall."""
    found = {}
    for number in range(len(server.versions)):
        tags = server.tags(str(number + 1))
        found[tags["ilab_version"]] = (tags["stage"], tags.get("aliases", ""), tags.get("recalled", ""))
    return found


def test_every_change_is_told(ilab: Callable[..., Any], mlflow: tuple[Mlflow, str]) -> None:
    server, url = mlflow
    ilab(url, "promote", "lamp", "0.1.0")
    assert state(server) == {"0.1.0": ("production", "", "")}, "what did not change is not told"
    ilab(url, "alias", "lamp", "0.1.0", "stable")
    ilab(url, "promote", "lamp", "0.2.0")
    assert state(server) == {"0.1.0": ("archived", "stable", ""), "0.2.0": ("production", "", "")}
    ilab(url, "rollback", "lamp")
    assert state(server) == {"0.1.0": ("production", "stable", ""), "0.2.0": ("archived", "", "")}
    ilab(url, "recall", "lamp", "0.1.0", "--reason", "14 sides")
    assert state(server)["0.1.0"] == ("archived", "", "14 sides")
    assert server.models == {"lamp": {}}
    ilab(url, "recall", "lamp", "0.1.0", "--undo")
    assert state(server)["0.1.0"] == ("archived", "", "")
    writes = server.writes
    assert ilab(url, "sync") == {"models": ["lamp"], "versions": 2, "registries": 1}
    assert server.writes == writes, "everything was told"


def test_what_cannot_be_told_is_done_and_told_later(
    ilab: Callable[..., Any], mlflow: tuple[Mlflow, str], stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = mlflow
    with pytest.raises(ServiceError, match="this registry says it now, but not everybody could be told") as caught:
        ilab("http://127.0.0.1:1", "promote", "lamp", "0.1.0")
    assert "ilab registry sync lamp" in caught.value.hint and "127.0.0.1:1" in caught.value.message
    assert stages.find("lamp", "production").version == "0.1.0"
    monkeypatch.delenv("ML_TOKEN")
    with pytest.raises(ServiceError, match="ML_TOKEN is empty or not set"):
        ilab(url, "alias", "lamp", "0.1.0", "stable")
    assert stages.aliases("lamp") == {"stable": "0.1.0"} and not server.versions
    monkeypatch.setenv("ML_TOKEN", TOKEN)
    ilab(url, "sync", "lamp")
    assert state(server) == {"0.1.0": ("production", "stable", ""), "0.2.0": ("candidate", "", "")}
    with pytest.raises(InputError, match="not registered"):
        ilab(url, "sync", "another")
    with pytest.raises(InputError, match="no other registry"):
        ilab("", "sync")


def test_a_change_before_an_error_is_told(stages: Stages, mlflow: tuple[Mlflow, str]) -> None:
    server, url = mlflow
    where = Where(package=PackageWhere(mlflow=url, mlflow_token="env:ML_TOKEN"), web=WebWhere(timeout=5))
    with pytest.raises(GateError), followed(stages, "lamp", where):
        stages.alias("lamp", "0.2.0", "nightly")
        raise GateError("not promoted")
    assert state(server) == {"0.2.0": ("candidate", "nightly", "")}


def test_registering_again_keeps_what_a_version_is_for(stages: Stages) -> None:
    stages.promote("lamp", "0.1.0", "production")
    stages.alias("lamp", "0.1.0", "stable")
    same = Entry(name="lamp", version="0.1.0", digest="sha256:0.1.0", uri="oci:/moved")
    assert (to_be(stages, same).entry.stage, to_be(stages, same).aliases) == ("production", ("stable",))
    assert stages.registry.register(same).stage == to_be(stages, same).entry.stage
    other = same.model_copy(update={"digest": "sha256:new"})
    assert (to_be(stages, other).entry.stage, to_be(stages, other).aliases) == ("candidate", ("stable",))
    assert stages.registry.register(other).stage == "candidate"
