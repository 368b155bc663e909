"""MLflow's model registry, by its REST API 2.0; its package is not needed.

MLflow numbers versions by itself, so ours stands in a tag, and is looked for there.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from ilab.config import WebWhere
from ilab.core.transport import shown
from ilab.errors import ServiceError
from ilab.packaging.registry import Entry
from ilab.packaging.sinks import facts_of
from ilab.transfer.web import Answer, Http

API = "/api/2.0/mlflow"
THERE = "RESOURCE_ALREADY_EXISTS"
MOST_PAGES = 100


class MlflowRegistry:
    """The registry at ``url``; ``token`` may be empty."""

    def __init__(self, url: str, token: str, web: WebWhere) -> None:
        self._url, self._token, self._web = url, token, web

    def register(self, entry: Entry) -> None:
        """Make the model if it is new, and a version of it unless this digest is one already."""
        name = entry.name.replace("/", "-")  # MLflow takes no slashes
        http = Http(self._web)
        try:
            made = self._post(http, "registered-models/create", {"name": name})
            if not made.ok and _code(made) != THERE:
                raise self._refusal(made)
            facts = facts_of(entry)
            mine = (entry.version, entry.digest)
            if any((tags.get("ilab_version"), tags.get("digest")) == mine for tags in self._versions(http, name)):
                return
            done = self._post(
                http,
                "model-versions/create",
                {
                    "name": name,
                    "source": entry.remote or entry.uri,
                    "description": f"{entry.name} {entry.version}, built from a taxonomy with ilab",
                    "tags": [{"key": key, "value": str(value)} for key, value in facts.items()],
                },
            )
            if not done.ok:
                raise self._refusal(done)
        finally:
            http.close()

    def _versions(self, http: Http, name: str) -> list[dict[str, str]]:
        """The tags of every version."""
        quoted = name.replace("'", "\\'")
        found: list[dict[str, str]] = []
        page = ""
        for _ in range(MOST_PAGES):
            asked = {"filter": f"name='{quoted}'", **({"page_token": page} if page else {})}
            answer = http.ask("GET", f"{self._url}{API}/model-versions/search?{urlencode(asked)}", self._headers())
            if not answer.ok:
                raise self._refusal(answer)
            told = answer.json()
            if not isinstance(told, dict):
                raise ServiceError("does not answer as MLflow does", where=shown(self._url))
            for version in told.get("model_versions") or []:
                found.append({str(tag["key"]): str(tag["value"]) for tag in version.get("tags") or []})
            page = str(told.get("next_page_token") or "")
            if not page:
                break
        return found

    def _post(self, http: Http, call: str, body: dict[str, Any]) -> Answer:
        headers = {**self._headers(), "content-type": "application/json"}
        return http.ask("POST", f"{self._url}{API}/{call}", headers, json.dumps(body).encode())

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def _refusal(self, answer: Answer) -> Exception:
        code = _code(answer)
        if code and answer.status not in (401, 403, 429) and answer.status < 500:
            hint = "is it an MLflow server with a model registry? see where.package.mlflow"
            return ServiceError(f"does not take the release ({code})", where=shown(self._url), hint=hint)
        return answer.failure()


def _code(answer: Answer) -> str:
    """MLflow's name of an error; empty where the answer is none of its own."""
    try:
        told = json.loads(answer.body)
    except ValueError:
        return ""
    return str(told.get("error_code") or "")[:60] if isinstance(told, dict) else ""
