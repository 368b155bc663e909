"""A documentation website made of Markdown pages: what a crawler meets around the text it is after.

``build_site(markdown_dir, out)`` writes one ``index.html`` a page, in the house style of documentation generators
(header, search, navigation, sidebar, breadcrumbs, table of contents, anchors in headings, copy buttons, edit link,
previous and next, cookie banner, footer), and tells which address stands for which file. The name is that of a module of
the standard library: load it with ``importlib.util.spec_from_file_location``.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from markdown_it import MarkdownIt

_PAGE = """<!DOCTYPE html>
<html lang="en" class="no-js">
<head>
<meta charset="utf-8">
<title>{title} | Example Documentation</title>
<meta name="viewport" content="width=device-width">
<meta name="description" content="All that there is to know about {title}, told by its makers.">
<meta property="og:site_name" content="Example Documentation">
<link rel="canonical" href="{address}">
<link rel="stylesheet" href="/style.css">
<style>.modal {{ display: none }} .sr-only {{ position: absolute; left: -9999px }}</style>
<script>window.dataLayer = []; document.write("<p>Never shown to a reader</p>");</script>
</head>
<body class="layout-docs has-sidebar">
<a class="skip-link" href="#content">Skip to the main content of this page</a>
<header class="site-header" role="banner">
<a href="/" class="logo"><img src="/logo.png" alt="Example Documentation"></a>
<form role="search"><label>Search <input type="search" placeholder="Search the docs"></label><button>Go</button></form>
<nav aria-label="Main"><ul><li><a href="/">Home</a></li><li><a href="https://example.org/blog/">Blog</a></li></ul></nav>
</header>
<div class="cookie-banner" id="cookie-banner" role="dialog"><p>We use cookies to make this site better. Do you agree?</p>
<button>Accept all</button></div>
<div class="container">
<aside class="sidebar"><nav aria-label="Pages"><ul>
{menu}
</ul></nav></aside>
<{tag}{attributes}>
<nav class="breadcrumbs" aria-label="Breadcrumbs"><ol><li><a href="/">Home</a></li><li>{title}</li></ol></nav>
{text}
<div class="edit-page"><a href="https://example.org/edit/{name}">Edit this page on GitHub</a></div>
<p class="last-updated">Last updated on a day long ago.</p>
<nav class="pagination" aria-label="Neighbours"><a href="{before}">Previous page</a> <a href="{after}">Next page</a></nav>
</{tag}>
<aside class="toc"><h2>On this page</h2><ul>{contents}</ul></aside>
</div>
<div class="modal"><p>Subscribe to our newsletter to hear of every single release.</p></div>
<footer role="contentinfo"><p>© The makers of the example. All rights reserved. <a href="/privacy/">Privacy</a></p></footer>
<noscript><p>Please enable JavaScript to see this page in its full glory.</p></noscript>
</body>
</html>
"""
_CONTENT = (("main", ' id="content"'), ("article", ' class="doc"'), ("div", ' class="md-content__inner"'), ("div", ""))
_HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)
_COPY = '<button class="copy-button" title="Copy">Copy</button>'


def render(markdown: str) -> str:
    """The HTML of ``markdown`` by CommonMark with tables and strike-through; no raw HTML passes."""
    return str(MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).render(markdown))


def address_of(path: Path) -> str:
    """The address of the page made of ``path``."""
    return f"/{path.stem}/"


def decorate(rendered: str) -> str:
    """Anchors in the headings and copy buttons in the code blocks, as generators add them."""
    numbered = iter(range(1, 10_000))

    def anchored(found: re.Match[str]) -> str:
        name = f"part-{next(numbered)}"
        anchor = f'<a class="headerlink" href="#{name}" title="Link to this heading">¶</a>'
        return f'<h{found[1]} id="{name}">{found[2]}{anchor}</h{found[1]}>'

    rendered = _HEADING.sub(anchored, rendered)
    return rendered.replace("<pre>", f'<div class="highlight">{_COPY}<pre>').replace("</pre>", "</pre></div>")


def page(path: Path, neighbours: list[Path], variant: int = 0) -> str:
    """The complete HTML of the page made of ``path``; ``variant`` chooses the element that holds the content."""
    at = neighbours.index(path)
    text = decorate(render(path.read_text(encoding="utf-8")))
    title = re.search(r"<h1[^>]*>(.*?)<a", text, re.DOTALL)
    tag, attributes = _CONTENT[variant % len(_CONTENT)]
    return _PAGE.format(
        title=re.sub(r"<[^>]*>", "", title[1]) if title else html.escape(path.stem),
        address=address_of(path),
        menu="\n".join(f'<li><a href="{address_of(other)}">{html.escape(other.stem)}</a></li>' for other in neighbours),
        contents="".join(f'<li><a href="#part-{number}">Part {number}</a></li>' for number in range(1, 4)),
        tag=tag,
        attributes=attributes,
        text=text,
        name=html.escape(path.name),
        before=address_of(neighbours[at - 1]),
        after=address_of(neighbours[(at + 1) % len(neighbours)]),
    )


def build_site(markdown_dir: Path, out: Path) -> dict[str, Path]:
    """Write the site of all ``*.md`` in ``markdown_dir`` to ``out`` and give the file behind each address.

    ``out/index.html`` links every page; each page stands in ``out/<name>/index.html``.
    """
    paths = sorted(markdown_dir.glob("*.md"))
    out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        folder = out / path.stem
        folder.mkdir(exist_ok=True)
        (folder / "index.html").write_text(page(path, paths, number), encoding="utf-8")
    menu = "".join(f'<li><a href="{address_of(path)}">{html.escape(path.stem)}</a></li>' for path in paths)
    start = f"<!DOCTYPE html><title>Example Documentation</title><main><h1>Start</h1><ul>{menu}</ul></main>"
    (out / "index.html").write_text(start, encoding="utf-8")
    return {address_of(path): path for path in paths}
