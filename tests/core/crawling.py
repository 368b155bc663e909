"""What the tests of crawls share: a small guide as a website, and a crawl of it without pauses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from web_server import Site, page, serve

from ilab.config import WebWhere
from ilab.core.events import Bus
from ilab.core.web import Web
from ilab.documents.crawl.crawler import Order, Report, crawl
from ilab.documents.crawl.pages import divided

OWN = WebWhere(private_hosts=("127.0.0.1",), timeout=5)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def link(*paths: str) -> str:
    return "".join(f'<p>See <a href="{path}">{path}</a>.</p>' for path in paths)


@contextmanager
def guide() -> Iterator[Site]:
    """A site of four pages, three of them below ``/docs/``."""
    with serve({}) as served:
        served.routes |= {
            "/docs/": page(
                "Guide", "<p>Welcome.</p>" + link("install.html", "use/", "/blog/", "https://other.example/")
            ),
            "/docs/install.html": page("Install", "<p>Type this.</p>" + link("/docs/#top", "/docs/use/?utm_source=a")),
            "/docs/use/": page("Use", "<p>Press that.</p>"),
            "/blog/": page("Blog", "<p>News.</p>"),
        }
        yield served


def order(site: Site, folder: Path, **wanted: Any) -> Order:
    return replace(Order((f"{site.url}/docs/",), folder, delay=0.0), **wanted)


def run(wanted: Order, now: datetime = NOW) -> Report:
    with Web(OWN) as web:
        return crawl(wanted, web, Bus().for_step("crawl"), now)


def states(report: Report) -> dict[str, str]:
    """Path of each address -> what became of it."""
    return {"/" + page.url.split("/", 3)[3]: page.state for page in report.pages}


def text_of(folder: Path, report: Report, path: str) -> str:
    file = next(page.file for page in report.pages if page.url.endswith(path))
    return divided((folder / file).read_bytes())[1].decode()
