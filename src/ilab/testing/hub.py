"""A hub on loopback that speaks Hugging Face's protocol, and misbehaves on demand.

    with serve_hub({"lab/lamp": Repository({"config.json": b"{}", …})}) as hub:
        os.environ["HF_ENDPOINT"] = hub.url

Two servers, as in real life: the hub, and a content network at another port that large files are redirected to. They
know commits, pages of files, ranges, gated and private models, uploads (git LFS, commits), and note every request.
That `huggingface_hub` understands it too is what the tests hold it to.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ilab.testing.loopback import serving

LARGE = 64  # bytes from which on a file is stored as a large one
PAGE = 3  # files in a page of the list
MAIN = "main"


@dataclass
class Repository:
    """``files`` at ``main``. ``gated`` and ``private`` ones need a token of ``readers``; that is known, but no reader
    of a gated one, gets 403."""

    files: dict[str, bytes] = field(default_factory=dict)
    licence: str = "apache-2.0"
    gated: bool = False
    private: bool = False
    readers: tuple[str, ...] = ()

    @property
    def commit(self) -> str:
        parts = [name.encode() + content for name, content in sorted(self.files.items())]
        return hashlib.sha1(b"\0".join(parts), usedforsecurity=False).hexdigest()


@dataclass
class Mischief:
    """What goes wrong with the bytes of files. ``die_after`` bytes the connection breaks, in the first ``deaths``
    requests; ``pause`` seconds lie between ``block`` bytes; ``flip`` changes the first byte; ``refuse`` answers the
    first requests with these statuses; without ``ranges`` a file always comes whole."""

    die_after: int = 0
    deaths: int = 0
    pause: float = 0.0
    block: int = 1 << 16
    flip: bool = False
    refuse: list[int] = field(default_factory=list)
    retry_after: str = ""
    ranges: bool = True


@dataclass(frozen=True)
class Asked:
    """A request that came: ``server`` is ``hub`` or ``cdn``."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]


class TestHub:
    """What a test sees: the ``url``, the ``repositories`` (uploads change them), and what was ``asked``."""

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    def __init__(self, repositories: dict[str, Repository], mischief: Mischief) -> None:
        self.url = self.cdn = ""
        self.repositories = repositories
        self.mischief = mischief
        self.asked: list[Asked] = []
        self.uploaded: dict[str, bytes] = {}

    def note(self, server: str, request: web.Request) -> None:
        self.asked.append(Asked(server, request.method, request.path_qs, dict(request.headers)))

    # -- reading ----------------------------------------------------------------------------------------------------

    async def revision(self, request: web.Request) -> web.Response:
        self.note("hub", request)
        repository, refusal = self._find(request)
        if repository is None:
            return refusal
        files = [{"rfilename": name} for name in sorted(repository.files)]
        named = f"{request.match_info['owner']}/{request.match_info['name']}"
        card = {"license": repository.licence} if repository.licence else {}
        facts = {"id": named, "modelId": named, "sha": repository.commit, "private": repository.private}
        more = {"gated": "manual" if repository.gated else False, "cardData": card, "tags": [], "siblings": files}
        return web.json_response({**facts, **more})

    async def tree(self, request: web.Request) -> web.Response:
        self.note("hub", request)
        repository, refusal = self._find(request)
        if repository is None:
            return refusal
        at = int(request.query.get("cursor", "0"))
        names = sorted(repository.files)
        entries = [_entry(name, repository.files[name]) for name in names[at : at + PAGE]]
        headers = {}
        if at + PAGE < len(names):
            headers["Link"] = f'<{self.url}{request.path}?recursive=true&cursor={at + PAGE}>; rel="next"'
        return web.json_response(entries, headers=headers)

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        self.note("hub", request)
        repository, refusal = self._find(request)
        if repository is None:
            return refusal
        name = request.match_info["file"]
        if name not in repository.files:
            return _refusal(404, "EntryNotFound", "Entry not found")
        content = repository.files[name]
        oid = hashlib.sha256(content).hexdigest() if len(content) >= LARGE else _git(content)
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        if len(content) < LARGE:
            return await self._send(request, content, headers)
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        self.uploaded[oid] = content
        return web.Response(status=302, headers={**headers, **linked, "Location": f"{self.cdn}/blob/{oid}?sig=1"})

    async def blob(self, request: web.Request) -> web.StreamResponse:
        self.note("cdn", request)
        if request.query.get("sig") != "1" or "Authorization" in request.headers:
            return web.Response(status=403)  # as signed addresses do, when a second key comes along
        content = self.uploaded.get(request.match_info["oid"])
        if content is None:
            return web.Response(status=404)
        return await self._send(request, content, {"ETag": f'"{request.match_info["oid"]}"'})

    async def _send(self, request: web.Request, content: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
        mischief = self.mischief
        if request.method == "GET" and mischief.refuse:
            wait = {"Retry-After": mischief.retry_after} if mischief.retry_after else {}
            return web.Response(status=mischief.refuse.pop(0), headers=wait)
        given = request.headers.get("Range", "")
        start = int(given.removeprefix("bytes=").partition("-")[0]) if given and mischief.ranges else 0
        if start >= len(content) and start:
            return web.Response(status=416)
        body = content[start:]
        if mischief.flip and start == 0 and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        more = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        response = web.StreamResponse(status=206 if start else 200, headers={**headers, **more})
        response.content_length = len(body)
        await response.prepare(request)
        sent = 0
        while sent < len(body) and request.method == "GET":
            if mischief.deaths > 0 and sent >= mischief.die_after:
                mischief.deaths -= 1
                assert request.transport is not None  # noqa: S101 - a request under way has one
                request.transport.abort()
                return response
            until = min(sent + mischief.block, mischief.die_after) if mischief.deaths > 0 else sent + mischief.block
            await response.write(body[sent:until])
            sent = min(until, len(body))
            if mischief.pause:
                await asyncio.sleep(mischief.pause)
        return response

    def _find(self, request: web.Request) -> tuple[Repository | None, web.Response]:
        """The repository, if whoever asks may see it; else the answer that says why not."""
        named = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self.repositories.get(named)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        known = any(token in one.readers for one in self.repositories.values()) if token else False
        fine = web.Response()
        if repository is None or (repository.private and token not in repository.readers):
            return None, _refusal(404 if known else 401, "RepoNotFound", "Repository not found")
        if repository.gated and token not in repository.readers:
            return None, _refusal(403 if known else 401, "GatedRepo", "Access to this model is restricted")
        revision = request.match_info.get("revision", MAIN)
        if revision not in (MAIN, repository.commit):
            return None, _refusal(404, "RevisionNotFound", "Invalid rev id")
        return repository, fine

    # -- writing ----------------------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        self.note("hub", request)
        body = await request.json()
        named = f"{body['organization']}/{body['name']}" if body.get("organization") else body["name"]
        if not request.headers.get("Authorization"):
            return _refusal(401, "", "Invalid username or password.")
        if named in self.repositories:
            return web.json_response({"url": f"{self.url}/{named}", "error": "exists"}, status=409)
        self.repositories[named] = Repository(licence="")
        return web.json_response({"url": f"{self.url}/{named}"})

    async def validate(self, request: web.Request) -> web.Response:
        """Of a model card's front matter; every one will do."""
        self.note("hub", request)
        return web.json_response({"errors": [], "warnings": []})

    async def preupload(self, request: web.Request) -> web.Response:
        self.note("hub", request)
        body = await request.json()
        modes = [(one["path"], "lfs" if one["size"] >= LARGE else "regular") for one in body["files"]]
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]
        return web.json_response({"files": files})

    async def batch(self, request: web.Request) -> web.Response:
        self.note("hub", request)
        body = await request.json()
        objects = []
        for one in body["objects"]:
            action = {"upload": {"href": f"{self.cdn}/upload/{one['oid']}"}}
            objects.append({**one, **({} if one["oid"] in self.uploaded else {"actions": action})})
        kind = "application/vnd.git-lfs+json"
        return web.Response(text=json.dumps({"transfer": "basic", "objects": objects}), content_type=kind)

    async def upload(self, request: web.Request) -> web.Response:
        self.note("cdn", request)
        content = await request.read()
        if hashlib.sha256(content).hexdigest() != request.match_info["oid"]:
            return web.Response(status=400)
        self.uploaded[request.match_info["oid"]] = content
        return web.Response()

    async def commit(self, request: web.Request) -> web.Response:
        self.note("hub", request)
        named = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self.repositories[named]
        for line in (await request.text()).splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "lfsFile":
                repository.files[value["path"]] = self.uploaded[value["oid"]]
        answer = {"commitOid": repository.commit, "commitUrl": f"{self.url}/{named}/commit/{repository.commit}"}
        return web.json_response({**answer, "success": True, "pullRequestUrl": None})


@contextmanager
def serve_hub(repositories: dict[str, Repository], mischief: Mischief | None = None) -> Iterator[TestHub]:
    """Serve on two free ports of 127.0.0.1 while the block runs."""
    hub = TestHub(repositories, mischief or Mischief())
    model = "/api/models/{owner}/{name}"
    own = web.Application(client_max_size=2**28)
    own.router.add_get(f"{model}/revision/{{revision}}", hub.revision)
    own.router.add_get(model, hub.revision)
    own.router.add_get(f"{model}/tree/{{revision}}", hub.tree)
    own.router.add_get("/{owner}/{name}/resolve/{revision}/{file:.+}", hub.resolve)
    own.router.add_post("/api/repos/create", hub.create)
    own.router.add_post("/api/validate-yaml", hub.validate)
    own.router.add_post(f"{model}/preupload/{{revision}}", hub.preupload)
    own.router.add_post("/{owner}/{name}.git/info/lfs/objects/batch", hub.batch)
    own.router.add_post(f"{model}/commit/{{revision}}", hub.commit)
    cdn = web.Application(client_max_size=2**28)
    cdn.router.add_get("/blob/{oid}", hub.blob)
    cdn.router.add_put("/upload/{oid}", hub.upload)
    with serving(cdn) as hub.cdn, serving(own) as hub.url:
        yield hub


def _entry(name: str, content: bytes) -> dict[str, Any]:
    if len(content) < LARGE:
        return {"type": "file", "path": name, "size": len(content), "oid": _git(content)}
    pointer = hashlib.sha256(content).hexdigest()
    lfs = {"oid": pointer, "size": len(content), "pointerSize": 134}
    return {"type": "file", "path": name, "size": len(content), "oid": _git(pointer.encode()), "lfs": lfs}


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _refusal(status: int, code: str, message: str) -> web.Response:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return web.json_response({"error": message}, status=status, headers=headers)
