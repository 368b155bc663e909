"""A website as Markdown files: breadth first, polite, and again in place.

    start pages, sitemap ──▶ queue ──▶ robots.txt ──▶ pause ──▶ fetch ──▶ Markdown file, journal
                               ▲                                  │
                               └────────── links in scope ────────┘

A page is one file whatever leads to it: redirects and ``<link rel="canonical">`` name the same page. A second crawl
asks for changes only (``ETag``, ``Last-Modified``), rewrites a file only when its *text* has changed, leaves alone what
a person has changed, and looks again at every page it knows, also where no link leads there any more. Nothing is
deleted unless asked for.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from ilab import __version__
from ilab.core.addresses import is_private
from ilab.core.events import Emit
from ilab.core.web import Reply, Web
from ilab.documents.convert import normalise
from ilab.documents.converted import Hidden
from ilab.documents.crawl.journal import Entry, State
from ilab.documents.crawl.pages import front_matter
from ilab.documents.crawl.robots import LEAST_DELAY, MOST_DELAY, Manners
from ilab.documents.crawl.scope import Scope, host_of, one_spelling, origin_of
from ilab.documents.crawl.shelf import Shelf
from ilab.documents.crawl.sitemap import discover
from ilab.documents.crawl.webpage import DOCUMENTS, HTML, check_selector, document_suffix, is_html, page_links, wishes
from ilab.documents.html.reader import to_markdown
from ilab.errors import IlabError, InputError, ServiceError

MOST_FAILURES = 5  # in a row, then the server is left alone
MAX_LINKS = 2000  # of one page


@dataclass(frozen=True)
class Order:
    """What to crawl. ``depth`` counts links from a start page, ``delay`` seconds between requests to a server.

    ``include`` are further prefixes, ``exclude`` glob patterns over paths, ``documents`` takes files other than pages
    along, ``prune`` removes the files of pages that are gone, ``dry_run`` asks for the start pages alone and writes
    nothing.
    """

    starts: tuple[str, ...]
    output: Path
    depth: int | None = None
    max_pages: int = 500
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    selector: str = ""
    delay: float = 1.0
    sitemap: bool = True
    documents: bool = False
    prune: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Page:
    """What became of one address. ``file`` is its name in the output folder, ``""`` for none.

    ``found`` are the pages that a dry run would ask for.
    """

    url: str
    state: State | Literal["failed", "found"]
    file: str = ""
    title: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """What a crawl did. ``left_out`` counts addresses by reason, ``hidden`` is text that no reader of a page sees.

    ``scope`` are the prefixes that were crawled; ``resumed``: it went on where an interrupted one had stopped.
    """

    pages: tuple[Page, ...]
    left_out: Mapping[str, int]
    hidden: tuple[tuple[str, Hidden], ...]
    notes: tuple[str, ...]
    scope: tuple[str, ...]
    resumed: bool

    def of(self, *states: str) -> list[Page]:
        return [page for page in self.pages if page.state in states]


@dataclass(frozen=True)
class _Link:
    url: str
    depth: int
    start: bool = False
    again: bool = False  # the server was too busy the first time


def crawl(order: Order, web: Web, emit: Emit, now: datetime) -> Report:
    """Crawl as ordered. ``now`` (UTC) names the crawl and dates its pages.

    Raises ``InputError`` for start pages that cannot be read and options that fit nothing, ``ServiceError`` when a
    server forbids crawling for now or fails again and again. What is written by then stays, and the same order goes
    on where it stopped.
    """
    return _Crawl(order, web, emit, now).run()


def check(order: Order, private_hosts: Sequence[str]) -> list[str]:
    """The addresses of the start pages, in one spelling. Raises ``InputError`` for what can be known to be wrong."""
    if order.selector:
        check_selector(order.selector)
    urls = []
    for given in order.starts:
        url = one_spelling(given)
        if not url:
            hint = "give the address of a page, for example https://docs.example.org/guide/"
            raise InputError(f"{given!r} is no address of a web page", hint=hint)
        if order.delay < LEAST_DELAY and not is_private(host_of(url), private_hosts):
            hint = f"at least {LEAST_DELAY:g}; less is for servers listed in where.web.private_hosts"
            raise InputError(f"--delay {order.delay:g} is too short for a server of others", hint=hint)
        urls.append(url)
    return urls


@dataclass
class _Crawl:
    order: Order
    web: Web
    emit: Emit
    now: datetime
    starts: deque[_Link] = field(default_factory=deque)
    queue: deque[_Link] = field(default_factory=deque)
    seen: set[str] = field(default_factory=set)
    pages: dict[str, Page] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    hidden: list[tuple[str, Hidden]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[IlabError] = field(default_factory=list)  # of start pages
    sites: dict[str, None] = field(default_factory=dict)  # servers of start pages, behind redirects
    asked: int = 0
    failures: int = 0  # in a row

    def __post_init__(self) -> None:
        self.scope = Scope(self.order.include, self.order.exclude)
        self.manners = Manners(self.web, self.order.delay)
        self.shelf = Shelf(self.order.output, f"{__version__} {self.order.selector}".strip(), self.now)

    def run(self) -> Report:
        began = time.monotonic()
        self.emit.started()
        self._begin()
        self._work()
        if not any(page.state != "failed" for page in self.pages.values()):
            raise self.errors[0] if self.errors else self._nothing()
        if not self.order.dry_run:
            self._look_again()
            for page in self.pages.values() if self.order.prune else ():
                if page.state == "gone" and self.shelf.prune(page.url):
                    self.pages[page.url] = replace(page, file="")
            self.shelf.journal.finish()
        pages = tuple(sorted(self.pages.values(), key=lambda page: page.url))
        counts = dict(Counter(page.state for page in pages))
        self.emit.finished(state="run", seconds=time.monotonic() - began, counts=counts)
        resumed = self.shelf.journal.resumed
        return Report(pages, dict(self.left_out), tuple(self.hidden), tuple(self.notes), self.scope.prefixes, resumed)

    def _nothing(self) -> InputError:
        why = "; ".join(f"{reason}: {count}" for reason, count in self.left_out.most_common(3))
        hint = "give the address of a page with text and links, or more room with --include"
        return InputError(f"nothing was read ({why or 'only redirects'})", where=self.order.starts[0], hint=hint)

    def _begin(self) -> None:
        """Visit the start pages, then queue what the sitemaps of their servers name."""
        for url in check(self.order, self.web.settings.private_hosts):
            self.scope.start(url)
            self._add(_Link(url, 0, start=True))
        if not self.order.dry_run:
            self.shelf.journal.begin()
        while self.starts:
            self._visit(self.starts.popleft())
        for site in self.sites if self.order.sitemap and self.order.depth != 0 else ():
            named = self.manners.rules(site).sitemaps or (f"{site}/sitemap.xml",)
            found = discover(self.web, filter(None, map(one_spelling, named)), self.manners.wait)
            self.notes += found.notes
            for url in found.pages:
                self._add(_Link(self.scope.adopted(url), 1))

    def _work(self) -> None:
        while self.queue and self.asked < self.order.max_pages:
            self._visit(self.queue.popleft())
        if self.queue:
            left = len(self.queue)
            self.notes.append(f"stopped at --max-pages {self.order.max_pages}; {left} more are known and were not read")
            self.queue.clear()

    def _look_again(self) -> None:
        """Pages that are known, but that nothing led to this time: are they still there?"""
        for url in sorted(set(self.shelf.journal.entries) - self.seen):
            if self.scope.covers(url):
                self._add(_Link(url, self.order.depth or 0))
        self._work()

    def _add(self, link: _Link) -> None:
        """Queue a page, unless it was queued before, or there is a reason to leave it out."""
        if not link.url or link.url in self.seen:
            return
        self.seen.add(link.url)
        reason = self.scope.why_not(link.url)
        if reason:
            self._leave_out(link.url, reason)
        elif self.order.depth is not None and link.depth > self.order.depth:
            self.left_out["deeper than --depth"] += 1
        else:
            (self.starts if link.start else self.queue).append(link)

    def _leave_out(self, url: str, reason: str) -> None:
        """Count what is not wanted. A file of it from an earlier crawl is told as gone, if it was this crawl's."""
        self.left_out[reason] += 1
        if self.scope.covers(url):
            self._gone(url, reason)

    def _gone(self, url: str, reason: str) -> None:
        entry = None if self.order.dry_run else self.shelf.gone(url, reason)
        if entry is not None:
            self._tell(entry)

    def _fail(self, link: _Link, error: IlabError) -> None:
        self.pages[link.url] = Page(link.url, "failed", reason=error.message)
        if link.start:
            self.errors.append(error)

    def _tell(self, entry: Entry) -> None:
        state = "found" if self.order.dry_run else entry.state
        self.pages[entry.url] = Page(entry.url, state, entry.file, entry.title, entry.reason)

    def _visit(self, link: _Link, *, heed_canonical: bool = True) -> None:
        """One page, from robots.txt to file."""
        total = min(self.asked + len(self.queue) + 1, self.order.max_pages)
        self.emit.progress(self.asked, total, "pages", note=link.url)
        if self.order.dry_run and not link.start:
            self.pages[link.url] = Page(link.url, "found")
            return
        done = self.shelf.done(link.url)
        if done is not None:
            self.asked += 1
            self._tell(done)
            self._follow(link, done.links)
            return
        reply = self._ask(link) if self._allowed(link) else None
        if reply is None:
            return
        if reply.location:
            self._redirected(link, one_spelling(reply.location))
        elif reply.status in (404, 410):
            self._gone(link.url, f"there is nothing any more ({reply.status})")
            if link.url not in self.pages:
                self._fail(link, reply.error() or InputError("there is nothing"))
        else:
            if link.start:
                self.sites[origin_of(link.url)] = None
            known = self.shelf.entry(link.url)
            if reply.unchanged and known:
                self._tell(known if self.order.dry_run else self.shelf.unchanged(link.url))
                self._follow(link, known.links)
            else:
                self._read(link, reply, heed_canonical)

    def _allowed(self, link: _Link) -> bool:
        """Whether robots.txt allows to fetch a page; told where it does not."""
        try:
            if self.manners.may_ask(link.url):
                return True
        except ServiceError as error:
            if link.start:
                raise
            self.left_out[f"robots.txt of {origin_of(link.url)} {error.message}"] += 1
            return False
        self._leave_out(link.url, "robots.txt does not allow it")
        if link.start:
            self.errors.append(InputError("robots.txt does not allow to read this page", where=link.url))
        return False

    def _ask(self, link: _Link) -> Reply | None:
        """Fetch a page. ``None``: it is told why not, or the page is queued once more."""
        self.manners.wait(link.url)
        self.asked += 1
        etag, modified = self.shelf.validators(link.url)
        media = (*HTML, *DOCUMENTS) if self.order.documents else HTML
        reply: Reply | None = None
        trouble: IlabError | None
        try:
            reply = self.web.ask(link.url, etag=etag, modified=modified, media=media)
            trouble = None if reply.location else reply.error()
        except (InputError, ServiceError) as error:
            trouble = error
        if isinstance(trouble, ServiceError):
            self._trouble(link, trouble, reply.retry_after if reply else None)
            return None
        self.failures = 0
        if trouble is not None and (reply is None or reply.status not in (404, 410)):
            self._fail(link, trouble)
            return None
        return reply

    def _trouble(self, link: _Link, error: ServiceError, wait: float | None) -> None:
        """A server that fails: ask for the page once more at the end, unless it wants a long pause."""
        self.failures += 1
        if self.failures >= MOST_FAILURES:
            hint = "what was read is kept; the same command later goes on from there"
            raise ServiceError(
                f"failed {self.failures} times in a row, the last time: {error.message}",
                where=error.where,
                hint=hint,
                retryable=True,
            )
        pause = 2 * self.order.delay if wait is None else wait
        if link.again or not error.retryable or pause > MOST_DELAY:
            self._fail(link, error)
        else:
            self.manners.put_off(link.url, max(pause, self.order.delay))
            self.queue.append(replace(link, again=True))

    def _redirected(self, link: _Link, target: str) -> None:
        if target in ("", link.url):
            self._fail(link, InputError("redirects to itself", where=link.url))
            return
        if link.start:
            self.scope.start(target)
            if origin_of(target) != origin_of(link.url):
                self.notes.append(f"{link.url} leads to {target}; what is below that is read")
        self._gone(link.url, f"moved to {target}")
        self._add(replace(link, url=target, again=False))

    def _follow(self, link: _Link, urls: tuple[str, ...]) -> None:
        for url in urls:
            self._add(_Link(url, link.depth + 1))

    def _read(self, link: _Link, reply: Reply, heed_canonical: bool) -> None:
        """Make a file of a page or document that was fetched."""
        if is_html(reply):
            self._read_html(link, reply, heed_canonical)
        elif "noindex" in wishes(reply):
            self._leave_out(link.url, "marked noindex")
        elif self.order.documents and reply.media in DOCUMENTS:
            self._keep(Entry(url=link.url), reply, reply.body, document_suffix(reply))
        else:
            self._leave_out(link.url, f"no page ({reply.media or 'no content type'})")

    def _read_html(self, link: _Link, reply: Reply, heed_canonical: bool) -> None:
        try:
            found = page_links(reply, link.url)
            urls = () if found.nofollow else tuple(dict.fromkeys(map(self.scope.adopted, found.urls[:MAX_LINKS])))
            self._follow(link, urls)
            canonical = self.scope.adopted(found.canonical)
            if found.noindex:
                self._leave_out(link.url, "marked noindex")
                return
            if heed_canonical and canonical != link.url and self._is_elsewhere(link, canonical):
                self._leave_out(link.url, "the same page under another address")
                return
            selector, charset = self.order.selector, reply.charset
            converted = normalise(to_markdown(reply.body, base=link.url, selector=selector, charset=charset))
        except InputError as error:
            self._leave_out(link.url, error.message)
            return
        if not converted.text:
            self._leave_out(link.url, "holds no text")
            return
        self.hidden += [(link.url, hidden) for hidden in converted.hidden]
        etag = reply.headers.get("etag", "")
        facts = {"source": link.url, "retrieved": self.now.date().isoformat(), "title": converted.title, "etag": etag}
        data = f"{front_matter(facts)}{converted.text}".encode("utf-8", "replace")
        within = tuple(url for url in urls if self.scope.covers(url))
        self._keep(Entry(url=link.url, title=converted.title, links=within), reply, data)

    def _is_elsewhere(self, link: _Link, canonical: str) -> bool:
        """Whether the page that this one names as its original is there; it is visited now if it was not yet."""
        if not canonical or self.scope.why_not(canonical):
            return False
        if canonical not in self.seen or any(waiting.url == canonical for waiting in self.queue):
            self.seen.add(canonical)
            self.queue = deque(waiting for waiting in self.queue if waiting.url != canonical)
            self._visit(replace(link, url=canonical, start=False), heed_canonical=False)
        page = self.pages.get(canonical)
        return page is not None and page.state not in ("gone", "failed")

    def _keep(self, facts: Entry, reply: Reply, data: bytes, suffix: str = ".md") -> None:
        if self.order.dry_run:
            self._tell(facts)
            return
        update = {"etag": reply.headers.get("etag", ""), "modified": reply.headers.get("last-modified", "")}
        self._tell(self.shelf.keep(facts.model_copy(update=update), data, suffix))
