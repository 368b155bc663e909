"""What every server of ours has, whoever writes the answers behind it.

    GET /          a greeting           GET /health       whether it is there
    GET /docs      these addresses      GET /v1/models    the names under which the model is served
    GET /metrics   for Prometheus

With a key, everything under ``/v1`` needs it. Errors are in OpenAI's form, whatever they are about.
"""

from __future__ import annotations

import hmac
import html
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp import web

from ilab.errors import IlabError
from ilab.serving.metrics import TYPE, Metrics
from ilab.serving.requests import RequestError, error_body, status_of

LARGEST_BODY = 4 << 20  # bytes
GREETING = "Hello from InstructLab! Visit us at https://instructlab.ai"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<h1>{title}</h1>
<p>An OpenAI-compatible server. It serves: {names}.</p>
<table>{rows}</table>
<p>To talk to it: <code>ilab model chat --endpoint-url {url}/v1</code></p>
</html>
"""
OWN = {"/": "A greeting", "/docs": "This page", "/health": "Whether it is there", "/metrics": "For Prometheus"}


class Front:
    """The names of one model, the key that clients must bring (empty: none), and what is counted.

    ``context`` is how many tokens a prompt and its answer may have, None where nobody knows.
    """

    def __init__(self, names: Sequence[str], key: str = "", context: int | None = None) -> None:
        self.names = tuple(dict.fromkeys(names))
        self.context = context
        self.metrics = Metrics(self.names[0])
        self._key = key

    def application(self, posts: Iterable[tuple[str, Handler, str]]) -> web.Application:
        """With ``posts``: path, handler, and what it is for."""
        app = web.Application(middlewares=[self._measured, self._guarded], client_max_size=LARGEST_BODY)
        app.router.add_get("/", self._greeting)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        told = [("GET", path, text) for path, text in OWN.items()] + [("GET", "/v1/models", "The model's names")]
        for path, handler, text in posts:
            app.router.add_post(path, handler)
            told.append(("POST", path, text))

        async def docs(request: web.Request) -> web.Response:
            rows = "".join(f"<tr><td>{verb}<td><code>{path}</code><td>{text}" for verb, path, text in told)
            names = ", ".join(f"<code>{html.escape(name)}</code>" for name in self.names)
            title = html.escape(f"ilab: {self.names[0]}")
            page = PAGE.format(title=title, names=names, rows=rows, url=html.escape(str(request.url.origin())))
            headers = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}
            return web.Response(text=page, content_type="text/html", headers=headers)

        app.router.add_get("/docs", docs)
        return app

    def check_name(self, name: str | None) -> str:
        """The name that an answer bears. Raises ``RequestError`` 404 for a model that is not served here."""
        if name is not None and name not in self.names:
            raise RequestError(
                404,
                f"the model {name!r} is not served here; this server has {self.names[0]!r}",
                "model",
                "model_not_found",
            )
        return self.names[0] if name is None else name

    def usage(self, prompt: int, completion: int) -> dict[str, int]:
        """The tokens of an answer in OpenAI's form; they are counted too."""
        self.metrics.used(prompt, completion)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    async def _greeting(self, _: web.Request) -> web.Response:
        return web.json_response({"message": GREETING})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": TYPE})

    async def _models(self, _: web.Request) -> web.Response:
        same = {"object": "model", "created": 0, "owned_by": "ilab", "root": self.names[0]}
        more = {} if self.context is None else {"max_model_len": self.context}
        return web.json_response({"object": "list", "data": [{"id": name, **same, **more} for name in self.names]})

    @web.middleware
    async def _measured(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count the request; errors become answers in OpenAI's form. A bug of ours is logged by aiohttp: 500."""
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"
        begun, status = time.monotonic(), 500
        try:
            with self.metrics.in_flight.track_inprogress():
                response = await _answer(request, handler)
            status = response.status
            return response
        finally:
            self.metrics.answered(path, status, time.monotonic() - begun)

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._key and request.path.startswith("/v1/"):
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key.encode()):
                refusal = RequestError(401, "this server wants its API key", None, "invalid_api_key")
                return web.json_response(error_body(refusal), status=401, headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except IlabError as error:
        return web.json_response(error_body(error), status=status_of(error))
    except web.HTTPException as error:
        refusal = RequestError(error.status, f"{request.method} {request.path}: {error.reason}")
        return web.json_response(error_body(refusal), status=error.status)
