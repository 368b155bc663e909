"""The Konflux pages, rendered to HTML and dressed as a documentation site, come back equal in text and structure."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ilab.documents.html.reader import links, to_markdown

PAGES = Path(__file__).parents[3] / "shared" / "data" / "konflux-taxonomy" / "markdown"
READER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
OWN = {
    "install.md": "# Install\n\nRun `ilab` with *care* and **at once**:\n\n```bash\npip install ilab\n\nilab doctor\n```\n\n"
    "1. First\n2. Second\n   - a\n   - b\n\n> Mind the [gap](../gap/) | and \\*this\\*.\n",
    "table.md": "Tables\n======\n\n| Name | Value |\n| --- | --- |\n| `a\\|b` | 1 < 2 |\n|  | **x** &amp; y |\n\n* one\n\n  two\n* three\n",
    "odd.md": "# Odd\n\n- - nested\n- 3. three\n\nline\\\nbreak ![pic](a.png) <https://ex.org/a_b_c>\n\n---\n\n    indented  code\n",
}


@cache
def site() -> ModuleType:
    """``site.py`` beside this file; its name is taken by the standard library."""
    spec = importlib.util.spec_from_file_location("documentation_site", Path(__file__).with_name("site.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["own", "konflux"])
def pages(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """The Markdown files: a few of our own, or all of the shared ones where those are at hand."""
    if request.param == "konflux":
        if not PAGES.is_dir():
            pytest.skip("no ../shared beside this checkout")
        return sorted(PAGES.glob("*.md"))
    for name, text in OWN.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return sorted(tmp_path.glob("*.md"))


def plain(token: Token) -> str:
    inside = token.children or []
    text = "".join(
        " " if child.type.endswith("break") else plain(child) if child.children else child.content for child in inside
    )
    return " ".join(text.split())


def text_blocks(markdown: str) -> Iterator[tuple[str, str]]:
    """Kind and text of every heading, paragraph, list item, code block and table cell, in order."""
    before = ""
    for token in READER.parse(markdown):
        if token.type == "inline" and plain(token):
            yield before, plain(token)
        elif token.type in ("fence", "code_block"):
            yield "code", token.content
        before = token.tag


def layout(rendered: str) -> str:
    """HTML without what a browser does not show: line ends outside ``<pre>``."""
    parts = re.split(r"(<pre>.*?</pre>)", rendered, flags=re.DOTALL)
    shown = (
        part if part.startswith("<pre>") else " ".join(re.sub(r"(<[^>]*>)\s+(?=<)", r"\1", part).split())
        for part in parts
    )
    return re.sub(
        r"\s*(</?(?:p|li|ul|ol|h\d|blockquote|table|thead|tbody|tr|td|th|pre)\b[^>]*>)\s*", r"\1", "".join(shown)
    )


def test_every_page_of_the_site_comes_back_equal_in_text(pages: list[Path]) -> None:
    compared = 0
    for path in pages:
        wanted = list(text_blocks(path.read_text(encoding="utf-8")))
        for variant in range(4):  # <main>, <article>, a generator's container, a plain <div>
            converted = to_markdown(site().page(path, pages, variant))
            assert list(text_blocks(converted.text)) == wanted, (path.name, variant)
            assert converted.hidden == ()
        compared += len(wanted)
    assert compared == (1372 if len(pages) == 38 else 22)


def test_structure_comes_back_and_stays(pages: list[Path]) -> None:
    for path in pages:
        rendered = site().render(path.read_text(encoding="utf-8"))
        once = to_markdown(rendered, whole=True).text
        assert layout(site().render(once)) == layout(rendered), path.name
        assert to_markdown(site().render(once), whole=True).text == once, path.name


def test_the_built_site_links_all_its_pages(pages: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "site"
    built = site().build_site(pages[0].parent, out)
    assert sorted(built.values()) == pages
    start = links((out / "index.html").read_bytes(), "http://127.0.0.1:8000/")
    assert [url.removeprefix("http://127.0.0.1:8000") for url in start.urls] == list(built)
    for address, path in built.items():
        data = (out / address.strip("/") / "index.html").read_bytes()
        found = links(data, f"http://127.0.0.1:8000{address}")
        assert found.canonical == f"http://127.0.0.1:8000{address}"
        assert set(start.urls) <= set(found.urls)
        title = to_markdown(data).title
        first = next((text for kind, text in text_blocks(path.read_text(encoding="utf-8")) if kind == "h1"), path.stem)
        assert title == first
