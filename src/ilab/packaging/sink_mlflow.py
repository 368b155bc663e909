"""MLflow's model registry, by its REST API 2.0; its package is not needed. Aliases need MLflow 2.3.

MLflow numbers versions by itself, so ours stands in a tag, and is looked for there. A version that was built again has
two of MLflow's; the earlier one gets the stage ``superseded``. Stage, aliases and a recall are tags. Aliases are set as
MLflow's own as well, where it takes the name (no dots, not ``v1``), and so is ``production``: MLflow has given up
stages in favour of aliases. Of the aliases there, only those that we told of are ever taken away.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from ilab.config import WebWhere
from ilab.core.transport import shown
from ilab.errors import IlabError, ServiceError
from ilab.packaging.sinks import STATE, Release, facts_of
from ilab.packaging.stages import PRODUCTION
from ilab.transfer.web import Answer, Http

API = "/api/2.0/mlflow"
THERE = "RESOURCE_ALREADY_EXISTS"
MOST_PAGES = 100
SUPERSEDED = "superseded"
LONGEST = 5000  # characters of a tag's value
_ALIAS = re.compile(r"(?!v\d+$)[\w-]+")


@dataclass(frozen=True)
class _Version:
    """``number`` is MLflow's."""

    number: str
    tags: dict[str, str]

    @property
    def aliases(self) -> set[str]:
        """Those of MLflow's own that we told of."""
        return _aliases(self.tags)


class MlflowRegistry:
    """The registry at ``url``; ``token`` may be empty."""

    def __init__(self, url: str, token: str, web: WebWhere) -> None:
        self.url, self._token, self._web = url, token, web

    def tell(self, release: Release) -> None:
        """Make the model and the version if they are new, then bring tags and aliases up to date."""
        entry = release.entry
        name = entry.name.replace("/", "-")  # MLflow takes no slashes
        tags = {key: str(value)[:LONGEST] for key, value in facts_of(release).items()}
        http = Http(self._web)
        try:
            made = self._send(http, "registered-models/create", {"name": name})
            if not made.ok and _code(made) != THERE:
                raise self._refusal(made)
            versions = [one for one in self._versions(http, name) if one.tags.get("ilab_version") == entry.version]
            mine = next((one for one in versions if one.tags.get("digest") == entry.digest), None)
            if mine is None:
                mine = self._new(http, name, release, {key: tags[key] for key in tags if key not in STATE})
            for other in versions:
                if other.number != mine.number:
                    gone = {key: text for key, text in other.tags.items() if key != "aliases"}
                    self._tag(http, name, other, {**gone, "stage": SUPERSEDED})
            self._point(http, name, mine, _aliases(tags))
            self._tag(http, name, mine, tags)  # last: the tags say which aliases are ours
        finally:
            http.close()

    def _new(self, http: Http, name: str, release: Release, tags: dict[str, str]) -> _Version:
        entry = release.entry
        told = self._done(
            http,
            "model-versions/create",
            {
                "name": name,
                "source": release.place,
                "description": f"{entry.name} {entry.version}, built from a taxonomy with ilab",
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
            },
        )
        return _Version(str(told.get("model_version", {}).get("version", "")), tags)

    def _point(self, http: Http, name: str, version: _Version, wanted: set[str]) -> None:
        """Set the aliases of a version, and take away those that were ours and are not any more."""
        if not wanted | version.aliases:
            return
        told = self._read(http, "registered-models/get", {"name": name}).get("registered_model") or {}
        now = {str(one["alias"]): str(one["version"]) for one in told.get("aliases") or []}
        for alias in sorted(wanted):
            if now.get(alias) != version.number:
                self._done(http, "registered-models/alias", {"name": name, "alias": alias, "version": version.number})
        for alias in sorted(version.aliases - wanted):
            if now.get(alias) == version.number:
                self._done(http, "registered-models/alias", {"name": name, "alias": alias}, "DELETE")

    def _tag(self, http: Http, name: str, version: _Version, wanted: dict[str, str]) -> None:
        """Set the tags that are others, and take away those of the state that do not hold any more."""
        of = {"name": name, "version": version.number}
        for key, value in wanted.items():
            if version.tags.get(key) != value:
                self._done(http, "model-versions/set-tag", {**of, "key": key, "value": value})
        for key in STATE:
            if key in version.tags and key not in wanted:
                self._done(http, "model-versions/delete-tag", {**of, "key": key}, "DELETE")

    def _versions(self, http: Http, name: str) -> list[_Version]:
        quoted = name.replace("'", "\\'")
        found: list[_Version] = []
        page = ""
        for _ in range(MOST_PAGES):
            asked = {"filter": f"name='{quoted}'", **({"page_token": page} if page else {})}
            told = self._read(http, "model-versions/search", asked)
            for version in told.get("model_versions") or []:
                tags = {str(tag["key"]): str(tag.get("value", "")) for tag in version.get("tags") or []}
                found.append(_Version(str(version["version"]), tags))
            page = str(told.get("next_page_token") or "")
            if not page:
                break
        return found

    def _read(self, http: Http, call: str, asked: dict[str, str]) -> dict[str, Any]:
        answer = http.ask("GET", f"{self.url}{API}/{call}?{urlencode(asked)}", self._headers())
        return self._object(answer)

    def _done(self, http: Http, call: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
        return self._object(self._send(http, call, body, method))

    def _send(self, http: Http, call: str, body: dict[str, Any], method: str = "POST") -> Answer:
        headers = {**self._headers(), "content-type": "application/json"}
        return http.ask(method, f"{self.url}{API}/{call}", headers, json.dumps(body).encode())

    def _object(self, answer: Answer) -> dict[str, Any]:
        if not answer.ok:
            raise self._refusal(answer)
        told = answer.json()
        if not isinstance(told, dict):
            raise ServiceError("does not answer as MLflow does", where=shown(self.url))
        return told

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def _refusal(self, answer: Answer) -> IlabError:
        code = _code(answer)
        if code and answer.status not in (401, 403, 429) and answer.status < 500:
            hint = "is it an MLflow server with a model registry? see where.package.mlflow"
            return ServiceError(f"does not take the release ({code})", where=shown(self.url), hint=hint)
        return answer.failure()


def _aliases(tags: dict[str, str]) -> set[str]:
    """Which of MLflow's aliases a version with these tags has."""
    told = {alias for alias in tags.get("aliases", "").split(", ") if _ALIAS.fullmatch(alias)}
    return told | ({PRODUCTION} if tags.get("stage") == PRODUCTION else set())


def _code(answer: Answer) -> str:
    """MLflow's name of an error; empty where the answer is none of its own."""
    try:
        told = json.loads(answer.body)
    except ValueError:
        return ""
    return str(told.get("error_code") or "")[:60] if isinstance(told, dict) else ""
