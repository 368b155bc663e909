"""The way to an endpoint: its connections, with key, TLS and proxy, and what to say when nobody is there."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from ilab.config import Endpoint
from ilab.errors import InputError, ServiceError
from ilab.models.tls import route
from ilab.models.wire import Wire

FIRST_CONTACT = 10.0  # seconds for the list of models; a server that loads one may take longer for everything else
KEY_HINT = "check the key: api_key of where.teacher, where.verifier or where.judge refers to it (env:NAME or file:PATH)"
ADDRESS_HINT = "check its address in ilab.yaml: where.teacher.url, where.verifier.url, where.judge.url"


def open_wire(endpoint: Endpoint, key: str) -> Wire:
    """Connections to ``endpoint``, with its key, TLS settings and proxy. Raises ``InputError`` for no URL."""
    url = endpoint.url.rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise InputError("this is no URL of a server", where=url, hint="like http://127.0.0.1:8000/v1")
    return Wire(url, route(endpoint), {"Authorization": f"Bearer {key}"} if key else {})


def unreachable(url: str, reason: OSError) -> ServiceError:
    """The error for a server that cannot be reached at all."""
    hint = f"start one with: ilab model serve   or {ADDRESS_HINT}"
    if isinstance(reason.__cause__, ssl.SSLError):
        names = "where.teacher.ca_file and where.teacher.client_cert, or those of where.verifier"
        hint = f"its certificate or ours does not fit: see {names}"
    return ServiceError(f"no server answers here ({reason})", where=url, hint=hint)
