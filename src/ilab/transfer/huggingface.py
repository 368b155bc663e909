"""Models from a hub that speaks Hugging Face's protocol: huggingface.co, or what ``HF_ENDPOINT`` names.

    GET /api/models/OWNER/NAME/revision/REV          the commit, the licence
    GET /api/models/OWNER/NAME/tree/COMMIT           every file with its size and digest, in pages
    GET /OWNER/NAME/resolve/COMMIT/FILE              the bytes, by way of a redirect

Everything is read at the one commit that the revision means now. Large files are known by their SHA-256, small ones by
the SHA-1 of their git blob, so every byte is checked, which `huggingface_hub` leaves out; hence this client.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from ilab.errors import IlabError, InputError, ServiceError
from ilab.models.secret import read_secret
from ilab.transfer.address import Address
from ilab.transfer.source import Body, Checksum, Listing, RemoteFile
from ilab.transfer.web import Answer, Http, origin

ENDPOINT = "https://huggingface.co"
MAIN = "main"
MOST_PAGES = 1000
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_COMMIT = re.compile(r"[0-9a-f]{40}")


def endpoint() -> str:
    """The hub's address: ``HF_ENDPOINT``, or the public one. Raises ``InputError`` for no address."""
    url = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    origin(url)
    return url


def hub_token(reference: str) -> str:
    """The token that ``reference`` names (``env:NAME``, ``file:PATH``); without one that in ``HF_TOKEN``, if any."""
    return read_secret(reference, "--hf-token") if reference else os.environ.get("HF_TOKEN", "").strip()


def refuse_offline() -> None:
    """Raises ``InputError`` where the user wants no hub to be asked (``HF_HUB_OFFLINE``)."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        hint = "to ask the hub: unset HF_HUB_OFFLINE; for what is here already: ilab model list"
        raise InputError("HF_HUB_OFFLINE is set, so the hub is not asked", hint=hint)


class Hub:
    """One repository of a hub. ``token`` may be empty."""

    def __init__(self, http: Http, address: Address, token: str) -> None:
        self._http, self._path = http, address.path
        self._revision = address.revision or MAIN
        self._hub = endpoint()
        self._token = token
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def listing(self) -> Listing:
        """The files at the commit that the revision means now."""
        refuse_offline()
        revision = quote(self._revision, safe="")
        found = self._json(f"{self._hub}/api/models/{self._path}/revision/{revision}")
        commit = found.get("sha") if isinstance(found, dict) else None
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise ServiceError("the hub names no commit", where=self._hub, hint="is HF_ENDPOINT a hub's address?")
        files = tuple(sorted(self._tree(commit), key=lambda file: file.name))
        return Listing(self._path, f"hf://{self._path}", commit, _licence(found), files)

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        try:
            with self._http.body(file.locator, start, self._headers) as body:
                yield body
        except InputError as error:
            if "(401)" in error.message or "(403)" in error.message:
                raise self._locked("") from error
            raise

    def _tree(self, commit: str) -> Iterator[RemoteFile]:
        url = f"{self._hub}/api/models/{self._path}/tree/{commit}?recursive=true"
        for _ in range(MOST_PAGES):
            answer = self._get(url)
            entries = answer.json()
            if not isinstance(entries, list):
                raise ServiceError("the hub lists no files", where=self._hub)
            for entry in entries:
                if isinstance(entry, dict) and entry.get("type") == "file":
                    yield self._file(entry, commit)
            following = _NEXT.search(answer.headers.get("link", ""))
            if following is None:
                return
            url = following[1]
            if origin(url) != origin(self._hub):
                raise ServiceError("the hub's list of files goes on at another server", where=url)
        raise ServiceError("the hub's list of files has no end", where=self._hub)

    def _file(self, entry: Mapping[str, Any], commit: str) -> RemoteFile:
        name, size, oid = entry.get("path"), entry.get("size"), entry.get("oid")
        lfs = entry.get("lfs")
        if isinstance(lfs, dict):
            size, oid = lfs.get("size", size), lfs.get("oid")
        if not isinstance(name, str) or not isinstance(oid, str) or not isinstance(size, int) or size < 0:
            raise ServiceError("the hub lists a file without name, size or digest", where=self._hub)
        checksum = Checksum("sha256" if isinstance(lfs, dict) else "git", oid.removeprefix("sha256:"))
        return RemoteFile(name, size, checksum, f"{self._hub}/{self._path}/resolve/{commit}/{quote(name)}")

    def _json(self, url: str) -> Any:
        return self._get(url).json()

    def _get(self, url: str) -> Answer:
        try:
            answer = self._http.ask("GET", url, self._headers)
        except ServiceError as error:
            if "cannot be reached" not in error.message:
                raise
            hint = "is this machine online? What was downloaded is still there: ilab model list"
            raise ServiceError(error.message, where=error.where, hint=hint, retryable=True) from error
        if not answer.ok:
            raise self._failure(answer)
        return answer

    def _failure(self, answer: Answer) -> IlabError:
        """The hub's codes in our words (``X-Error-Code``, as huggingface_hub reads it)."""
        code = answer.headers.get("x-error-code", "")
        if code == "RevisionNotFound":
            message = f"{self._path} has no branch, tag or commit {self._revision!r}"
            return InputError(message, where=self._hub, hint=f"see {self._hub}/{self._path}, or leave the revision out")
        if code == "GatedRepo" or answer.status == 403:
            return self._locked(code)
        if code == "RepoNotFound" or answer.status in (401, 404):
            message = f"the hub has no model {self._path}, or shows it only to those who may see it"
            return InputError(message, where=self._hub, hint=f"check the name; {self._with_token()}")
        return answer.failure()

    def _locked(self, code: str) -> InputError:
        page = f"{self._hub}/{self._path}"
        if code == "GatedRepo" or not self._token:
            message = f"{self._path} is open only to those who agreed to its licence"
            return InputError(message, where=self._hub, hint=f"agree at {page}, then {self._with_token()}")
        message = f"this token may not read {self._path}"
        return InputError(message, where=self._hub, hint=f"ask for access at {page}, or give another token")

    def _with_token(self) -> str:
        if self._token:
            return "the token that was sent may not see it, perhaps"
        return f"type: export HF_TOKEN=…   then: ilab model download --repository {self._path}"


def _licence(found: Mapping[str, Any]) -> str:
    """The licence as the model's card names it, else its tag; ``""`` where nothing does."""
    card = found.get("cardData")
    named = card.get("license") if isinstance(card, dict) else None
    if named == "other" and isinstance(card, dict):
        named = card.get("license_name") or named
    if isinstance(named, list):
        named = ", ".join(str(one) for one in named)
    tags = found.get("tags")
    tagged = [str(tag) for tag in tags if str(tag).startswith("license:")] if isinstance(tags, list) else []
    text = str(named) if named else tagged[0].removeprefix("license:") if tagged else ""
    return "".join(letter for letter in text if letter.isprintable())[:80]
