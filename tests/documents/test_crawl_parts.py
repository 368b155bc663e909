"""What a crawl is made of: addresses, scope, robots.txt, sitemaps, names and front matter of files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from crawling import NOW, OWN
from hypothesis import given
from hypothesis import strategies as st

from ilab.core.events import Bus
from ilab.core.web import Web
from ilab.documents.crawl import crawler, robots
from ilab.documents.crawl.crawler import Order
from ilab.documents.crawl.pages import divided, file_name, folded, front_matter
from ilab.documents.crawl.robots import read_rules
from ilab.documents.crawl.scope import Scope, one_spelling
from ilab.documents.crawl.sitemap import read_sitemap
from ilab.errors import InputError


def test_robots_rules_of_rfc_9309() -> None:
    rules = read_rules(
        b"\xef\xbb\xbfUser-Agent: ILAB\nAllow: /a/b\nDisallow: /a\nDisallow: /*.gif$\nCrawl-delay: 2.5\n\n"
        b"User-agent: *\nDisallow: /\nSitemap: https://h/s.xml\n\xff\xfe\n"
    )
    allowed = {path: rules.allow(f"https://h{path}") for path in ("/a", "/a/b", "/a/bc", "/x.gif", "/x.gifs", "/")}
    assert allowed == {"/a": False, "/a/b": True, "/a/bc": True, "/x.gif": False, "/x.gifs": True, "/": True}
    assert (rules.delay, rules.sitemaps) == (2.5, ("https://h/s.xml",))
    assert read_rules(b"User-agent: *\nRequest-rate: 1/5\n").delay == 5
    assert read_rules(b"<!DOCTYPE html><p>Not found</p>").allow("https://h/")
    assert read_rules(b"#" * 600 * 2**10 + b"\nUser-agent: *\nDisallow: /").allow("https://h/")


def test_servers_of_others_get_a_pause(tmp_path: Path) -> None:
    with Web(OWN) as web, pytest.raises(InputError, match="too short"):
        crawler.crawl(Order(("https://example.org/",), tmp_path, delay=0.0), web, Bus().for_step("crawl"), NOW)
    with Web(OWN) as web:
        manners = robots.Manners(web, 0.0)
        assert manners._pause("https://example.org") == robots.LEAST_DELAY
        assert manners._pause("http://127.0.0.1:80") == 0.0


def test_sitemaps_do_not_blow_up() -> None:
    image = "http://www.google.com/schemas/sitemap-image/1.1"
    text = (
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:i="{image}"><url><loc> https://h/a </loc>'
        "<i:image><i:loc>https://h/a.png</i:loc></i:image></url></urlset>"
    )
    assert read_sitemap(text.encode()).pages == ("https://h/a",)
    assert read_sitemap(b"\xef\xbb\xbfhttps://h/a\nnothing\nhttps://h/b\n").pages == ("https://h/a", "https://h/b")
    with pytest.raises(InputError, match="unpacks to more than 50 MiB"):
        read_sitemap(gzip.compress(b"\0" * 60 * 2**20))
    with pytest.raises(InputError, match="gzip"):
        read_sitemap(b"\x1f\x8bjunk")
    with pytest.raises(InputError, match="no sitemap"):
        read_sitemap(b"<html><br></html>")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE u [<!ENTITY l0 "ha">{laughs}]><urlset><url><loc>https://h/&l11;</loc></url></urlset>'
    try:
        assert all(len(address) < 1000 for address in read_sitemap(bomb.encode()).pages)
    except InputError as error:
        assert "no sitemap" in error.message
    stolen = '<!DOCTYPE u [<!ENTITY x SYSTEM "file:///etc/passwd">]><urlset><url><loc>&x;</loc></url></urlset>'
    assert "root" not in str(read_sitemap(stolen.encode()))


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("HTTP://Example.ORG:80", "http://example.org/"),
        ("https://example.org:443/a/../b/./c#x", "https://example.org/b/c"),
        ("https://example.org/%7euser/%c3%a9%2f", "https://example.org/~user/%C3%A9%2F"),
        ("https://example.org/a/%2e%2e/b", "https://example.org/b"),
        ("https://example.org/?utm_source=x&b=2&fbclid=1&a=1", "https://example.org/?b=2&a=1"),
        ("https://example.org/a?", "https://example.org/a"),
        ("https://müller.example/größe", "https://xn--mller-kva.example/gr%C3%B6%C3%9Fe"),
        ("https://example.org./a", "https://example.org/a"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("mailto:a@example.org", ""),
        ("https://me:secret@example.org/", ""),
    ],
)
def test_an_address_has_one_spelling(given: str, spelled: str) -> None:
    assert one_spelling(given) == spelled
    assert not spelled or one_spelling(spelled) == spelled


def test_scope_is_what_lies_below_a_start() -> None:
    scope = Scope()
    scope.start("https://h/docs/guide")
    inside = {
        path: scope.covers(f"https://h{path}")
        for path in ("/docs/guide", "/docs/guide?a=1", "/docs/guide/a", "/docs/guides")
    }
    assert inside == {"/docs/guide": True, "/docs/guide?a=1": True, "/docs/guide/a": True, "/docs/guides": False}
    page_scope = Scope()
    page_scope.start("https://h/docs/index.html")
    assert page_scope.covers("https://h/docs/a") and not page_scope.covers("https://h/other")
    assert page_scope.adopted("http://h/docs/a#b") == "https://h/docs/a"
    assert page_scope.why_not("https://h/docs/logo.PNG") == "no page by its name"


@given(st.lists(st.text(max_size=300), min_size=1, max_size=20))
def test_names_are_safe_and_unique(paths: list[str]) -> None:
    urls = {one_spelling(f"https://example.org/{path}") for path in paths} - {""}
    taken: set[str] = set()
    for url in sorted(urls):
        name = file_name(url, ".md", taken)
        assert name == Path(name).name and not name.startswith((".", "-")) and name.endswith(".md")
        assert len(name.encode()) < 140
        assert name.isprintable() and not set(name) & set('/\\:*?"<>|')
        taken.add(folded(name))
    assert len(taken) == len(urls)


def test_names_can_be_read() -> None:
    names = {
        "https://docs.example.org/": "docs-example-org.md",
        "https://docs.example.org/Guide/install_it.html": "docs-example-org-Guide-install_it.md",
        "https://docs.example.org/guide/index.html": "docs-example-org-guide.md",
        "https://docs.example.org/v1.2/a?page=2": "docs-example-org-v1-2-a-page-2.md",
        "https://docs.example.org/gr%C3%B6%C3%9Fe": "docs-example-org-größe.md",
        "https://docs.example.org/..%2F..%2Fetc%2Fpasswd": "docs-example-org-etc-passwd.md",
    }
    assert {url: file_name(url, ".md", ()) for url in names} == names
    again = file_name("https://docs.example.org/", ".md", {"docs-example-org.md"})
    assert again != "docs-example-org.md" and again.startswith("docs-example-org-")


@given(st.dictionaries(st.sampled_from(["source", "title"]), st.text(max_size=100)), st.text(max_size=100))
def test_front_matter_comes_back(facts: dict[str, str], text: str) -> None:
    data = (front_matter(facts) + text).encode("utf-8", "replace")
    read, body = divided(data)
    assert body == text.encode("utf-8", "replace").replace(b"\r\n", b"\n")
    assert all("\n" not in value and value.isprintable() for value in read.values())
    assert (
        read.get("title", "").split()
        == "".join(c for c in " ".join(facts.get("title", "").split()) if c.isprintable()).split()
    )
