"""Where a server listens: the port, who has it already, TLS, and until when."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from ilab.config_where import ServeWhere
from ilab.errors import IlabError, InputError, SetupError

STOPPING = 5.0  # seconds that open requests get to end
PORT = 8000
LISTENING = "0A"  # of /proc/net/tcp


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address and does not listen yet. Raises ``SetupError`` where it cannot be had."""
    if not 0 <= port <= 65535:
        raise InputError(f"there is no port {port}", hint=f"type: ilab model serve --port {PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SetupError(f"the host {host} is not known: {error.strerror}", hint="use --host 127.0.0.1") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        holder = holder_of(port)
        by = f" by {holder}" if holder else ""
        reason = f"is taken{by}" if error.errno == errno.EADDRINUSE else "cannot be used"
        free = port + 1 if 1024 <= port < 65535 else PORT
        # The first half is how asyncio and uvicorn say it, for scripts that look for it.
        raise SetupError(
            f"error while attempting to bind on address ('{host}', {port}): {str(error.strerror).lower()}; "
            f"port {port} of {host} {reason}",
            hint=f"stop that server, or serve at another port: add --port {free}",
        ) from error
    return bound


def holder_of(port: int) -> str:
    """Which process listens on ``port``, as ``/proc`` tells it (``python, process 123``); empty where it does not."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not sockets:
        return ""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if any(str(link.readlink()) in sockets for link in (entry / "fd").iterdir()):
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                name = Path(words[0]).name or (entry / "comm").read_text(encoding="utf-8").strip()
                ours = " (ilab)" if "ilab" in words else ""
                return "".join(letter for letter in f"{name}{ours}" if letter.isprintable()) + f", process {entry.name}"
        except OSError:  # somebody else's, or gone meanwhile
            continue
    return ""


def _inodes(port: int) -> set[str]:
    """The inodes of the sockets that listen on ``port`` (proc(5), /proc/net/tcp)."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def server_tls(settings: ServeWhere) -> ssl.SSLContext | None:
    """TLS of a server, None for plain HTTP. Raises ``SetupError`` where its files cannot be used."""
    if not settings.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a function OpenSSL never asks on the terminal for a password.
        context.load_cert_chain(_path(settings.tls_cert), _path(settings.tls_key or settings.tls_cert), lambda: "")
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise SetupError(
            f"this certificate or its key cannot be used ({reason})",
            where=f"{settings.tls_cert}, {settings.tls_key or settings.tls_cert}",
            hint="PEM files are wanted: --tls-cert FILE --tls-key FILE; the key without a password",
        ) from error
    return context


def _path(text: str) -> str:
    return str(Path(text).expanduser())


async def run(
    application: web.Application,
    bound: socket.socket,
    tls: ssl.SSLContext | None,
    on_ready: Callable[[str], None] | None,
    broken: Callable[[], Awaitable[IlabError]] | None = None,
) -> int:
    """Serve on ``bound`` until SIGINT or SIGTERM, whose number is returned; ``on_ready`` gets the base URL.

    Raises what ``broken`` returns, which is awaited beside: what the server cannot live without is gone.
    """
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        if not stopped.done():
            stopped.set_result(number)
        for each in (signal.SIGINT, signal.SIGTERM):  # a second signal does not wait
            loop.remove_signal_handler(each)

    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=STOPPING, access_log=None)
    await runner.setup()
    watch = asyncio.create_task(_fail(broken, stopped)) if broken else None
    try:
        await web.SockSite(runner, bound, ssl_context=tls).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, int(number))
        if on_ready is not None:
            host, port = bound.getsockname()[:2]
            on_ready(base_url(host, port, tls is not None))
        return await stopped
    finally:
        if watch is not None:
            watch.cancel()
        await runner.cleanup()


async def _fail(broken: Callable[[], Awaitable[IlabError]], stopped: asyncio.Future[int]) -> None:
    error = await broken()
    if not stopped.done():
        stopped.set_exception(error)


def base_url(host: str, port: int, secure: bool = False) -> str:
    """``http://HOST:PORT/v1``."""
    return f"http{'s' * secure}://{f'[{host}]' if ':' in host else host}:{port}/v1"
