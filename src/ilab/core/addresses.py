"""Connections to public addresses only, checked where the socket connects.

A name is resolved once, the answers are checked, and the socket connects to a checked *address*: a name that means
something else a moment later (DNS rebinding) gains nothing, nor does an unusual spelling (``http://2130706433/``), for
the resolver reads it as the socket would. TLS is still verified against the name.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpcore2

from ilab.errors import InputError

_UNICAST6 = IPv6Network("2000::/3")  # all that is assigned to anybody (IANA, IPv6 Global Unicast)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))  # not in every Python's lists
_PLATFORM = IPv4Address("168.63.129.16")  # public in form, but the platform of the virtual machine (Azure)


def why_refused(address: str) -> str:
    """What forbids to connect to ``address`` (``"a private network"``, …), or ``""`` for a public one.

    Forbidden is all that IANA's special-purpose registries hold, and IPv6 addresses that carry such an IPv4 address.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        if inner is not None:
            return why_refused(str(inner))
    if ip.is_loopback or ip.is_unspecified:
        return "this machine"
    if ip.is_link_local or ip == _PLATFORM:
        return "link-local, where cloud machines have their credentials"
    if ip.is_multicast:
        return "multicast"
    if ip.is_reserved or any(ip in network for network in _SPECIAL):
        return "reserved"
    if ip.is_private or (isinstance(ip, IPv6Address) and ip.is_site_local):
        return "a private network"
    if not ip.is_global or (isinstance(ip, IPv6Address) and ip not in _UNICAST6):
        return "reserved"
    return ""


def resolve(host: str, port: int) -> tuple[str, ...]:
    """The addresses of ``host`` in the system's order. Raises ``OSError`` where it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


class Backend(httpcore2.NetworkBackend):
    """Opens connections, to public addresses and the hosts in ``private_hosts`` alone.

    ``None`` instead of hosts checks nothing (the connection to a proxy of the user's own). Whatever is read or
    written must be done at ``deadline`` (monotonic seconds), which the owner moves from request to request.
    """

    def __init__(self, private_hosts: Iterable[str] | None) -> None:
        self.deadline = math.inf
        self._private = None if private_hosts is None else frozenset(map(_plain, private_hosts))
        self._sockets = httpcore2.SyncBackend()

    def check(self, host: str, addresses: Iterable[str]) -> list[str]:
        """Those of ``addresses`` that may be reached under the name ``host``. Raises ``InputError`` for none."""
        if self._private is None or _plain(host) in self._private:
            return list(addresses)
        reasons = {address: why_refused(address) for address in addresses}
        allowed = [address for address, reason in reasons.items() if not reason]
        if not allowed:
            address, reason = next(iter(reasons.items()))
            named = "" if address == host else f" is {address}, which"
            hint = f"if it shall be read all the same: --set 'where.web.private_hosts=[\"{_plain(host)}\"]'"
            raise InputError(f"{host}{named} is no public address ({reason})", hint=hint)
        return allowed

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first checked address that answers."""
        try:
            addresses = resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"no address is known for {host}") from error
        failure: Exception = httpcore2.ConnectError(f"no address is known for {host}")
        for address in self.check(host, addresses):
            try:
                stream = self._sockets.connect_tcp(address, port, self.left(timeout), local_address, socket_options)
                return _Timed(stream, self)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    def left(self, timeout: float | None) -> float | None:
        """``timeout`` or what is left until the deadline, whichever is less."""
        if self.deadline == math.inf:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the time for the whole reply is over")
        return left if timeout is None else min(timeout, left)


class _Timed(httpcore2.NetworkStream):
    """A stream that knows its backend's deadline, so that a server cannot hold us by a byte now and then."""

    def __init__(self, stream: httpcore2.NetworkStream, backend: Backend) -> None:
        self._stream, self._backend = stream, backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._backend.left(timeout)), self._backend)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def is_private(host: str, private_hosts: Iterable[str]) -> bool:
    """Whether the user listed ``host`` as one of their own."""
    return _plain(host) in map(_plain, private_hosts)


def _plain(host: str) -> str:
    """One spelling for a host: lower case, no brackets, no final dot; addresses in their shortest form."""
    bare = host.strip("[]").rstrip(".").lower()
    try:
        return str(ip_address(bare))
    except ValueError:
        return bare
