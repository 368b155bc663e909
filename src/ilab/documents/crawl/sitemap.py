"""Sitemaps (sitemaps.org): addresses of pages that no link may lead to, and of further sitemaps.

XML, plain text with an address a line, either of them compressed. Neither compression nor entities can blow one up.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lxml import etree

from ilab.core.web import Web
from ilab.errors import IlabError, InputError

MAX_BYTES = 50 * 2**20  # sitemaps.org: the most a sitemap may hold, uncompressed
MAX_ADDRESSES = 50_000  # likewise
MAX_FILES = 50


@dataclass(frozen=True)
class Sitemap:
    pages: tuple[str, ...] = ()
    sitemaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Discovered:
    """The pages of all sitemaps in order, and what was wrong with sitemaps that could not be read."""

    pages: tuple[str, ...]
    notes: tuple[str, ...]


def discover(web: Web, urls: Iterable[str], wait: Callable[[str], None]) -> Discovered:
    """The pages named by the sitemaps at ``urls`` and by those they name, at most 50 files.

    ``wait`` returns when the server of an address may be asked. A missing sitemap is no problem.
    """
    waiting = list(dict.fromkeys(urls))
    pages: dict[str, None] = {}
    notes: list[str] = []
    for url in waiting:  # grows while it is read
        wait(url)
        try:
            reply = web.follow(url)
            found = read_sitemap(reply.body) if reply.found else Sitemap()
        except IlabError as error:
            notes.append(f"{url}: {error.message}")
            continue
        pages.update(dict.fromkeys(found.pages))
        room = MAX_FILES - len(waiting)
        waiting += [name for name in dict.fromkeys(found.sitemaps) if name not in waiting][:room]
        if len(pages) >= MAX_ADDRESSES:
            notes.append(f"{url}: of the sitemaps' pages only the first {MAX_ADDRESSES:,} were read")
            break
    return Discovered(tuple(pages)[:MAX_ADDRESSES], tuple(notes))


def read_sitemap(data: bytes) -> Sitemap:
    """What stands in one sitemap file. Raises ``InputError`` for damaged or oversized ones."""
    data = _unpacked(data)
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        lines = (line.strip() for line in data.decode("utf-8-sig", "replace").splitlines())
        return Sitemap(tuple(line for line in lines if line.startswith(("http://", "https://")))[:MAX_ADDRESSES])
    found: dict[str, list[str]] = {"url": [], "sitemap": []}
    try:
        parser = etree.iterparse(
            io.BytesIO(data),
            events=("end",),
            tag="{*}loc",
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        )
        for _event, element in parser:
            parent = element.getparent()
            if parent is None:
                continue
            kind = etree.QName(parent).localname  # <image:loc> stands in <image:image>
            if kind in found and len(found[kind]) < MAX_ADDRESSES:
                found[kind].append((element.text or "").strip())
            grandparent = parent.getparent()
            while grandparent is not None and len(grandparent) > 1:
                del grandparent[0]  # read already: memory stays flat
    except etree.XMLSyntaxError as error:
        if not any(found.values()):
            raise InputError(f"is no sitemap: {error.msg}") from error
    return Sitemap(*(tuple(address for address in found[kind] if address) for kind in ("url", "sitemap")))


def _unpacked(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            plain = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("is no valid gzip file") from error
    if len(plain) > MAX_BYTES:
        raise InputError(f"unpacks to more than {MAX_BYTES // 2**20} MiB")
    return plain
