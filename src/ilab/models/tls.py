"""How the teacher's server is reached: which certificates are trusted and shown, and through which proxy.

Trust is the system's, with ``ca_file`` added to it. ``insecure`` checks nothing and says so each time. Proxies are
those of the environment (``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``), never for a server on this
machine.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ilab.config import Endpoint
from ilab.errors import InputError, SetupError
from ilab.models.secret import read_secret

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Route:
    """``context`` of a TLS connection (None for plain HTTP), and the URL of a ``proxy`` or ``""``."""

    context: ssl.SSLContext | None
    proxy: str


def route(endpoint: Endpoint) -> Route:
    """How to reach ``endpoint``. Raises ``SetupError`` for files and proxies that cannot be used."""
    proxy = proxy_for(endpoint.url)
    secure = endpoint.url.startswith("https://") or proxy.startswith("https://")
    return Route(tls_context(endpoint) if secure else None, proxy)


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """The endpoint's TLS settings as a context.

    Raises ``SetupError`` when a certificate or key cannot be read, ``InputError`` when settings do not fit together.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if endpoint.ca_file:
        try:
            context.load_verify_locations(cafile=_path(endpoint.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise _unreadable("ca_file", endpoint.ca_file, error) from error
    if endpoint.client_cert:
        password = read_secret(endpoint.client_key_password, "where.teacher.client_key_password")
        key = _path(endpoint.client_key) if endpoint.client_key else None
        try:
            # With a function OpenSSL never asks on the terminal, which it does where no password is given.
            context.load_cert_chain(_path(endpoint.client_cert), key, lambda: password)
        except (OSError, ssl.SSLError) as error:
            raise _unreadable("client_cert", endpoint.client_cert, error) from error
    elif endpoint.client_key:
        raise InputError(
            "a client's key needs its certificate",
            where="where.teacher.client_key",
            hint="add where.teacher.client_cert=FILE",
        )
    if endpoint.insecure:
        LOG.warning("%s: the server's certificate is not checked (where.teacher.insecure)", endpoint.url)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def proxy_for(url: str) -> str:
    """The proxy that the environment names for ``url``, or ``""``. Raises ``SetupError`` for an unknown kind."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_local(host) or proxy_bypass(host):
        return ""
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all") or ""
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and (urlsplit(proxy).scheme not in ("http", "https") or not urlsplit(proxy).hostname):
        raise SetupError(
            "only http and https proxies can be used",
            where=f"{parts.scheme.upper()}_PROXY",
            hint=f"set another one, or NO_PROXY={host}",
        )
    return proxy


def is_local(host: str) -> bool:
    """Whether ``host`` is this very machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _path(text: str) -> str:
    return str(Path(text).expanduser())


def _unreadable(setting: str, file: str, error: Exception) -> SetupError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    hint = f"correct where.teacher.{setting}: a PEM file is wanted"
    if setting == "client_cert":
        hint += "; the key stands in it or in where.teacher.client_key, its password in client_key_password"
    return SetupError(f"this certificate cannot be used ({reason})", where=file, hint=hint)
