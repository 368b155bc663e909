"""HTML to Markdown: the content of a page as a reader sees it, nothing more and nothing less.

Bytes are decoded by what they declare (byte order mark, HTTP header, ``<meta charset>``), parsed by libxml2, and
taken apart in four steps, each linear in the size of the page and without recursion:

    html_hidden   what nobody sees        html_main     what is content and what furniture
    html_writer   elements to blocks      html_inline, html_blocks   blocks to text

A page is untrusted: nothing is fetched, scripts and styles never run, and size, number of tags and depth are
limited.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from lxml.etree import HTMLParser, LxmlError, _Element, fromstring

from ilab.documents.converted import Converted
from ilab.documents.html.blocks import markdown
from ilab.documents.html.elements import text_of
from ilab.documents.html.hidden import Unseen, unseen
from ilab.documents.html.main import main_content
from ilab.documents.html.writer import blocks
from ilab.errors import InputError

MAX_BYTES = 20 * 1024 * 1024
MAX_TAGS = 1_000_000

_FOLLOWED = frozenset({"http", "https", "mailto", "ftp"})
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_XML_DECLARED = re.compile(rb"<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([A-Za-z0-9_.-]{1,40})")
_LATIN = frozenset({"ascii", "iso8859-1", "iso8859-9", "tis-620"})  # browsers read them as their Windows supersets
_ENCODINGS = re.compile(
    r"utf-8|utf-16(?:-[lb]e)?|cp125\d|cp866|cp874|iso8859-\d+|koi8-[ru]|mac-\w+|gbk|gb18030|gb2312|big5(?:hkscs)?|"
    r"euc_(?:jp|kr)|shift_jis|iso2022_jp|cp949|cp932"
)
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_CONTROL = re.compile(r"[\x01-\x08\x0b\x0e-\x1f\x7f]")
_END_TAGS = re.compile(r"</(?:html|body)\s*>", re.IGNORECASE)
_BODY = re.compile(r"<(?:body|frameset)[\s>]", re.IGNORECASE)
_IN_HEAD = re.compile(
    r"\s+|<!--.*?-->|<[!?][^>]*>|</?(?:html|head|meta|link|base)(?![\w-])[^>]*>"
    r"|<(title|script|style|noscript|template)(?![\w-])[^>]*>.*?</\1\s*>",
    re.IGNORECASE | re.DOTALL,
)
_SEPARATORS = (" | ", " - ", " – ", " — ", " · ", " :: ", " « ", " » ", " • ")


@dataclass(frozen=True)
class Links:
    """Where a page leads: ``urls`` are absolute http(s) addresses without fragments, each once, in the page's order.

    ``canonical`` is the address the page gives itself (``""``: none); ``noindex`` and ``nofollow`` are what it asks of
    robots.
    """

    urls: tuple[str, ...]
    canonical: str = ""
    noindex: bool = False
    nofollow: bool = False


def read(data: bytes) -> Converted:
    """The content of an HTML file. Raises ``InputError`` for what is no HTML, or too much of it."""
    return to_markdown(data)


def to_markdown(
    html: bytes | str, *, base: str = "", selector: str = "", whole: bool = False, charset: str = ""
) -> Converted:
    """The content of a page as Markdown, its title, and the text that nobody sees.

    ``base`` is the page's address: with it, links become absolute. ``selector`` (CSS) names the content; without it it
    is found. ``whole`` keeps the complete body and leaves out invisible things alone. ``charset`` is what the HTTP
    header says.

    Raises ``InputError`` for a ``selector`` that is wrong or matches nothing, for binary data, and for pages over 20
    MiB, a million tags or 2,048 levels.
    """
    root = _parsed(html, charset)
    if root is None:
        return Converted("")
    hidden = unseen(root)
    body = root.find("body")
    body = root if body is None else body
    parts = [body] if whole and not selector else main_content(body, hidden, selector)
    address = _base(root, base)
    written = [blocks(part, hidden, lambda url: _resolved(address, url), whole=whole) for part in parts]
    return Converted(
        markdown([block for part in written for block in part]), _title(root, parts, hidden), (), hidden.told
    )


def links(html: bytes | str, base: str, *, charset: str = "") -> Links:
    """The links of a page at ``base``, hidden ones too, for menus may be. Raises ``InputError`` as ``to_markdown``."""
    root = _parsed(html, charset)
    if root is None:
        return Links(())
    address = _base(root, base)
    found: dict[str, None] = {}
    canonical = ""
    for element in root.iter("a", "area", "link"):
        url = _web_address(address, element.get("href"))
        if element.tag == "link":
            relations = (element.get("rel") or "").lower().split()
            canonical = canonical or (url if "canonical" in relations else "")
        elif url:
            found.setdefault(url)
    asked = {
        word.strip()
        for meta in root.iter("meta")
        if (meta.get("name") or "").lower() == "robots"
        for word in (meta.get("content") or "").lower().split(",")
    }
    nothing = "none" in asked
    return Links(tuple(found), canonical, nothing or "noindex" in asked, nothing or "nofollow" in asked)


def _parsed(html: bytes | str, charset: str) -> _Element | None:
    """The root of the page, ``None`` for one without any content."""
    if len(html) > MAX_BYTES:
        raise InputError(f"the page is larger than {MAX_BYTES // 2**20} MiB", hint="Split it, or leave it out.")
    text = html if isinstance(html, str) else _decoded(html, charset)
    if text.count("<") > MAX_TAGS:
        raise InputError(f"the page has more than {MAX_TAGS:,} tags", hint="Split it, or leave it out.")
    if text.lstrip()[:5] == "<?xml":  # XHTML: the one place where this means text
        text = _without_cdata(text)
    text = _with_body(text)
    text = _END_TAGS.sub("", _CONTROL.sub("", text).replace("\0", "\ufffd"))  # text behind </body> is shown
    parser = HTMLParser(
        encoding="utf-8", huge_tree=True, no_network=True, remove_comments=True, remove_pis=True, recover=True
    )
    try:
        root = fromstring(text.encode("utf-8", "replace"), parser=parser)
    except LxmlError as error:
        if not text.strip() or "empty" in str(error):
            return None
        raise InputError(f"the page cannot be read as HTML: {str(error)[:200]}") from error
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise InputError("the page nests its elements too deeply (2,048 levels)", hint="Leave it out.")
    return root


def _with_body(text: str) -> str:
    """``text`` with ``<body>`` written out: libxml2 leaves ``<main>`` and its like in the head without it."""
    if _BODY.search(text):
        return text
    at = 0
    while found := _IN_HEAD.match(text, at):
        at = found.end()
    return f"{text[:at]}<body>{text[at:]}"


def _without_cdata(text: str) -> str:
    """``text`` with the content of its CDATA sections written as ordinary text."""
    before, *sections = text.split("<![CDATA[")
    pieces = [before]
    for section in sections:
        inside, _, behind = section.partition("]]>")
        pieces += [inside.replace("&", "&amp;").replace("<", "&lt;"), behind]
    return "".join(pieces)


def _decoded(data: bytes, charset: str) -> str:
    """``data`` as text: by byte order mark, ``charset``, the page's own word, UTF-8, and last Windows-1252, as browsers
    do (https://html.spec.whatwg.org/#determining-the-character-encoding). Never by statistics."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    declared = _DECLARED.search(data[:4096]) or _XML_DECLARED.match(data)
    name = _encoding(charset)
    if not name and declared:
        name = _encoding(declared[1].decode("ascii")).replace("utf-16-le", "utf-8").replace("utf-16-be", "utf-8")
    if data.count(b"\0", 0, 1024) > 8 and not name.startswith("utf-16"):
        raise InputError("this is binary data, not HTML")
    if name:
        return data.decode(name, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _encoding(label: str) -> str:
    """The codec for a label, ``""`` for labels that name none a web page may have."""
    try:
        name = codecs.lookup(label.strip()).name
    except (LookupError, ValueError):
        return ""
    if name in _LATIN:
        return {"iso8859-9": "cp1254", "tis-620": "cp874"}.get(name, "cp1252")
    if name == "utf-16":
        return "utf-16-le"
    return name if _ENCODINGS.fullmatch(name) else ""


def _base(root: _Element, base: str) -> str:
    """The address that relative ones are relative to: the page's ``<base>``, itself relative to ``base``."""
    given = next((element.get("href") for element in root.iter("base") if element.get("href")), None)
    return _joined(base, given) or base if given else base


def _joined(base: str, address: str) -> str:
    """``address`` seen from ``base``; ``""`` when it is none."""
    try:
        joined = urljoin(base, address.strip())
        urlsplit(joined).port  # noqa: B018 - raises for a port that is no number
    except ValueError:
        return ""
    return joined


def _resolved(base: str, address: str) -> str:
    """The address of a link or image as written into the text; ``""`` for scripts, data and nonsense."""
    joined = _joined(base, address)
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*):", joined)
    return joined if joined and (not scheme or scheme[1].lower() in _FOLLOWED) else ""


def _web_address(base: str, address: str | None) -> str:
    """The absolute http(s) address without its fragment, ``""`` for others."""
    joined = _joined(base, address) if address is not None and address.strip() else ""
    parts = urlsplit(joined)
    return parts._replace(fragment="").geturl() if parts.scheme in ("http", "https") and parts.hostname else ""


def _title(root: _Element, parts: list[_Element], hidden: Unseen) -> str:
    """The page's title without the site's name: from ``<title>``, else ``og:title``, else the first heading."""
    inside = [found for part in parts for found in part.iter("h1")]
    headings = [_words(found) for found in inside or root.iter("h1") if found not in hidden.gone]
    head = root.find("head")
    named = "" if head is None else _words(head.find("title"))
    named = named or _property(root, "og:title")
    site = _property(root, "og:site_name")
    for separator in _SEPARATORS:
        for heading in (text for text in headings[:1] if text):
            if named.startswith(heading + separator) or named.endswith(separator + heading):
                return heading
        if site and named.endswith(separator + site):
            return named.removesuffix(separator + site).strip()
    return named or next((text for text in headings if text), "")


def _words(element: _Element | None) -> str:
    if element is None:
        return ""
    return " ".join(text_of(element).replace("¶", " ").split())


def _property(root: _Element, name: str) -> str:
    for meta in root.iter("meta"):
        if name in (meta.get("property"), meta.get("name")):
            return " ".join((meta.get("content") or "").split())
    return ""
