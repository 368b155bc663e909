"""httpx2 as the client needs it: connections of ours, the user's proxy, trust, and foreign exceptions in our words.

httpx2's own transport takes no network backend, so a small one of ours puts httpx2 on a connection pool of httpcore2.
"""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from ilab import __version__
from ilab.core.addresses import Backend
from ilab.errors import IlabError, InputError, ServiceError, SetupError

ROBOT = "ilab"  # our name in robots.txt
USER_AGENT = f"{ROBOT}/{__version__} (+https://instructlab.ai)"
_AGAIN = "try again later; a slow server needs --set where.web.timeout=SECONDS"
_FOREIGN = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    ssl.SSLError,
    zlib.error,
)


def new_client(tls: ssl.SSLContext, backend: Backend, proxy: str, timeout: float) -> httpx2.Client:
    """A client that connects by ``backend``, keeps no cookies, and follows no redirects."""
    return httpx2.Client(
        transport=_Transport(_pool(tls, backend, proxy)),
        trust_env=False,
        timeout=timeout,
        headers={"user-agent": USER_AGENT, "accept-encoding": "gzip, deflate"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


def trust(ca_file: str | None) -> ssl.SSLContext:
    """The system's certificates, and those in ``ca_file``. Raises ``SetupError`` where that cannot be read."""
    context = httpx2.create_ssl_context()
    if ca_file:
        try:
            context.load_verify_locations(cafile=str(Path(ca_file).expanduser()))
        except (OSError, ssl.SSLError) as error:
            message = f"no certificates can be read from it: {error}"
            raise SetupError(message, where=ca_file, hint="correct where.web.ca_file") from error
    return context


def proxy_for(url: httpx2.URL) -> str:
    """The proxy that the environment names for ``url``, or ``""``."""
    if proxy_bypass(url.host):
        return ""
    named = getproxies()
    proxy = named.get(url.scheme) or named.get("all") or ""
    proxy = proxy if "://" in proxy or not proxy else f"http://{proxy}"
    if proxy and not proxy.startswith(("http://", "https://")):
        raise SetupError("only http and https proxies can be used", where=shown(proxy), hint="see HTTPS_PROXY")
    return proxy


def shown(url: str) -> str:
    """``url`` for people: without user name and password, not too long."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    bare = f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
    return ascii(bare)[1:-1][:200]


@contextmanager
def in_our_words(url: str, backend: Backend, timeout: float) -> Iterator[None]:
    """Foreign exceptions as ``ServiceError``; errors of our own get the address."""
    try:
        yield
    except InputError as error:
        raise InputError(error.message, where=error.where or url, hint=error.hint) from error
    except (httpcore2.TimeoutException, httpx2.TimeoutException) as error:
        over = time.monotonic() >= backend.deadline
        message = "sends too slowly; the reply was given up" if over else f"is silent for {timeout:g} seconds"
        raise ServiceError(message, where=url, hint=_AGAIN, retryable=True) from error
    except _FOREIGN as error:
        raise _explained(error, url) from error


def _explained(error: Exception, url: str) -> IlabError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        hint = "for a server with a certificate of your own: --set where.web.ca_file=FILE"
        return ServiceError(f"its certificate is not trusted: {cause.verify_message}", where=url, hint=hint)
    if isinstance(error, httpcore2.ProxyError):
        return ServiceError(f"the proxy refuses: {error}", where=url, hint="see HTTPS_PROXY", retryable=True)
    if isinstance(error, httpcore2.NetworkError):
        return ServiceError(f"cannot be reached: {error}", where=url, hint=_AGAIN, retryable=True)
    return ServiceError(f"does not speak HTTP as it should: {error}", where=url, hint=_AGAIN, retryable=True)


def _pool(tls: ssl.SSLContext, backend: Backend, proxy: str) -> httpcore2.ConnectionPool:
    if not proxy:
        return httpcore2.ConnectionPool(ssl_context=tls, network_backend=backend, keepalive_expiry=60)
    address = httpx2.URL(proxy)
    return httpcore2.HTTPProxy(
        proxy_url=str(address.copy_with(userinfo=b"")),
        proxy_auth=(address.username, address.password) if address.userinfo else None,
        ssl_context=tls,
        proxy_ssl_context=tls if address.scheme == "https" else None,
        network_backend=backend,
    )


class _Stream(httpx2.SyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _Transport(httpx2.BaseTransport):
    def __init__(self, pool: httpcore2.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        response = self._pool.handle_request(
            httpcore2.Request(
                request.method,
                target,
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(response.status, headers=response.headers, stream=_Stream(response))

    def close(self) -> None:
        self._pool.close()
