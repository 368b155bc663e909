"""Which addresses belong to a crawl, in one spelling each.

By default the host of a start page and what lies below its path. The rest are guards against sites without an end:
calendars, sessions in the path, a relative link that makes every page one folder deeper.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import unquote

from ilab.core.web import parsed
from ilab.errors import InputError

MAX_FOLDERS = 12
MAX_REPEATS = 2  # the same folder name in one path
MAX_QUERY = 200  # characters
MAX_VARIANTS = 50  # addresses that differ only in the query

_TRACKING = re.compile(r"(?:utm_\w+|gclid|dclid|fbclid|msclkid|mc_[ce]id|_ga|_gl|igshid)(?:=|$)", re.IGNORECASE)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]")  # RFC 3986, 2.3
_PAGES = (".html", ".htm", ".xhtml", ".php", ".asp", ".aspx", ".jsp", ".shtml")
_NO_PAGES = re.compile(
    r"\.(?:7z|apk|avif?|bmp|bz2|css|csv|dmg|doc|eot|exe|gif|gz|ico|iso|jar|jpe?g|m?js|json|m4a|map|mkv|mov|mp[34]|msi"
    r"|og[gv]|otf|png|pptx?|rar|rpm|rss|svg|tar|tgz|tiff?|ttf|wasm|wav|web[mp]|whl|woff2?|xlsx?|xml|xz|ya?ml|zip)",
    re.IGNORECASE,
)


@lru_cache(maxsize=2**16)  # the pages of a site have the same menu
def one_spelling(url: str) -> str:
    """``url`` as its identity: no fragment, no tracking parameters, escapes in one form. ``""`` for no web page."""
    try:
        address = parsed(_escaped(str(parsed(url))))
    except InputError:
        return ""
    path, _, query = address.raw_path.decode("ascii").partition("?")
    kept = [part for part in query.split("&") if part and not _TRACKING.match(part)]
    host = address.netloc.decode("ascii").removesuffix(".")
    return f"{address.scheme}://{host}{path}{'?' if kept else ''}{'&'.join(kept)}"


def _escaped(text: str) -> str:
    """RFC 3986, 6.2.2: upper-case escapes, and none for characters that need none."""

    def spelled(match: re.Match[str]) -> str:
        sign = chr(int(match[1], 16))
        return sign if _UNRESERVED.fullmatch(sign) else match[0].upper()

    return _ESCAPE.sub(spelled, text)


def origin_of(url: str) -> str:
    """``https://host:port`` of an address in one spelling."""
    return "/".join(url.split("/", 3)[:3])


def host_of(url: str) -> str:
    """The host of an address in one spelling, without port."""
    host = url.split("/", 3)[2]
    return host.rpartition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]


def path_of(url: str) -> str:
    """The path of an address in one spelling, with its query."""
    return url[len(origin_of(url)) :] or "/"


class Scope:
    """What a crawl may ask for. ``include`` are further prefixes (addresses, or paths on the hosts of the starts);
    ``exclude`` are glob patterns for paths with their query."""

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self._exclude = tuple(exclude)
        self._given = tuple(include)
        self._exact: set[str] = set()
        self._prefixes: list[str] = []
        self._variants: Counter[str] = Counter()
        for prefix in self._given:
            if not prefix.startswith("/"):
                spelled = one_spelling(prefix)
                if not spelled:
                    hint = "for example --include /docs/ or --include https://other.example.org/docs/"
                    raise InputError(f"--include {prefix}: is neither a path nor an address", hint=hint)
                self._prefixes.append(spelled)

    def start(self, url: str) -> None:
        """Take in a start page and what lies below it: ``/docs/`` for ``/docs/``, ``/docs`` and ``/docs/a.html``."""
        bare = url.partition("?")[0]
        name = PurePosixPath(bare).name if bare != f"{origin_of(url)}/" else ""
        folder = bare.rpartition("/")[0] if PurePosixPath(name).suffix.lower() in _PAGES else bare
        self._exact |= {url, folder}
        self._prefixes.append(folder.rstrip("/") + "/")
        self._prefixes += [origin_of(url) + path for path in self._given if path.startswith("/")]

    @property
    def prefixes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._prefixes))

    def covers(self, url: str) -> bool:
        return url.partition("?")[0] in self._exact or url in self._exact or url.startswith(tuple(self._prefixes))

    def adopted(self, url: str) -> str:
        """``url`` in one spelling; over https where only that address of the page is within the scope."""
        spelled = one_spelling(url)
        secure = spelled.replace("http://", "https://", 1)
        return secure if not self.covers(spelled) and self.covers(secure) else spelled

    def why_not(self, url: str) -> str:
        """Why a page is not asked for, in few words, or ``""``. Counts the variants of an address by its query."""
        path = path_of(url)
        bare, _, query = path.partition("?")
        parts = [part for part in bare.split("/") if part]
        if not self.covers(url):
            return "outside of what was asked for"
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in self._exclude):
            return "excluded"
        if _NO_PAGES.fullmatch(PurePosixPath(unquote(bare)).suffix):
            return "no page by its name"
        if len(parts) > MAX_FOLDERS or max(Counter(parts).values(), default=0) > MAX_REPEATS:
            return "a path that seems to have no end"
        if query:
            self._variants[origin_of(url) + bare] += 1
            if len(query) > MAX_QUERY or self._variants[origin_of(url) + bare] > MAX_VARIANTS:
                return "too many variants of one address"
        return ""
