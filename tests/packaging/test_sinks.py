"""Registries of others: Kubeflow's through its own client, MLflow's by its REST API, also against MLflow itself."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent))
from told import TOKEN, Kubeflow, Mlflow

from ilab.config import PackageWhere, WebWhere, Where
from ilab.errors import InputError, ServiceError
from ilab.packaging.registry import Entry
from ilab.packaging.sinks import Release, facts_of, links_of, sinks_of
from ilab.testing.loopback import serving

ENTRY = Entry(
    name="team/lamp",
    version="0.1.0",
    digest="sha256:a",
    uri="oci:/p",
    remote="oci://quay.io/team/lamp:0.1.0",
    metrics={"score": 0.75, "verdict": "pass", "published_anyway": False},
)


@pytest.fixture
def kubeflow() -> Iterator[tuple[Kubeflow, str]]:
    if not importlib.util.find_spec("model_registry"):
        pytest.skip("the client model-registry is not there")
    server = Kubeflow()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    with serving(application) as url:
        yield server, url


def where(**given: str) -> Where:
    return Where(package=PackageWhere(**given), web=WebWhere(timeout=5))


def tell(entry: Entry, *aliases: str, **given: str) -> None:
    for sink in sinks_of(where(**given)):
        sink.tell(Release(entry, aliases))


def test_kubeflow_is_told(kubeflow: tuple[Kubeflow, str], monkeypatch: pytest.MonkeyPatch) -> None:
    server, url = kubeflow
    monkeypatch.setenv("MR_TOKEN", TOKEN)
    given = {"model_registry": url, "model_registry_token": "env:MR_TOKEN"}
    tell(ENTRY, **given)
    assert [one["name"] for one in server.models.values()] == ["team/lamp"]
    (version,) = server.versions.values()
    assert version["name"] == "0.1.0"
    told = version["customProperties"]
    assert told["digest"]["string_value"] == "sha256:a" and told["score"]["double_value"] == 0.75
    (artifact,) = server.artifacts.values()
    assert artifact["uri"] == "oci://quay.io/team/lamp:0.1.0"
    writes = server.writes
    tell(ENTRY, **given)
    assert server.writes == writes, "telling twice is telling once"
    tell(ENTRY.model_copy(update={"digest": "sha256:b", "remote": "oci://quay.io/team/lamp:new"}), **given)
    assert len(server.versions) == len(server.artifacts) == 1
    (version,), (artifact,) = server.versions.values(), server.artifacts.values()
    assert version["customProperties"]["digest"]["string_value"] == "sha256:b" and artifact["uri"].endswith(":new")


def test_kubeflow_is_told_of_stage_aliases_and_recall(kubeflow: tuple[Kubeflow, str]) -> None:
    server, url = kubeflow
    server.token = ""

    def told() -> tuple[str, dict[str, str]]:
        (version,) = server.versions.values()
        given = version["customProperties"].items()
        names = ("stage", "aliases", "recalled", "theirs")
        return version["state"], {name: one["string_value"] for name, one in given if name in names}

    tell(ENTRY, model_registry=url)
    assert told() == ("LIVE", {"stage": "candidate"})
    (version,) = server.versions.values()
    version["customProperties"]["theirs"] = {"string_value": "x", "metadataType": "MetadataStringValue"}
    production = ENTRY.model_copy(update={"stage": "production"})
    tell(production, "nightly", "stable", model_registry=url)
    assert told() == ("LIVE", {"stage": "production", "aliases": "nightly, stable", "theirs": "x"})
    writes = server.writes
    tell(production, "nightly", "stable", model_registry=url)
    assert server.writes == writes
    tell(ENTRY.model_copy(update={"stage": "archived", "recalled": "14 sides"}), model_registry=url)
    assert told() == ("ARCHIVED", {"stage": "archived", "recalled": "14 sides", "theirs": "x"})
    tell(production, model_registry=url)
    assert told() == ("LIVE", {"stage": "production", "theirs": "x"})
    new = ENTRY.model_copy(update={"version": "0.0.9", "stage": "archived"})
    tell(new, model_registry=url)
    assert [one["state"] for one in server.versions.values()] == ["LIVE", "ARCHIVED"]


def test_the_dashboard_finds_the_version(kubeflow: tuple[Kubeflow, str]) -> None:
    server, url = kubeflow
    server.token = ""
    assert links_of(where(model_registry=url), "team/lamp", "0.1.0") == {}
    tell(ENTRY, model_registry=url)
    links = links_of(where(model_registry=url, model_registry_name="models"), "team/lamp", "0.1.0")
    assert links == {
        "modelRegistryName": "models",
        "registeredModelName": "team/lamp",
        "registeredModelId": "1",
        "modelVersionName": "0.1.0",
        "modelVersionId": "1",
    }
    assert links_of(where(model_registry=url), "team/lamp", "0.1.0")["modelRegistryName"] == "127"
    assert links_of(where(model_registry=url), "team/lamp", "9.9.9") == {} == links_of(where(), "team/lamp", "0.1.0")


def test_kubeflow_that_refuses_is_an_error_of_ours(kubeflow: tuple[Kubeflow, str]) -> None:
    server, url = kubeflow
    with pytest.raises(InputError, match=r"refuses access \(401\)"):
        tell(ENTRY, model_registry=url)
    server.token = ""
    with pytest.raises(ServiceError, match="does not speak /api/model_registry/v1/") as caught:
        tell(ENTRY, model_registry=f"{url}/elsewhere")
    assert "v1alpha3" in caught.value.hint
    with pytest.raises(InputError, match="needs a token"):
        tell(ENTRY, model_registry="https://127.0.0.1:1")
    with pytest.raises(ServiceError):
        tell(ENTRY, model_registry="http://127.0.0.1:1")
    with pytest.raises(InputError, match="no address"):
        tell(ENTRY, model_registry="registry:8080")


def test_mlflow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Mlflow()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    monkeypatch.setenv("ML_TOKEN", TOKEN)
    with serving(application) as url:
        given = {"mlflow": url, "mlflow_token": "env:ML_TOKEN"}
        for digest in ("sha256:a", "sha256:b", "sha256:a", "sha256:b"):
            tell(ENTRY.model_copy(update={"digest": digest}), **given)
        assert server.models == {"team-lamp": {}} and len(server.versions) == 2
        told = {name: str(value) for name, value in facts_of(Release(ENTRY)).items()}
        assert server.tags("1") == {**told, "stage": "superseded"}
        assert server.tags("2") == {**told, "digest": "sha256:b"}
        writes = server.writes
        tell(ENTRY.model_copy(update={"digest": "sha256:b"}), **given)
        assert server.writes == writes, "telling twice is telling once"
        assert server.versions[0]["source"] == "oci://quay.io/team/lamp:0.1.0"
        with pytest.raises(InputError, match="refuses access"):
            tell(ENTRY, mlflow=url)
        with pytest.raises(ServiceError, match="ENDPOINT_NOT_FOUND"):
            tell(ENTRY, mlflow=f"{url}/x", mlflow_token="env:ML_TOKEN")


@contextmanager
def mlflow_itself(folder: Path) -> Iterator[str]:
    """MLflow's own server; skips where it is not installed."""
    program = shutil.which("mlflow")
    if program is None:
        pytest.skip("mlflow is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "server", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/m.db"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1"], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextmanager
def mlflow_of_ours() -> Iterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", Mlflow().handle)
    with serving(application) as url:
        yield url


@pytest.mark.parametrize("itself", [False, pytest.param(True, marks=pytest.mark.long)])
def test_mlflow_is_told_of_stage_aliases_and_recall(
    itself: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_TOKEN", TOKEN)
    with mlflow_itself(tmp_path) if itself else mlflow_of_ours() as url:
        given = {"mlflow": url, "mlflow_token": "env:ML_TOKEN"}
        http = {"authorization": f"Bearer {TOKEN}"}

        def read(call: str, **asked: str) -> Any:
            address = f"{url}/api/2.0/mlflow/{call}?{urllib.parse.urlencode(asked)}"
            with urllib.request.urlopen(urllib.request.Request(address, headers=http), timeout=30) as answer:
                return json.load(answer)

        def aliases() -> dict[str, str]:
            told = read("registered-models/get", name="team-lamp")["registered_model"].get("aliases", [])
            return {one["alias"]: one["version"] for one in told}

        def state(number: str) -> dict[str, str]:
            found: list[Any] = []
            page = ""
            while page is not None:
                more = read(
                    "model-versions/search", filter="name='team-lamp'", **({"page_token": page} if page else {})
                )
                found += more["model_versions"]
                page = more.get("next_page_token")
            (version,) = [one for one in found if one["version"] == number]
            return {t["key"]: t["value"] for t in version["tags"] if t["key"] in ("stage", "aliases", "recalled")}

        first, second = ENTRY, ENTRY.model_copy(update={"version": "0.2.0", "digest": "sha256:c"})
        tell(first.model_copy(update={"stage": "production"}), "stable", "v1", "1.x", **given)
        assert aliases() == {"stable": "1", "production": "1"}, "as far as MLflow takes the names"
        assert state("1") == {"stage": "production", "aliases": "stable, v1, 1.x"}
        theirs = {"name": "team-lamp", "alias": "champion", "version": "1"}
        request = urllib.request.Request(
            f"{url}/api/2.0/mlflow/registered-models/alias",
            json.dumps(theirs).encode(),
            {**http, "content-type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()
        # The second takes both over, before the first hears of it.
        tell(second.model_copy(update={"stage": "production"}), "stable", **given)
        tell(first.model_copy(update={"stage": "archived"}), **given)
        assert aliases() == {"stable": "2", "production": "2", "champion": "1"}
        assert state("1") == {"stage": "archived"}
        tell(second.model_copy(update={"stage": "archived", "recalled": "14 sides"}), **given)
        assert aliases() == {"champion": "1"}, "what others set there is theirs"
        assert state("2") == {"stage": "archived", "recalled": "14 sides"}
        tell(second.model_copy(update={"digest": "sha256:d"}), "stable", **given)
        assert state("2") == {"stage": "superseded", "recalled": "14 sides"}
        assert (state("3"), aliases()) == (
            {"stage": "candidate", "aliases": "stable"},
            {"stable": "3", "champion": "1"},
        )


def test_secrets_are_given_by_reference() -> None:
    for name in ("model_registry_token", "mlflow_token", "sign_key"):
        with pytest.raises(ValueError, match="by reference"):
            PackageWhere(**{name: "secret"})
    with pytest.raises(ValueError, match="user name or password"):
        PackageWhere(mlflow="http://ann:secret@host")
