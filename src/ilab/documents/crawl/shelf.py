"""The folder that a crawl writes to: which file is whose, what changed, what a person has changed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from ilab.core.files import write_bytes
from ilab.documents.crawl.journal import Entry, Journal, State
from ilab.documents.crawl.pages import digest, file_name, folded


class Shelf:
    """``made`` says by what texts are made (converter, selector): with another one no page counts as up to date."""

    def __init__(self, folder: Path, made: str, now: datetime) -> None:
        self.journal = Journal(folder, now)
        self._folder = folder
        self._made = made
        self._taken = {folded(path.name) for path in folder.iterdir()} if folder.is_dir() else set()
        self._taken |= {folded(entry.file) for entry in self.journal.entries.values()}

    def entry(self, url: str) -> Entry | None:
        return self.journal.entries.get(url)

    def done(self, url: str) -> Entry | None:
        """The entry of a page that this crawl has looked at before it was interrupted."""
        entry = self.entry(url)
        if not self.journal.resumed or entry is None or entry.crawl != self.journal.crawl:
            return None
        return entry if entry.state == "gone" or self._usable(entry) else None

    def validators(self, url: str) -> tuple[str, str]:
        """``ETag`` and ``Last-Modified`` of the file at hand, empty where it does not do any more."""
        entry = self.entry(url)
        return (entry.etag, entry.modified) if entry and self._usable(entry) else ("", "")

    def name(self, url: str, suffix: str = ".md") -> str:
        """The file of a page: the one it has, else a new name that nothing in the folder has."""
        entry = self.entry(url)
        if entry is not None and entry.file.endswith(suffix):
            return entry.file
        return file_name(url, suffix, self._taken)

    def keep(self, facts: Entry, data: bytes, suffix: str = ".md") -> Entry:
        """Write a page (address, title, validators and links of ``facts``), if its text is another than the file's.

        A file that a person has changed is left as it is, unless the texts agree again.
        """
        entry = self.entry(facts.url)
        name = self.name(facts.url, suffix)
        there = self._digest(name)
        state: State = "new" if there is None else "unchanged" if there == digest(data) else "changed"
        if state == "changed" and (entry is None or entry.digest != there):
            state = "kept"
        if state in ("new", "changed"):
            write_bytes(self._folder / name, data)
        self._taken.add(folded(name))
        written = entry.digest if entry is not None and state == "kept" else digest(data)
        return self._put(facts, file=name, digest=written, made=self._made, state=state)

    def unchanged(self, url: str) -> Entry:
        """The server says that the page is as it was."""
        entry = self.journal.entries[url]
        return self._put(entry, state="unchanged" if self._untouched(entry) else "kept", reason="")

    def gone(self, url: str, reason: str) -> Entry | None:
        """Note that a page is no longer there; ``None`` where there is no file of it."""
        entry = self.entry(url)
        if entry is None:
            return None
        if self._digest(entry.file) is None:
            self.journal.drop(url)
            return None
        return self._put(entry, state="gone", reason=reason)

    def prune(self, url: str) -> bool:
        """Remove the file of a page that is gone, unless a person has changed it. Whether it was removed."""
        entry = self.journal.entries[url]
        if not self._untouched(entry):
            return False
        (self._folder / entry.file).unlink(missing_ok=True)
        self.journal.drop(url)
        return True

    def _put(self, entry: Entry, **facts: str) -> Entry:
        found = entry.model_copy(update={**facts, "crawl": self.journal.crawl})
        self.journal.put(found)
        return found

    def _usable(self, entry: Entry) -> bool:
        return entry.made == self._made and entry.state != "gone" and self._digest(entry.file) is not None

    def _untouched(self, entry: Entry) -> bool:
        return self._digest(entry.file) == entry.digest

    def _digest(self, name: str) -> str | None:
        path = self._folder / name
        return digest(path.read_bytes()) if path.is_file() else None
