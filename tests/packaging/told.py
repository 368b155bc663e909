"""Stand-ins for registries of others: Kubeflow's reads bodies with the client's own models; MLflow's answers as its REST
API does (test_sinks.py holds it against MLflow's own server, where that is installed)."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

TOKEN = "abc"


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


class Mlflow:
    """MLflow's REST API 2.0, as its documentation has it, so far as a registration uses it."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, str]] = {}  # name -> alias -> version
        self.versions: list[dict[str, Any]] = []
        self.writes = 0

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
        if (request.method, call) == ("GET", "registered-models/get"):
            aliases = [{"alias": a, "version": v} for a, v in self.models[request.query["name"]].items()]
            return web.json_response({"registered_model": {"name": request.query["name"], "aliases": aliases}})
        body = await request.json()
        if (done := self._changed(request.method, call, body)) is not None:
            self.writes += 1
            return web.json_response(done)
        if call == "registered-models/create":
            if "/" in body["name"]:
                return web.json_response({"error_code": "INVALID_PARAMETER_VALUE"}, status=400)
            if body["name"] in self.models:
                return web.json_response({"error_code": "RESOURCE_ALREADY_EXISTS"}, status=400)
            self.models[body["name"]] = {}
            return web.json_response({"registered_model": {"name": body["name"]}})
        if call == "model-versions/create" and body["name"] in self.models and body["source"]:
            self.versions.append({**body, "version": str(len(self.versions) + 1)})
            return web.json_response({"model_version": self.versions[-1]})
        return web.json_response({"error_code": "ENDPOINT_NOT_FOUND"}, status=404)

    def _changed(self, method: str, call: str, body: dict[str, Any]) -> dict[str, Any] | None:
        match method, call:
            case "POST", "registered-models/alias":
                assert not re.fullmatch(r"latest|v\d+", body["alias"]) and re.fullmatch(r"[\w-]+", body["alias"])
                self.models[body["name"]][body["alias"]] = body["version"]
            case "DELETE", "registered-models/alias":
                del self.models[body["name"]][body["alias"]]
            case "POST", "model-versions/set-tag":
                tags = self.tags(body["version"]) | {body["key"]: body["value"]}
                self.versions[int(body["version"]) - 1]["tags"] = [{"key": k, "value": v} for k, v in tags.items()]
            case "DELETE", "model-versions/delete-tag":
                tags = [tag for tag in self.versions[int(body["version"]) - 1]["tags"] if tag["key"] != body["key"]]
                self.versions[int(body["version"]) - 1]["tags"] = tags
            case _:
                return None
        return {}

    def tags(self, number: str) -> dict[str, str]:
        return {tag["key"]: tag["value"] for tag in self.versions[int(number) - 1]["tags"]}
