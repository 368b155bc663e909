"""robots.txt as RFC 9309 has it: missing means all is allowed, a failing server means nothing is. And good manners."""

from __future__ import annotations

import time
from dataclasses import dataclass

from protego import Protego

from ilab.core.addresses import is_private
from ilab.core.transport import ROBOT
from ilab.core.web import Web
from ilab.documents.crawl.scope import host_of, origin_of
from ilab.errors import ServiceError

MAX_BYTES = 500 * 2**10  # RFC 9309, 2.5: at least that much is read
BUSY = 429
LEAST_DELAY = 0.1  # seconds between two requests to a server that is not the user's own
MOST_DELAY = 60.0


@dataclass(frozen=True)
class Rules:
    """What a host asks of robots. ``delay`` is in seconds, ``None`` where nothing is said."""

    parser: Protego
    sitemaps: tuple[str, ...] = ()
    delay: float | None = None

    def allow(self, url: str) -> bool:
        return bool(self.parser.can_fetch(url, ROBOT))


def fetch_rules(web: Web, origin: str) -> Rules:
    """The rules of ``origin`` (``https://host``). Redirects are followed to anywhere (RFC 9309, 2.3.1.2).

    Raises ``ServiceError`` when the server fails (2.3.1.4: then nothing may be fetched).
    """
    url = f"{origin}/robots.txt"
    reply = web.follow(url)
    if reply.status >= 500 or reply.status == BUSY:
        raise ServiceError(
            f"answers {reply.status}, and without it nothing may be fetched (RFC 9309)",
            where=url,
            hint="try again later",
            retryable=True,
        )
    return read_rules(reply.body if reply.found else b"")


def read_rules(data: bytes) -> Rules:
    """The rules in a file's first 500 KiB. Bytes that are no UTF-8 spoil their own line only."""
    parser = Protego.parse(data[:MAX_BYTES].decode("utf-8-sig", "replace"))
    delay = parser.crawl_delay(ROBOT)
    rate = parser.request_rate(ROBOT)
    if delay is None and rate is not None:
        delay = rate.seconds / rate.requests
    return Rules(parser, tuple(parser.sitemaps), delay)


class Manners:
    """Asks servers only what their robots.txt allows, and not too often. ``delay``: seconds between two requests to
    one server; a longer one that it asks for counts, up to a minute."""

    def __init__(self, web: Web, delay: float) -> None:
        self._web = web
        self._delay = delay
        self._rules: dict[str, Rules | ServiceError] = {}
        self._next: dict[str, float] = {}  # origin -> monotonic seconds

    def rules(self, origin: str) -> Rules:
        """The rules of a server, fetched once. Raises ``ServiceError`` when they cannot be known."""
        if origin not in self._rules:
            self.wait(origin)
            try:
                self._rules[origin] = fetch_rules(self._web, origin)
            except ServiceError as error:
                self._rules[origin] = error
        known = self._rules[origin]
        if isinstance(known, ServiceError):
            raise known
        return known

    def may_ask(self, url: str) -> bool:
        return self.rules(origin_of(url)).allow(url)

    def wait(self, url: str) -> None:
        """Sleep until the server of ``url`` may be asked again, and begin the next pause."""
        origin = origin_of(url)
        while (left := self._next.get(origin, 0.0) - time.monotonic()) > 0:
            time.sleep(left)
        self.put_off(url, self._pause(origin))

    def put_off(self, url: str, seconds: float) -> None:
        """Leave the server of ``url`` alone for so long."""
        self._next[origin_of(url)] = time.monotonic() + seconds

    def _pause(self, origin: str) -> float:
        rules = self._rules.get(origin)
        wanted = rules.delay if isinstance(rules, Rules) and rules.delay is not None else 0.0
        own = is_private(host_of(origin), self._web.settings.private_hosts)
        return max(self._delay if own else max(self._delay, LEAST_DELAY), min(wanted, MOST_DELAY))
