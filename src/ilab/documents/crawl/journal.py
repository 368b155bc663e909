"""What a crawl remembers beside its pages, in ``.crawl.jsonl``: a line for every page, appended when it is done.

    {"crawl": "2026-11-21T12:00:00+00:00", "finished": false}
    {"url": "https://…/", "file": "…-org.md", "digest": "…", "etag": "…", "links": […], "state": "new", …}

The last line about an address counts, a torn last line is none: so killing a crawl loses at most the page under way.
A finished crawl is written anew, sorted. Without the file (it need not be in git) the front matter of the pages says
which address each one is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ilab.core.files import write_text
from ilab.documents.crawl.pages import digest, divided, is_plain_name
from ilab.errors import InputError

NAME = ".crawl.jsonl"
RESUME = timedelta(hours=24)  # a crawl interrupted longer ago is begun again

State = Literal["new", "changed", "unchanged", "kept", "gone"]


class Entry(BaseModel):
    """One page. ``digest`` is of the text as it was written; ``made`` is what it was written by (converter, selector).

    ``crawl`` is the crawl that looked at it last, ``state`` what that one found, ``reason`` why it is gone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    file: str = ""
    digest: str = ""
    title: str = ""
    etag: str = ""
    modified: str = ""
    links: tuple[str, ...] = ()
    made: str = ""
    crawl: str = ""
    state: State = "new"
    reason: str = ""


class Journal:
    """The entries by address. ``crawl`` names the crawl under way by its beginning (ISO 8601, UTC).

    ``resumed``: that one was interrupted, and this run goes on with it.
    """

    def __init__(self, folder: Path, now: datetime) -> None:
        self.entries: dict[str, Entry] = {}
        self.crawl = now.isoformat(timespec="seconds")
        self.resumed = False
        self._path = folder / NAME
        if self._path.is_symlink():  # the folder may come from anybody
            raise InputError("is a link, and is not written through", where=str(self._path), hint="remove it")
        lines = list(_lines(self._path))
        for line in lines:
            self._take(line)
        if not lines:
            self.entries = {entry.url: entry for entry in _from_pages(folder)}
        heads = [line for line in lines if "crawl" in line and "url" not in line]
        if heads and not heads[-1].get("finished") and _recent(heads[-1]["crawl"], now):
            self.crawl, self.resumed = heads[-1]["crawl"], True

    def begin(self) -> None:
        """Say that this crawl is under way. Behind a torn line, which the next one must not join."""
        if self._path.exists() and self._path.read_bytes()[-1:] not in (b"", b"\n"):
            with self._path.open("ab") as handle:
                handle.write(b"\n")
        self._append({"crawl": self.crawl, "finished": False})

    def put(self, entry: Entry) -> None:
        self.entries[entry.url] = entry
        self._append(entry.model_dump(exclude_defaults=True))

    def drop(self, url: str) -> None:
        self.entries.pop(url, None)
        self._append({"url": url, "dropped": True})

    def finish(self) -> None:
        """Write the file anew, without what is out of date."""
        kept = [self.entries[url].model_dump(exclude_defaults=True) for url in sorted(self.entries)]
        records = [{"crawl": self.crawl, "finished": True}, *kept]
        write_text(self._path, "".join(_line(record) for record in records))

    def _append(self, record: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(_line(record))
            handle.flush()
            os.fsync(handle.fileno())

    def _take(self, line: dict[str, Any]) -> None:
        if line.get("dropped"):
            self.entries.pop(str(line.get("url")), None)
        elif "url" in line:
            try:
                entry = Entry.model_validate(line)
            except ValidationError:
                return
            if is_plain_name(entry.file):  # the file may come from anybody: it must not lead out of the folder
                self.entries[entry.url] = entry


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal; lines that are none are passed over."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _recent(crawl: object, now: datetime) -> bool:
    try:
        return timedelta(0) <= now - datetime.fromisoformat(str(crawl)) < RESUME
    except (ValueError, TypeError):
        return False


def _from_pages(folder: Path) -> Iterator[Entry]:
    """What the front matter of the pages in ``folder`` tells."""
    for path in sorted(folder.glob("*.md")):
        data = path.read_bytes() if path.is_file() else b""
        facts = divided(data)[0]
        if facts.get("source", "").startswith(("http://", "https://")) and "retrieved" in facts:
            yield Entry(url=facts["source"], file=path.name, digest=digest(data), title=facts.get("title", ""))
