"""A crawl again: what changed, what a person changed, and crawls that were interrupted."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from crawling import NOW, guide, link, order, run, states, text_of
from web_server import Answer, Site, page

from ilab.documents.crawl.journal import NAME
from ilab.documents.crawl.pages import folded
from ilab.errors import InputError, ServiceError


@pytest.fixture
def site() -> Iterator[Site]:
    with guide() as served:
        yield served


@pytest.mark.parametrize("validators", [True, False])
def test_a_second_crawl_rewrites_nothing_that_is_the_same(site: Site, tmp_path: Path, validators: bool) -> None:
    for path, answer in site.routes.items():
        assert isinstance(answer, Answer)
        site.routes[path] = replace(answer, validate=validators)
    run(order(site, tmp_path))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.md")}
    report = run(order(site, tmp_path), NOW + timedelta(days=3))
    assert {page.state for page in report.pages} == {"unchanged"}
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.md")}
    assert any("if-none-match" in headers for _, headers in site.requests) == validators


def test_new_changed_and_gone_pages_are_told(site: Site, tmp_path: Path) -> None:
    run(order(site, tmp_path))
    site.routes["/docs/"] = page("Guide", "<p>Welcome.</p>" + link("install.html", "use/", "more.html"))
    site.routes["/docs/more.html"] = page("More", "<p>There is more.</p>")
    site.routes["/docs/install.html"] = page("Install", "<p>Type that.</p>")
    del site.routes["/docs/use/"]
    later = NOW + timedelta(days=3)
    report = run(order(site, tmp_path), later)
    assert states(report) == {
        "/docs/": "changed", "/docs/install.html": "changed", "/docs/more.html": "new", "/docs/use/": "gone",
    }  # fmt: skip
    assert "Type that." in text_of(tmp_path, report, "/install.html")
    kept = tmp_path / next(page.file for page in report.of("gone"))
    assert kept.exists()
    pruned = run(order(site, tmp_path, prune=True), later + timedelta(days=3))
    assert [page.file for page in pruned.of("gone")] == [""]
    assert not kept.exists()
    dead_link = run(order(site, tmp_path), later + timedelta(days=6))
    assert states(dead_link)["/docs/use/"] == "failed"


def test_a_page_that_nothing_links_to_any_more_is_looked_at_again(site: Site, tmp_path: Path) -> None:
    run(order(site, tmp_path))
    site.routes["/docs/"] = page("Guide", "<p>Welcome.</p>")
    report = run(order(site, tmp_path), NOW + timedelta(days=3))
    assert states(report) == {"/docs/": "changed", "/docs/install.html": "unchanged", "/docs/use/": "unchanged"}


def test_what_a_person_has_changed_is_left_alone(site: Site, tmp_path: Path) -> None:
    first = run(order(site, tmp_path))
    file = tmp_path / next(page.file for page in first.pages if page.title == "Use")
    file.write_text(file.read_text().replace("Press that.", "Press this, gently."))
    site.routes["/docs/use/"] = page("Use", "<p>Press all.</p>")
    report = run(order(site, tmp_path), NOW + timedelta(days=3))
    assert states(report)["/docs/use/"] == "kept"
    del site.routes["/docs/use/"]
    run(order(site, tmp_path, prune=True), NOW + timedelta(days=6))
    assert "gently" in file.read_text()
    site.routes["/docs/use/"] = page("Use", "<p>Press all.</p>")
    file.unlink()
    assert states(run(order(site, tmp_path), NOW + timedelta(days=9)))["/docs/use/"] == "new"
    assert "Press all." in file.read_text()


def test_without_its_journal_a_crawl_still_knows_its_files(site: Site, tmp_path: Path) -> None:
    run(order(site, tmp_path))
    names = sorted(path.name for path in tmp_path.glob("*.md"))
    (tmp_path / NAME).unlink()
    report = run(order(site, tmp_path), NOW + timedelta(days=3))
    assert {page.state for page in report.pages} == {"unchanged"}
    assert sorted(path.name for path in tmp_path.glob("*.md")) == names


def test_files_of_others_are_never_written_over(site: Site, tmp_path: Path) -> None:
    other = tmp_path / f"127-0-0-1-{site.port}-DOCS-use.md"
    other.write_text("mine")
    report = run(order(site, tmp_path))
    assert other.read_text() == "mine"
    assert folded(next(page.file for page in report.pages if page.title == "Use")) != folded(other.name)


def test_a_crawl_of_something_else_into_the_same_folder_loses_nothing(site: Site, tmp_path: Path) -> None:
    run(order(site, tmp_path))
    report = run(order(site, tmp_path, starts=(f"{site.url}/blog/",), prune=True), NOW + timedelta(days=3))
    assert states(report) == {"/blog/": "new"}
    assert len(list(tmp_path.glob("*.md"))) == 4


def test_another_selector_reads_every_page_anew(site: Site, tmp_path: Path) -> None:
    for path, title in (("/docs/", "Guide"), ("/docs/install.html", "Install"), ("/docs/use/", "Use")):
        site.routes[path] = page(title, f"<div id='x'>Only {title}.</div>" + link("install.html", "use/"))
    run(order(site, tmp_path))
    report = run(order(site, tmp_path, selector="#x"), NOW + timedelta(days=3))
    assert states(report)["/docs/use/"] == "changed"
    assert text_of(tmp_path, report, "/use/").strip() == "Only Use."


def test_a_failing_server_is_left_alone_and_the_crawl_goes_on_later(site: Site, tmp_path: Path) -> None:
    numbers = [f"{n}.html" for n in range(8)]
    site.routes |= {"/docs/": page("Guide", "<p>Hi.</p>" + link("install.html", *numbers))}
    site.routes |= {f"/docs/{n}": Answer("", 502) for n in numbers}
    with pytest.raises(ServiceError, match="5 times in a row") as caught:
        run(order(site, tmp_path))
    assert "goes on from there" in caught.value.hint
    site.routes |= {f"/docs/{n}": page(n, f"<p>Number {n}.</p>") for n in numbers}
    site.requests.clear()
    report = run(order(site, tmp_path), NOW + timedelta(minutes=10))
    assert report.resumed
    assert {page.state for page in report.pages} == {"new"}
    assert len(report.pages) == 11  # the page that only install.html names is one of them
    assert not {"/docs/", "/docs/install.html"} & set(site.paths)
    assert not run(order(site, tmp_path), NOW + timedelta(minutes=20)).resumed


def test_an_interrupted_crawl_is_begun_again_after_a_day(site: Site, tmp_path: Path) -> None:
    site.routes["/docs/"] = page("Guide", "<p>Hi.</p>" + link(*(f"{n}.html" for n in range(8))))
    site.routes |= {f"/docs/{n}.html": Answer("", 502) for n in range(8)}
    with pytest.raises(ServiceError):
        run(order(site, tmp_path))
    for number in range(8):
        del site.routes[f"/docs/{number}.html"]
    report = run(order(site, tmp_path), NOW + timedelta(hours=25))
    assert not report.resumed
    assert states(report)["/docs/"] == "unchanged"


def test_a_killed_crawl_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    arrived, release = threading.Event(), threading.Event()

    def slow(handler: http.server.BaseHTTPRequestHandler) -> None:
        arrived.set()
        release.wait(30)

    names = [f"{n}.html" for n in range(6)]
    site.routes |= {f"/docs/{name}": page(name, f"<p>Number {name}.</p>") for name in names}
    site.routes |= {"/docs/": page("Guide", "<p>Hi.</p>" + link(*names)), "/docs/4.html": slow}
    script = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
        "from ilab.config import WebWhere; from ilab.core.events import Bus; from ilab.core.web import Web\n"
        "from ilab.documents.crawl.crawler import Order, crawl\n"
        "with Web(WebWhere(private_hosts=('127.0.0.1',))) as web:\n"
        "    crawl(Order((sys.argv[1],), Path(sys.argv[2]), delay=0.0), web, Bus().for_step('crawl'), datetime.now(UTC))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, f"{site.url}/docs/", str(tmp_path)])
    try:
        assert arrived.wait(30)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        release.set()
    with (tmp_path / NAME).open("a") as handle:
        handle.write('{"url": "torn')
    site.routes["/docs/4.html"] = page("4", "<p>Number 4.</p>")
    site.requests.clear()
    report = run(order(site, tmp_path), datetime.now(UTC))
    assert report.resumed
    assert {page.state for page in report.pages} == {"new"}
    assert len(report.pages) == 7
    assert not {"/docs/", "/docs/0.html", "/docs/3.html"} & set(site.paths)
    assert {"/docs/4.html", "/docs/5.html"} <= set(site.paths)


def test_a_journal_cannot_lead_out_of_its_folder(site: Site, tmp_path: Path) -> None:
    victim = tmp_path / "victim.md"
    victim.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    lines = [
        f'{{"url": "{site.url}/docs/{n}", "file": "{name}", "digest": "x"}}'
        for n, name in enumerate(("../victim.md", str(victim), ".hidden", "a/../../victim.md"))
    ]
    (out / NAME).write_text("\n".join([*lines, "[]", "nonsense", '{"crawl": 7, "finished": false}', '{"url": 3}', ""]))
    report = run(order(site, out, prune=True))
    assert not report.of("gone")
    assert victim.read_text() == "precious"
    (out / NAME).unlink()
    (out / NAME).symlink_to(victim)
    with pytest.raises(InputError, match="is a link"):
        run(order(site, out))
    assert victim.read_text() == "precious"
