"""A registry on loopback as OCI's distribution-spec 1.1 has it, open, with passwords, or with tokens.

    with serve_registry(access="bearer", login=("ann", "secret")) as registry:
        ilab model download --repository oci://<registry.host>/lab/lamp:1.0

It checks digests as a real one does, ends a blob's connection on demand, and gives tokens that run out.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from aiohttp import web

from ilab.testing.loopback import serving

Access = Literal["open", "basic", "bearer"]


class TestRegistry:
    """What a test sees: ``host``, ``blobs`` by digest, ``manifests`` by name and tag or digest, tokens given out."""

    __test__ = False

    def __init__(self, access: Access, login: tuple[str, str]) -> None:
        self.url = ""
        self.access, self.login = access, login
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tokens: dict[str, set[str]] = {}
        self.asked: list[tuple[str, str, str]] = []  # method, path, Range
        self.uses_of_a_token = 1000
        self.die_after = 0  # bytes of the next blob's body
        self.cut_after = 0  # bytes of an upload at which its line is cut; what came stays
        self.forget = False  # whether an upload that was cut is dropped, as docker's registry does
        self._uploads: dict[str, bytearray] = {}

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def put(self, name: str, tag: str, manifest: bytes, media: str, blobs: list[bytes]) -> str:
        """Store an image; returns its digest."""
        for blob in blobs:
            self.blobs[_digest(blob)] = blob
        for reference in (tag, _digest(manifest)):
            self.manifests[name, reference] = (media, manifest)
        return _digest(manifest)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.headers.get("Range", "")))
        if request.path == "/token":
            return self._give_token(request)
        name, _, rest = request.path.removeprefix("/v2/").rpartition("/blobs/uploads/")
        kind = "uploads"
        for marker in ("blobs", "manifests", "referrers"):
            if not name and f"/{marker}/" in request.path:
                name, _, rest = request.path.removeprefix("/v2/").partition(f"/{marker}/")
                kind = marker
        refusal = self._refuse(request, name)
        if refusal is not None or request.path == "/v2/":
            return refusal or web.Response()
        if kind == "referrers":  # it knows nothing of subjects, as docker's does not
            return web.Response(status=404)
        if kind == "uploads":
            return await self._upload(request, name, rest)
        return await (self._blob(request, rest) if kind == "blobs" else self._manifest(request, name, rest))

    def _refuse(self, request: web.Request, name: str) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if self.access == "open":
            return None
        if self.access == "basic":
            expected = base64.b64encode(":".join(self.login).encode()).decode()
            asks = 'Basic realm="here"'
            return (
                None if given == f"Basic {expected}" else web.Response(status=401, headers={"WWW-Authenticate": asks})
            )
        token = given.removeprefix("Bearer ")
        action = "pull" if request.method in ("GET", "HEAD") else "push"
        if f"{name}:{action}" in self.tokens.get(token, set()):
            self.uses_of_a_token -= 1
            if self.uses_of_a_token >= 0:
                return None
            self.tokens.clear()
            self.uses_of_a_token = 1000
        asks = f'Bearer realm="{self.url}/token",service="here",scope="repository:{name}:{action}"'
        return web.Response(status=401, headers={"WWW-Authenticate": asks})

    def _give_token(self, request: web.Request) -> web.Response:
        expected = base64.b64encode(":".join(self.login).encode()).decode()
        if request.query["service"] != "here" or request.headers.get("Authorization") != f"Basic {expected}":
            return web.Response(status=401)
        _, name, actions = request.query["scope"].split(":")
        token = uuid.uuid4().hex
        self.tokens[token] = {f"{name}:{action}" for action in actions.split(",")}
        return web.json_response({"token": token})

    async def _blob(self, request: web.Request, digest: str) -> web.StreamResponse:
        content = self.blobs.get(digest)
        if content is None:
            return web.Response(status=404)
        given = request.headers.get("Range", "")
        start = int(given.removeprefix("bytes=").partition("-")[0]) if given else 0
        headers = {"Docker-Content-Digest": digest, "Content-Length": str(len(content) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        if request.method == "GET" and self.die_after:
            until, self.die_after = self.die_after, 0
            await response.write(content[start : start + until])
            assert request.transport is not None  # noqa: S101 - a request under way has one
            request.transport.abort()
        elif request.method == "GET":
            await response.write(content[start:])
        return response

    async def _manifest(self, request: web.Request, name: str, reference: str) -> web.Response:
        if request.method == "PUT":
            body = await request.read()
            self.put(name, reference, body, request.content_type, [])
            return web.Response(status=201, headers={"Docker-Content-Digest": _digest(body)})
        found = self.manifests.get((name, reference))
        if found is None:
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
        return web.Response(body=found[1], headers={"Content-Type": found[0]})

    async def _upload(self, request: web.Request, name: str, session: str) -> web.Response:
        if request.method == "POST":
            session = uuid.uuid4().hex
            self._uploads[session] = bytearray()
            return web.Response(status=202, headers={"Location": f"/v2/{name}/blobs/uploads/{session}?state=1"})
        held = self._uploads.get(session)
        if held is None:
            return web.json_response({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}, status=404)
        place = {"Location": f"/v2/{name}/blobs/uploads/{session}?state=1"}
        if request.method == "GET":
            return web.Response(status=204, headers={**place, "Range": f"0-{max(0, len(held) - 1)}"})
        begins = request.headers.get("Content-Range", "").partition("-")[0]
        if begins and int(begins) != len(held):
            return web.Response(status=416, headers={**place, "Range": f"0-{max(0, len(held) - 1)}"})
        await self._take(request, session, held)
        if request.method == "PATCH":
            return web.Response(status=202, headers={**place, "Range": f"0-{len(held) - 1}"})
        content = bytes(held)
        del self._uploads[session]
        if _digest(content) != request.query.get("digest"):
            return web.json_response({"errors": [{"code": "DIGEST_INVALID"}]}, status=400)
        self.blobs[_digest(content)] = content
        return web.Response(status=201)

    async def _take(self, request: web.Request, session: str, held: bytearray) -> None:
        """A request's body, or its beginning where the line is to be cut."""
        until = self.cut_after
        async for block in request.content.iter_chunked(1 << 16):
            held += block if not until else block[: max(0, until - len(held))]
            if until and len(held) >= until:
                self.cut_after = 0
                if self.forget:
                    del self._uploads[session]
                assert request.transport is not None  # noqa: S101 - a request under way has one
                request.transport.abort()
                raise ConnectionResetError


@contextmanager
def serve_registry(access: Access = "open", login: tuple[str, str] = ("", "")) -> Iterator[TestRegistry]:
    """Serve on a free port of 127.0.0.1 while the block runs."""
    registry = TestRegistry(access, login)
    application = web.Application(client_max_size=2**28)
    application.router.add_route("*", "/{path:.*}", registry.handle)
    with serving(application) as registry.url:
        yield registry


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
