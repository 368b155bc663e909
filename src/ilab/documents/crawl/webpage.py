"""What a server sent, as a crawl sees it: a page with its links and its wishes, or a document."""

from __future__ import annotations

from ilab.core.web import Reply
from ilab.documents.html.reader import Links, links
from ilab.documents.html.selector import parse
from ilab.errors import InputError

HTML = ("text/html", "application/xhtml+xml")
DOCUMENTS = {
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "text/markdown": ".md",
    "text/plain": ".txt",
}


def is_html(reply: Reply) -> bool:
    """By the content type, or where there is none by the first character."""
    return reply.media in HTML or (not reply.media and reply.body.lstrip()[:1] == b"<")


def wishes(reply: Reply) -> frozenset[str]:
    """The words of ``X-Robots-Tag``: ``noindex``, ``nofollow``; ``none`` means both."""
    words = {word.strip() for word in reply.headers.get("x-robots-tag", "").lower().split(",")}
    return frozenset(words | ({"noindex", "nofollow"} if "none" in words else set()))


def page_links(reply: Reply, url: str) -> Links:
    """The links of a page, with the wishes of its headers. Raises ``InputError`` for what is no HTML."""
    found = links(reply.body, url, charset=reply.charset)
    given = wishes(reply)
    return Links(
        urls=found.urls,
        canonical=found.canonical,
        noindex=found.noindex or "noindex" in given,
        nofollow=found.nofollow or "nofollow" in given,
    )


def document_suffix(reply: Reply) -> str:
    """The suffix of a document: its address's where that is one of ours, else by its content type."""
    path = reply.url.partition("?")[0].lower()
    return next((suffix for suffix in DOCUMENTS.values() if path.endswith(suffix)), DOCUMENTS[reply.media])


def check_selector(selector: str) -> None:
    """Raises ``InputError`` for what is no selector that can be read, before any page is asked for."""
    try:
        parse(selector)
    except InputError as error:
        hint = error.hint or "for example --selector main, --selector '#content' or --selector 'div.document'"
        raise InputError(f"--selector {selector!r}: {error.message}", hint=hint) from error
