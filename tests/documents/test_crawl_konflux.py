"""A crawl of a documentation site made of 38 real pages gives back the text of the originals, block by block."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from web_server import Answer, serve

from ilab.config import WebWhere
from ilab.core.events import Bus
from ilab.core.web import Web
from ilab.documents.convert import document, read
from ilab.documents.crawl.crawler import Order, crawl

ORIGINALS = "data/konflux-taxonomy/markdown"


@pytest.fixture
def builder() -> ModuleType:
    """The module that renders Markdown as a documentation site; its name is taken by the standard library."""
    spec = importlib.util.spec_from_file_location("documentation_site", Path(__file__).with_name("site.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(tokens: list[Token]) -> str:
    """The text of an inline token's children as a reader sees it."""
    parts = []
    for token in tokens:
        if token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif token.type == "image":
            parts.append(plain(token.children or []))
        elif token.content:
            parts.append(token.content)
    return "".join(parts)


def blocks(markdown: str) -> list[str]:
    """The text of every paragraph, heading, list item, table cell and code block, in order, blanks folded."""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    texts = []
    for token in parser.parse(markdown):
        if token.type == "inline":
            texts.append(" ".join(plain(token.children or []).split()))
        elif token.type in ("fence", "code_block"):
            texts.append(token.content)
    return [text for text in texts if text.strip()]


def test_a_crawl_gives_back_the_text_of_the_originals(shared: Path, builder: ModuleType, tmp_path: Path) -> None:
    addresses = builder.build_site(shared / ORIGINALS, tmp_path / "site")
    pages = {f"/{path.parent.name}/": path for path in (tmp_path / "site").glob("*/index.html")}
    routes = {address: Answer(path.read_bytes()) for address, path in pages.items()}
    routes["/"] = Answer((tmp_path / "site" / "index.html").read_bytes())
    settings = WebWhere(private_hosts=("127.0.0.1",))
    with serve(dict(routes)) as site, Web(settings) as web:
        order = Order((f"{site.url}/",), tmp_path / "markdown", delay=0.0)
        report = crawl(order, web, Bus().for_step("crawl"), datetime.now(UTC))
    files = {"/" + page.url.split("/", 3)[3]: page.file for page in report.of("new")}
    assert set(files) == {"/", *addresses}
    assert len(addresses) == 38
    different = []
    for address, original in addresses.items():
        data = (tmp_path / "markdown" / files[address]).read_bytes()
        crawled = document(read(data, files[address]), "knowledge/konflux", files[address])
        if blocks(crawled.text) != blocks(original.read_text(encoding="utf-8")):
            different.append(original.name)
    assert different == []
