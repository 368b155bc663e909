"""Registries of others: Kubeflow's through its own client, against a server that reads bodies with the client's own
models; MLflow's by its REST API."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from ilab.config import PackageWhere, WebWhere, Where
from ilab.errors import InputError, ServiceError
from ilab.packaging.registry import Entry
from ilab.packaging.sinks import facts_of, sinks_of
from ilab.testing.loopback import serving

TOKEN = "abc"
ENTRY = Entry(
    name="team/lamp",
    version="0.1.0",
    digest="sha256:a",
    uri="oci:/p",
    remote="oci://quay.io/team/lamp:0.1.0",
    metrics={"score": 0.75, "verdict": "pass", "published_anyway": False},
)


class Kubeflow:
    """The part of the Model Registry's API (v1) that a registration uses; each body must be one of its models."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.writes = 0
        self.token = TOKEN

    async def handle(self, request: web.Request) -> web.Response:
        import mr_openapi.models as shapes

        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"code": "401", "message": "no"}, status=401)
        what = request.path.removeprefix("/api/model_registry/v1/").split("/")
        if what == request.path.split("/"):
            return web.json_response({"code": "404", "message": "no such path"}, status=404)
        body = await request.json() if request.can_read_body else None
        self.writes += body is not None
        match (request.method, what):
            case ("GET", ["registered_models"]):
                return self._list(list(self.models.values()))
            case ("GET", ["registered_model"]):
                return self._one(self.models, "name", request.query["name"])
            case ("POST", ["registered_models"]):
                read = shapes.RegisteredModelCreate.from_dict(body)
                return self._put(self.models, shapes.RegisteredModel, read)
            case ("GET", ["model_version"]):
                found = [
                    v for v in self.versions.values() if v["registeredModelId"] == request.query["parentResourceId"]
                ]
                return self._one({v["id"]: v for v in found}, "name", request.query["name"])
            case ("POST", ["registered_models", _, "versions"] | ["model_versions"]):
                read = shapes.ModelVersionCreate.from_dict(body)
                return self._put(self.versions, shapes.ModelVersion, read)
            case ("POST", ["model_versions", _, "artifacts"]):
                shapes.Artifact.from_dict(body)
                return self._keep(self.artifacts, body)
            case ("GET", ["model_artifact"]):
                return self._one(self.artifacts, "name", request.query["name"])
            case ("PATCH", ["model_versions", number]):
                shapes.ModelVersionUpdate.from_dict(body)
                self.versions[number] |= body
                return web.json_response(self.versions[number])
            case ("PATCH", ["model_artifacts", number]):
                shapes.ModelArtifactUpdate.from_dict(body)
                self.artifacts[number] |= body
                return web.json_response(self.artifacts[number])
        return web.json_response({"code": "404", "message": f"{request.method} {request.path}"}, status=404)

    def _list(self, items: list[dict[str, Any]]) -> web.Response:
        return web.json_response({"items": items, "size": len(items), "pageSize": 1, "nextPageToken": ""})

    def _one(self, held: dict[str, dict[str, Any]], key: str, value: str) -> web.Response:
        found = [one for one in held.values() if one[key] == value]
        return (
            web.json_response(found[0]) if found else web.json_response({"code": "404", "message": "none"}, status=404)
        )

    def _put(self, held: dict[str, dict[str, Any]], shape: Any, read: Any) -> web.Response:
        plain = json.loads(read.to_json())
        shape.from_dict({**plain, "id": "1"})
        return self._keep(held, plain)

    def _keep(self, held: dict[str, dict[str, Any]], plain: dict[str, Any]) -> web.Response:
        number = str(len(held) + 1)
        held[number] = {**plain, "id": number}
        return web.json_response(held[number], status=201)


@pytest.fixture
def kubeflow() -> Iterator[tuple[Kubeflow, str]]:
    if not importlib.util.find_spec("model_registry"):
        pytest.skip("the client model-registry is not there")
    server = Kubeflow()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    with serving(application) as url:
        yield server, url


def tell(entry: Entry, **given: str) -> None:
    for sink in sinks_of(Where(package=PackageWhere(**given), web=WebWhere(timeout=5))):
        sink.register(entry)


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


class Mlflow:
    """MLflow's REST API 2.0, as its documentation has it, so far as a registration uses it."""

    def __init__(self) -> None:
        self.models: set[str] = set()
        self.versions: list[dict[str, Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error_code": "UNAUTHENTICATED"}, status=401)
        call = request.path.removeprefix("/api/2.0/mlflow/")
        if (request.method, call) == ("GET", "model-versions/search"):
            name = request.query["filter"].removeprefix("name='").removesuffix("'")
            page = int(request.query.get("page_token", "0"))
            found = [one for one in self.versions if one["name"] == name]
            more = {"next_page_token": str(page + 1)} if len(found) > page + 1 else {}
            return web.json_response({"model_versions": found[page : page + 1], **more})
        body = await request.json()
        if call == "registered-models/create":
            if "/" in body["name"]:
                return web.json_response({"error_code": "INVALID_PARAMETER_VALUE"}, status=400)
            if body["name"] in self.models:
                return web.json_response({"error_code": "RESOURCE_ALREADY_EXISTS"}, status=400)
            self.models.add(body["name"])
            return web.json_response({"registered_model": {"name": body["name"]}})
        if call == "model-versions/create" and body["name"] in self.models and body["source"]:
            self.versions.append({**body, "version": str(len(self.versions) + 1)})
            return web.json_response({"model_version": self.versions[-1]})
        return web.json_response({"error_code": "ENDPOINT_NOT_FOUND"}, status=404)


def test_mlflow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Mlflow()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    monkeypatch.setenv("ML_TOKEN", TOKEN)
    with serving(application) as url:
        given = {"mlflow": url, "mlflow_token": "env:ML_TOKEN"}
        for digest in ("sha256:a", "sha256:b", "sha256:a", "sha256:b"):
            tell(ENTRY.model_copy(update={"digest": digest}), **given)
        assert server.models == {"team-lamp"} and len(server.versions) == 2
        tags = {tag["key"]: tag["value"] for tag in server.versions[0]["tags"]}
        assert tags == {name: str(value) for name, value in facts_of(ENTRY).items()}
        assert server.versions[0]["source"] == "oci://quay.io/team/lamp:0.1.0"
        with pytest.raises(InputError, match="refuses access"):
            tell(ENTRY, mlflow=url)
        with pytest.raises(ServiceError, match="ENDPOINT_NOT_FOUND"):
            tell(ENTRY, mlflow=f"{url}/x", mlflow_token="env:ML_TOKEN")


def test_secrets_are_given_by_reference() -> None:
    for name in ("model_registry_token", "mlflow_token", "sign_key"):
        with pytest.raises(ValueError, match="by reference"):
            PackageWhere(**{name: "secret"})
    with pytest.raises(ValueError, match="user name or password"):
        PackageWhere(mlflow="http://ann:secret@host")
