"""Which part of a page is its content, and which elements inside it are furniture of the site.

The content is, in this order: what a CSS selector names; the container that a known documentation generator or wiki
uses; ``<main>``, or the only ``<article>``; else the smallest element that holds most of the page's running text
(text outside links), as readability does, but found in one pass and without dropping anything from inside it.

Furniture is told by tag, role and the exact words of ``class`` and ``id``, never by how much text there is: a
heuristic that guesses about sentences loses some.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from lxml.etree import _Element, iterwalk

from ilab.documents.html.elements import NO_TEXT, name_of
from ilab.documents.html.hidden import Unseen, is_for_screen_readers
from ilab.documents.html.selector import parse
from ilab.errors import InputError

_CONTENT = (  # containers of generators and wikis, and then of anybody; the more special before the more general
    {".theme-doc-markdown"},  # Docusaurus
    {".md-content__inner"},  # Material for MkDocs
    {"article", ".doc"},  # Antora
    {".sl-markdown-content"},  # Starlight
    {".vp-doc"},  # VitePress
    {".bd-article"},  # PyData theme of Sphinx
    {".devsite-article-body"},
    {".mw-parser-output"},  # MediaWiki
    {"article", ".markdown-body"},  # GitHub
    {".td-content"},  # Docsy
    {"main"},
    {"role=main"},  # Sphinx
    {"article"},
    {"itemprop=articleBody"},
    {"#main-content"},
    {"#content"},
    {".entry-content"},
)
_CONTENT_NAMES = frozenset(name for names in _CONTENT for name in names)
_ENOUGH = 0.2  # of the page's running text must stand in a container that is taken by its name
_MOST = 0.85  # of the running text must stay when an element is taken for its parent
_CONTAINERS = frozenset({"body", "div", "section", "article", "main", "table", "tbody", "tr", "td", "form", "center"})

_NEAR = 8  # ancestors that are asked what a header is the header of
_TAGS = frozenset({"nav", "aside", "footer", "button", "dialog", "select", "textarea", "menu"})
_ROLES = frozenset({
    "navigation", "banner", "contentinfo", "complementary", "search", "menu", "menubar", "toolbar", "dialog",
    "alertdialog", "tooltip", "button", "doc-toc", "doc-backlink",
})  # fmt: skip
_NAMES = frozenset({
    "breadcrumb", "breadcrumbs", "theme-doc-breadcrumbs", "wy-breadcrumbs", "md-path", "toolbar", "page-versions",
    "sidebar", "sphinxsidebar", "sphinxsidebarwrapper", "side-nav", "sidenav", "navbar", "nav-bar", "navigation",
    "navbox", "toc", "table-of-contents", "tableofcontents", "on-this-page", "theme-doc-toc-mobile", "toc-mobile",
    "page-toc", "pagination", "pagination-nav", "pager", "prev-next", "prev-next-area", "post-navigation", "page-nav",
    "rst-footer-buttons", "edit-this-page", "theme-edit-this-page", "edit-page", "edit-link", "edit-page-link",
    "mw-editsection", "edit-on-github", "md-content__button", "md-source-file", "md-feedback", "theme-doc-footer",
    "last-updated", "page-metadata", "share", "sharing", "social", "social-share", "sharedaddy", "share-buttons",
    "related", "related-posts", "jp-relatedposts", "newsletter", "subscribe", "feedback", "page-feedback",
    "was-this-helpful", "comment-respond", "site-header", "site-footer", "page-footer", "footer", "masthead",
    "catlinks", "printfooter", "noprint", "mw-jump-link", "skip-link", "skip-to-content", "skiplink", "copy-button",
    "copybtn", "copy-btn", "clipboard-btn", "headerlink", "header-anchor", "heading-anchor", "hash-link",
    "anchor-link", "anchorjs-link", "permalink", "footnote-backref", "data-footnote-backref", "footnote-back",
    "fn-backref", "linenos", "linenodiv", "lineno", "line-numbers-rows", "hljs-ln-numbers", "advertisement", "ads",
    "adsbygoogle",
})  # fmt: skip
_COOKIES = re.compile(r"(?:^|[-_ ])(?:cookies?|gdpr|onetrust|cc)[-_](?:banner|bar|notice|consent|window|popup|law)")
_ADMONITIONS = frozenset({
    "admonition", "admonitionblock", "theme-admonition", "callout", "markdown-alert", "alert", "starlight-aside",
    "hint", "custom-block", "note", "notice",
})  # fmt: skip
_ICONS = re.compile(r"(?:^| )(?:fa[srbl]?|material-icons\S*|material-symbols\S*|glyphicon|octicon|icon)(?: |$)")
_EDIT = re.compile(
    r"(?:edit|improve|suggest (?:an )?edits?(?: to)?|view|show)(?: this)?(?: page)?(?: source)?"
    r"(?: on (?:github|gitlab))?\W*",
    re.IGNORECASE,
)
_TITLED = frozenset({"h1", "h2", "h3", "h4", "h5", "h6", "dt", "caption", "figcaption"})
_BACK = frozenset({"↩", "↑", "⤴", "^"})
_ANCHORS = frozenset({"", "#", "¶", "§", "\U0001f517", "link", "permalink", "anchor"})


def classes(element: _Element) -> frozenset[str]:
    """The words of ``class``, lower case."""
    return frozenset((element.get("class") or "").lower().split())


def is_admonition(element: _Element) -> bool:
    """Whether this is a note, tip, warning … in a box of its own."""
    return name_of(element) in ("div", "aside", "section", "blockquote") and not _ADMONITIONS.isdisjoint(
        classes(element)
    )


def is_furniture(element: _Element, name: str) -> bool:
    """Whether ``element`` belongs to the site rather than to the page's text."""
    if name in ("html", "body", "main", "article"):
        return False
    if name in _TAGS or element.get("role") in _ROLES:
        return not (_is_cited(element) if name == "footer" else name == "aside" and is_admonition(element))
    if name == "header":
        around = itertools.islice(element.iterancestors(), _NEAR)
        return not any(parent.tag in ("article", "main", "section") for parent in around)
    words = classes(element)
    identity = element.get("id")
    names = words | {identity.lower()} if identity else words
    if names and (not _NAMES.isdisjoint(names) or _COOKIES.search(" ".join(names))):
        return True
    if words and (is_for_screen_readers(element) or "katex-html" in words):  # KaTeX: the formula's source is beside it
        return True
    if name == "td" and "gutter" in words:
        return True
    if name == "a":
        return _is_edit_link(element) or _is_anchor(element)
    icon = name in ("i", "span") and words and element.get("title") is None
    return bool(icon and element.get("aria-hidden") == "true" and _ICONS.search(" ".join(words)))


def _is_cited(footer: _Element) -> bool:
    """The footer of a quotation says who is quoted."""
    parent = footer.getparent()
    return parent is not None and parent.tag in ("blockquote", "figure")


def _short_text(element: _Element) -> str | None:
    """The text of a link with few nodes in it, ``None`` for others."""
    pieces: list[str] = []
    for piece in element.itertext():
        pieces.append(str(piece))
        if len(pieces) > 8 or len(piece) > 60:
            return None
    return " ".join("".join(pieces).split())


def _is_edit_link(link: _Element) -> bool:
    text = _short_text(link)
    return bool(text and " " in text and _EDIT.fullmatch(text))


def _is_anchor(link: _Element) -> bool:
    """A mark in a heading (pilcrow, hash) that links to the heading itself, or one that leads back from a footnote."""
    if not (link.get("href") or "").startswith("#"):
        return False
    text = _short_text(link)
    if text is None:
        return False
    text = text.strip("\u200b\ufe0e ")
    if text in _BACK:
        return True
    parent = link.getparent()
    return parent is not None and name_of(parent) in _TITLED and text.lower() in _ANCHORS


@dataclass
class _Share:
    """Running text below one container, and below the child container that holds most of it."""

    element: _Element
    text: int = 0
    headings: int = 0
    best: _Share | None = None


def main_content(body: _Element, unseen: Unseen, selector: str = "") -> list[_Element]:
    """The elements that hold the content of the page, in order, none inside another.

    Raises ``InputError`` for a ``selector`` that is no CSS or matches nothing.
    """
    if selector:
        return _selected(body, selector)
    share = _measured(body, unseen)
    for found in _containers(body):
        if len(found) == 1 and not is_furniture(found[0], name_of(found[0])):
            inner = _measured(found[0], unseen)
            if inner.text and inner.text >= _ENOUGH * share.text:
                return _only_article(found[0])
    while share.best and share.best.text >= _MOST * share.text and share.best.headings == share.headings:
        share = share.best
    return [share.element]


def _containers(body: _Element) -> list[list[_Element]]:
    """For each way to name the content, the elements so named that are in no other one."""
    found: list[list[_Element]] = [[] for _ in _CONTENT]
    inside: dict[int, _Element] = {}
    for event, element in iterwalk(body, events=("start", "end")):
        names = {name_of(element), *(f".{word}" for word in (element.get("class") or "").split())}
        names |= {f"#{element.get('id')}", f"role={element.get('role')}", f"itemprop={element.get('itemprop')}"}
        if _CONTENT_NAMES.isdisjoint(names):
            continue
        for at, wanted in enumerate(_CONTENT):
            if event == "start" and at not in inside and wanted <= names:
                inside[at] = element
                found[at].append(element)
            elif event == "end" and inside.get(at) is element:
                del inside[at]
    return found


def _only_article(element: _Element) -> list[_Element]:
    """The one article in ``<main>``: what stands around it is lists of other pages."""
    articles = parse("article").outermost(element)
    return articles if element.tag == "main" and len(articles) == 1 else [element]


def _selected(body: _Element, selector: str) -> list[_Element]:
    parent = body.getparent()
    found = parse(selector).outermost(body if parent is None else parent)
    if not found:
        raise InputError(
            f"the selector {selector!r} matches nothing on this page",
            hint="Look at the page's HTML, or leave the selector out.",
        )
    return found


def _measured(root: _Element, unseen: Unseen) -> _Share:
    """Count the running text in and below ``root``: characters outside links, furniture and unseen elements."""
    stack = [_Share(root)]
    links = 0
    walk = iterwalk(root, events=("start", "end"))
    for event, element in walk:
        name = name_of(element)
        if event == "end":
            links -= name == "a"
            _leave(stack, element)
            if element is not root:
                stack[-1].text += 0 if links else _visible(element.tail)
            continue
        links += name == "a"
        if element is not root and (name in NO_TEXT or element in unseen.gone or is_furniture(element, name)):
            walk.skip_subtree()
            continue
        if element is not root and name in _CONTAINERS:
            stack.append(_Share(element))
        stack[-1].headings += name == "h1"
        stack[-1].text += 0 if links else _visible(element.text)
    return stack[0]


def _leave(stack: list[_Share], element: _Element) -> None:
    """Add what ``element`` holds, if it is the innermost container, to the one around it."""
    if len(stack) == 1 or element is not stack[-1].element:
        return
    inner, outer = stack.pop(), stack[-1]
    outer.text += inner.text
    outer.headings += inner.headings
    if outer.best is None or inner.text > outer.best.text:
        outer.best = inner


def _visible(text: str | None) -> int:
    return len(text.strip()) if text else 0
