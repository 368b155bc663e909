"""From the document references of leaves to the files they mean, pinned by content.

    repo + commit + patterns ──▶ checkout in the cache (or a mirror)  ─┐
    path beside the qna.yaml ──▶ the taxonomy's own folder            ─┴▶ files: leaf, source, path, SHA-256

The digest covers leaf, name and contents of every file, and nothing else: another commit with the same files is
the same set of documents. All problems of all leaves are told at once, before anything is converted.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import posixpath
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ilab.config import Where, cache_home
from ilab.core import git
from ilab.core.step import Found
from ilab.data import DocumentRef, Leaf
from ilab.documents.convert import KINDS
from ilab.documents.trees import list_files, matching
from ilab.errors import InputError, InputErrors

MAX_BYTES = 20 * 2**20
_SHOWN = 5  # names of files in a hint


@dataclass(frozen=True)
class PinnedFile:
    """One document file of one leaf. ``source`` is its name in provenance, never a machine's path."""

    leaf: str
    source: str
    name: str
    path: str
    sha256: str


@dataclass(frozen=True)
class _Tree:
    """``prefix`` stands before a file's name in its source; ``names`` are all files below."""

    folder: Path
    prefix: str
    names: tuple[str, ...]
    revision: str = ""


def find_documents(leaves: Sequence[Leaf], root: Path, where: Where, *, base: Path | None = None) -> Found:
    """Pin the documents of ``leaves``. ``root`` is the folder their places are relative to.

    Relative paths in ``where`` (cache, mirrors) are read against ``base``, by default the current folder. The
    files are kept in ``details["files"]``; see :func:`pinned_files`. Raises ``InputErrors`` with every reference
    that leads nowhere or to a file that cannot be read, ``ServiceError`` when a git server cannot be reached.
    """
    finder = _Finder(root, where, base or Path.cwd())
    files: dict[tuple[str, str], PinnedFile] = {}
    for leaf in leaves:
        for ref in leaf.documents:
            for file in finder.files(leaf, ref):
                files.setdefault((file.leaf, file.source), file)
    if finder.problems:
        raise InputErrors(finder.problems)
    ordered = sorted(files.values(), key=lambda file: (file.leaf, file.name, file.source))
    total = hashlib.sha256()
    for file in ordered:
        total.update(f"{file.leaf}\0{file.name}\0{file.sha256}\n".encode())
    return Found(
        digest=total.hexdigest(),
        locator="documents of the taxonomy",
        revision=", ".join(sorted(finder.revisions)),
        details={"files": json.dumps([asdict(file) for file in ordered])},
    )


def pinned_files(found: Found) -> list[PinnedFile]:
    """The files that :func:`find_documents` pinned, sorted by leaf and name."""
    details = found.details or {}
    return [PinnedFile(**entry) for entry in json.loads(details.get("files", "[]"))]


def read_document(path: Path, label: str) -> bytes:
    """The bytes of a document file. Raises ``InputError`` where it is too large or not UTF-8 text."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise InputError("is not a regular file", where=label)
        if facts.st_size > MAX_BYTES:
            size = f"has {facts.st_size / 2**20:.1f} MiB; at most {MAX_BYTES // 2**20} MiB are read"
            raise InputError(size, where=label, hint="divide the document")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=label) from error
    try:
        data.decode()
    except UnicodeDecodeError as error:
        hint = "save it as UTF-8, for example with: iconv -f LATIN1 -t UTF-8"
        raise InputError(f"is not UTF-8 text at byte {error.start}", where=label, hint=hint) from error
    return data


class _Finder:
    """Reads each repository and each file once, and collects problems."""

    def __init__(self, root: Path, where: Where, base: Path) -> None:
        self.root = root
        self.base = base
        self.cache = (base / Path(where.cache).expanduser() if where.cache else cache_home()) / "git"
        self.mirrors = {_bare(url): target for url, target in where.documents.mirrors.items()}
        self.problems: list[InputError] = []
        self.revisions: set[str] = set()
        self._trees: dict[tuple[str | None, str], _Tree | None] = {}
        self._hashes: dict[Path, str] = {}

    def files(self, leaf: Leaf, ref: DocumentRef) -> Iterable[PinnedFile]:
        """The files that ``ref`` means; problems are collected."""
        for pattern in ref.patterns:
            folder = "" if ref.repo else posixpath.dirname(leaf.place.file)
            wanted = posixpath.normpath(posixpath.join(folder, pattern))
            tree = self._tree(ref, wanted)
            if tree is None:
                continue
            names = matching(wanted, tree.names)
            if not names:
                self._nothing(ref, pattern, wanted, tree)
            for name in names:
                file = self._pin(leaf.path, tree, name, ref)
                if file is not None:
                    yield file

    def _tree(self, ref: DocumentRef, wanted: str) -> _Tree | None:
        """The folder that holds ``ref``'s files, fetched and listed once; ``None`` after a problem with it."""
        if ref.repo is None:
            parts = wanted.split("/")
            fixed = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
            key: tuple[str | None, str] = (None, "/".join(parts[:fixed]))
        else:
            key = (ref.repo, ref.commit or "HEAD")
        if key not in self._trees:
            try:
                self._trees[key] = self._repository(ref) if ref.repo else self._local(key[1], ref)
            except InputError as error:
                self.problems.append(error)
                self._trees[key] = None
        return self._trees[key]

    def _local(self, folder: str, ref: DocumentRef) -> _Tree:
        """The taxonomy's files below ``folder`` (relative to its root), which no link may leave."""
        start = self.root / folder
        if not start.resolve().is_relative_to(self.root.resolve()):
            raise InputError(f"the folder `{folder}` is a link that leaves the taxonomy", where=str(ref.place))
        below = list_files(start) if start.is_dir() else ()
        return _Tree(self.root, "", tuple(posixpath.join(folder, name) for name in below))

    def _repository(self, ref: DocumentRef) -> _Tree:
        address, commit = ref.repo or "", ref.commit or "HEAD"
        shown = f"{git.redacted(address)}@{commit}"  # the ref as written: a pinned commit may differ next time
        target = self.mirrors.get(_bare(address), address)
        if not git.is_url(target) and target != address:
            target = str((self.base / Path(target).expanduser()).absolute())
        folder = Path(target)
        hint = (
            "for a copy of the repository on this machine, add to ilab.yaml:\n"
            f"    where: {{documents: {{mirrors: {{{json.dumps(git.redacted(address))}: /path/to/copy}}}}}}"
        )
        if target != address and not git.is_url(target):
            if not folder.is_dir():
                message = f"the mirror {target} of {git.redacted(address)} is not a folder"
                raise InputError(message, where=str(ref.place), hint="correct where.documents.mirrors")
            if not git.is_repository(folder):
                return _Tree(folder, f"{shown}:", list_files(folder))
        checkout = git.checkout(git.Origin(target, commit, where=str(ref.place), hint=hint), self.cache)
        self.revisions.add(f"{git.redacted(address)}@{checkout.commit}")
        return _Tree(checkout.folder, f"{shown}:", list_files(checkout.folder))

    def _pin(self, leaf: str, tree: _Tree, name: str, ref: DocumentRef) -> PinnedFile | None:
        path, source = tree.folder / name, tree.prefix + name
        try:
            name.encode()
            if PurePosixPath(name).suffix.lower() not in KINDS:
                hint = f"these are read: {', '.join(KINDS)}; narrow the pattern, or convert the file"
                raise InputError(f"cannot read the document {source}", hint=hint)
            if not path.resolve().is_relative_to(tree.folder.resolve()):
                raise InputError(f"the document {source} is a link that leaves its repository")
            if path not in self._hashes:
                self._hashes[path] = hashlib.sha256(read_document(path, source)).hexdigest()
        except UnicodeEncodeError:
            self.problems.append(InputError(f"the file name {name!a} is not UTF-8", where=str(ref.place)))
            return None
        except InputError as error:
            message = f"{error.where} {error.message}" if error.where else error.message
            self.problems.append(InputError(message, where=str(ref.place), hint=error.hint))
            return None
        return PinnedFile(leaf, source, name, str(path.absolute()), self._hashes[path])

    def _nothing(self, ref: DocumentRef, pattern: str, wanted: str, tree: _Tree) -> None:
        """The problem of a pattern that matches no file, with the names that come nearest."""
        readable = [name for name in tree.names if PurePosixPath(name).suffix.lower() in KINDS]
        near = difflib.get_close_matches(wanted, readable[:2000], 3, 0.6)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        elif readable:
            more = f" and {len(readable) - _SHOWN} more" if len(readable) > _SHOWN else ""
            hint = f"documents there: {', '.join(readable[:_SHOWN])}{more}"
        else:
            hint = f"there is no document there at all; these are read: {', '.join(KINDS)}"
        at = f"{git.redacted(ref.repo)}@{ref.commit}" if ref.repo else "the taxonomy"
        self.problems.append(InputError(f"`{pattern}` matches no file in {at}", where=str(ref.place), hint=hint))


def _bare(url: str) -> str:
    """``url`` without what people add or leave out: a slash or ``.git`` at the end."""
    return url.rstrip("/").removesuffix(".git")
