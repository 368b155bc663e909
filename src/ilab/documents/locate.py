"""From the document references of leaves to the files they mean, pinned by content.

    repo + commit + patterns ──▶ checkout in the cache (or a mirror)  ─┐
    path, pattern or folder  ──▶ the taxonomy's own files             ─┤
    url                      ──▶ copy in the cache, asked for anew    ─┼▶ leaf, source, name, path, SHA-256
    text                     ──▶ the qna.yaml itself                  ─┘

The digest covers leaf, name and contents of every file, and nothing else: another commit with the same files is the
same set of documents. All problems of all leaves are told at once, each at its reference, before anything is converted.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ilab.config import Where, cache_home
from ilab.core import git
from ilab.core.step import Found
from ilab.data import DocumentRef, Leaf
from ilab.documents.convert import KINDS
from ilab.documents.files import read_document
from ilab.documents.trees import list_files, meant
from ilab.errors import InputError, InputErrors, ServiceError

_SHOWN = 5  # names of files in a hint
# What a server calls a document; where it is vaguer than that (text/plain, application/octet-stream) the name counts.
_MEDIA = {
    "text/html": ".html",
    "application/xhtml+xml": ".xhtml",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}
_VAGUE = {"": "", "text/plain": ".txt", "application/octet-stream": "", "binary/octet-stream": ""}

Problem = InputError | ServiceError


@dataclass(frozen=True)
class PinnedFile:
    """One document file of one leaf, wanted at ``place``.

    ``source`` is its name in provenance, never a machine's path. ``name`` tells its format by the suffix. ``path`` is
    where the bytes lie, empty for a text that the leaf holds itself.
    """

    leaf: str
    source: str
    name: str
    path: str
    sha256: str
    place: str


@dataclass(frozen=True)
class Survey:
    """The files that could be pinned, and a problem for every reference that leads nowhere."""

    found: Found
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Tree:
    """``prefix`` stands before a file's name in its source; ``names`` are all files below."""

    folder: Path
    prefix: str
    names: tuple[str, ...]


def find_documents(
    leaves: Sequence[Leaf], root: Path, where: Where, *, base: Path | None = None, login: str = ""
) -> Found:
    """Pin the documents of ``leaves``. ``root`` is the folder their places are relative to.

    ``login`` is the server (:func:`ilab.core.git.server_of`) that the taxonomy came from, by default that of which
    ``root`` is a clone: it alone is told the password of the environment.

    Relative paths in ``where`` (cache, mirrors) are read against ``base``, by default the current folder. The files
    are kept in ``details["files"]`` (see :func:`pinned_files`), what people should know in ``details["notes"]``, a JSON
    list; ``trees`` and ``pages`` say how another machine gets them (:mod:`ilab.documents.bring`). Raises
    ``InputErrors`` with every reference that leads nowhere or to a file that cannot be read, ``ServiceError`` when a
    server cannot be reached.
    """
    survey = survey_documents(leaves, root, where, base=base, login=login)
    wrong = [problem for problem in survey.problems if isinstance(problem, InputError)]
    if wrong:
        raise InputErrors(wrong)
    for problem in survey.problems:
        raise problem
    return survey.found


def survey_documents(
    leaves: Sequence[Leaf], root: Path, where: Where, *, base: Path | None = None, login: str = ""
) -> Survey:
    """As :func:`find_documents`, with the problems, servers that cannot be reached too, beside what was found."""
    finder = _Finder(root, where, base or Path.cwd(), login)
    files: dict[tuple[str, str], PinnedFile] = {}
    for leaf in leaves:
        for ref in leaf.documents:
            for file in finder.files(leaf, ref):
                files.setdefault((file.leaf, file.source), file)
    ordered = sorted(files.values(), key=lambda file: (file.leaf, file.name, file.source))
    total = hashlib.sha256()
    for file in ordered:
        total.update(f"{file.leaf}\0{file.name}\0{file.sha256}\n".encode())
    found = Found(
        digest=total.hexdigest(),
        locator="documents of the taxonomy",
        revision=", ".join(sorted(finder.revisions)),
        details={
            "files": json.dumps([asdict(file) for file in ordered]),
            "notes": json.dumps(sorted(finder.notes), ensure_ascii=False),
            "trees": json.dumps(finder.checkouts, sort_keys=True),
            "pages": json.dumps(sorted(finder.pages)),
        },
    )
    return Survey(found, tuple(finder.problems.values()))


def fitting(pattern: str, names: Sequence[str]) -> list[str]:
    """The readable documents among ``names`` that ``pattern`` means."""
    return meant(pattern, names, KINDS)


def pinned_files(found: Found) -> list[PinnedFile]:
    """The files that :func:`find_documents` pinned, sorted by leaf and name."""
    details = found.details or {}
    return [PinnedFile(**entry) for entry in json.loads(details.get("files", "[]"))]


class _Finder:
    """Reads each repository, address and file once, and collects problems, one for each place and fault."""

    def __init__(self, root: Path, where: Where, base: Path, login: str) -> None:
        self.root = root
        self.base = base
        self.where = where
        self.cache = base / Path(where.cache).expanduser() if where.cache else cache_home()
        self.mirrors = {_bare(url): target for url, target in where.documents.mirrors.items()}
        self.problems: dict[tuple[str, str], Problem] = {}
        self.notes: set[str] = set()
        self.revisions: set[str] = set()
        self.checkouts: dict[str, tuple[str, str]] = {}  # folder -> address and commit that it came from
        self.pages: set[str] = set()  # hashes of the files that no commit has
        self._trees: dict[tuple[str | None, str], _Tree | Problem] = {}
        self._pages: dict[str, tuple[str, Path, str] | Problem] = {}
        self._silent: dict[str, str] = {}  # host -> what it did
        self._hashes: dict[Path, str] = {}
        self._login = login

    def files(self, leaf: Leaf, ref: DocumentRef) -> Iterator[PinnedFile]:
        """The files that ``ref`` means; problems are collected."""
        if ref.text is not None:
            yield from self._inline(leaf, ref, ref.text)
        for url in ref.urls:
            yield from self._web_page(leaf, ref, url)
        for pattern in ref.patterns:
            yield from self._matches(leaf, ref, pattern)

    def _matches(self, leaf: Leaf, ref: DocumentRef, pattern: str) -> Iterator[PinnedFile]:
        folder = "" if ref.repo else posixpath.dirname(leaf.place.file)
        wanted = posixpath.normpath(posixpath.join(folder, pattern))
        try:
            if wanted.startswith(("/", "../")) or wanted == "..":
                at = "its repository" if ref.repo else "the taxonomy"
                hint = "put the documents into the taxonomy, or refer to a repository or an address"
                raise InputError(f"`{pattern}` lies outside of {at}", hint=hint)
            tree = self._tree(ref, wanted)
            names = meant(wanted, tree.names, KINDS)
            if not names:
                raise self._nothing(ref, pattern, wanted, tree)
        except (InputError, ServiceError) as error:
            self._problem(ref, error)
            return
        for name in names:
            yield from self._pin(leaf.path, tree, name, ref)

    def _problem(self, ref: DocumentRef, error: Problem, label: str = "") -> None:
        """Keep ``error`` as one of the reference; ``label`` names the document where the error does not."""
        if error.where and error.where not in (label, str(ref.place)):
            label = f"{label} ({error.where})" if label else error.where
        message = f"{label}: {error.message}" if label else error.message
        told: Problem = InputError(message, where=str(ref.place), hint=error.hint)
        if isinstance(error, ServiceError):
            told = ServiceError(message, where=str(ref.place), hint=error.hint, retryable=error.retryable)
        self.problems.setdefault((str(ref.place), message), told)

    def _tree(self, ref: DocumentRef, wanted: str) -> _Tree:
        """The folder that holds ``ref``'s files, fetched and listed once. Raises what is wrong with it each time."""
        if ref.repo is None:
            parts = wanted.split("/")
            fixed = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
            key: tuple[str | None, str] = (None, "/".join(parts[:fixed]))
        else:
            key = (ref.repo, ref.commit or "HEAD")
        if key not in self._trees:
            try:
                self._trees[key] = self._repository(ref) if ref.repo else self._local(key[1])
            except (InputError, ServiceError) as error:
                self._trees[key] = error
        tree = self._trees[key]
        if isinstance(tree, _Tree):
            return tree
        raise tree

    def _local(self, folder: str) -> _Tree:
        """The taxonomy's files below ``folder`` (relative to its root), which no link may leave."""
        start = self.root / folder
        if not start.resolve().is_relative_to(self.root.resolve()):
            raise InputError(f"the folder `{folder}` is a link that leaves the taxonomy")
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
                raise InputError(message, hint="correct where.documents.mirrors")
            if not git.is_repository(folder):
                return _Tree(folder, f"{shown}:", list_files(folder))
        if target == address:
            self._login = self._login or git.server_of(git.origin_of(self.root))
        login = self._login if target == address else git.server_of(target)  # a mirror is the user's own word
        with self._asking(target):
            checkout = git.checkout(git.Origin(target, commit, hint=hint, login=login), self.cache / "git")
        self.revisions.add(f"{git.redacted(address)}@{checkout.commit}")
        self.checkouts[str(checkout.folder.absolute())] = git.redacted(target), checkout.commit
        return _Tree(checkout.folder, f"{shown}:", list_files(checkout.folder))

    def _pin(self, leaf: str, tree: _Tree, name: str, ref: DocumentRef) -> Iterator[PinnedFile]:
        path, source = tree.folder / name, tree.prefix + name
        if (
            not name.isprintable()
        ):  # it would be printed to a terminal; names that are no UTF-8 are not printable either
            error = InputError(
                f"the file name {name!a} holds characters that cannot be printed", hint="rename the file"
            )
            self._problem(ref, error)
            return
        try:
            if PurePosixPath(name).suffix.lower() not in KINDS:
                hint = f"these are read: {', '.join(KINDS)}; narrow the pattern, or convert the file"
                raise InputError("cannot be read as a document", hint=hint)
            if not path.resolve().is_relative_to(tree.folder.resolve()):
                raise InputError("is a link that leaves its repository")
            yield PinnedFile(leaf, source, name, str(path.absolute()), self._hash(path), str(ref.place))
        except InputError as error:
            self._problem(ref, error, source)

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = hashlib.sha256(read_document(path)).hexdigest()
        return self._hashes[path]

    def _inline(self, leaf: Leaf, ref: DocumentRef, text: str) -> Iterator[PinnedFile]:
        try:
            digest = hashlib.sha256(text.encode()).hexdigest()
        except UnicodeEncodeError as error:
            self._problem(ref, InputError(f"the text is not valid Unicode at character {error.start + 1}"))
            return
        yield PinnedFile(leaf.path, str(ref.place), "text.md", "", digest, str(ref.place))

    def _web_page(self, leaf: Leaf, ref: DocumentRef, url: str) -> Iterator[PinnedFile]:
        if url not in self._pages:
            try:
                self._pages[url] = self._fetched(url)
            except (InputError, ServiceError) as error:
                self._pages[url] = error
        page = self._pages[url]
        if isinstance(page, tuple):
            name, path, digest = page
            self.pages.add(digest)
            yield PinnedFile(leaf.path, git.redacted(url), name, str(path.absolute()), digest, str(ref.place))
        else:
            self._problem(ref, page, git.redacted(url))

    def _fetched(self, url: str) -> tuple[str, Path, str]:
        """Name (with the suffix of its format), path of the copy, and hash of what stands at an address."""
        from ilab.core.web import fetch

        with self._asking(url):
            fetched = fetch(url, self.cache, self.where.web)
        if fetched.stale:
            self.notes.add(f"{git.redacted(url)} could not be reached; the copy from the last time is used")
        name = _name(url, fetched.url, fetched.media)
        return name, fetched.path, hashlib.sha256(read_document(fetched.path, PurePosixPath(name).suffix)).hexdigest()

    @contextmanager
    def _asking(self, address: str) -> Iterator[None]:
        """A server that does not answer once is not waited for a second time."""
        try:
            host = urlsplit(address).netloc.rpartition("@")[2] or address.partition(":")[0]
        except ValueError:  # no address at all: whoever is to ask for it says so
            host = address
        if host in self._silent:
            raise ServiceError(f"not asked: {host} {self._silent[host]}", hint="try again later", retryable=True)
        try:
            yield
        except ServiceError as error:
            self._silent[host] = f"failed before ({error.message})"
            raise

    def _nothing(self, ref: DocumentRef, pattern: str, wanted: str, tree: _Tree) -> InputError:
        """The problem of a pattern that matches no file, with the names that come nearest."""
        readable = [name for name in tree.names if PurePosixPath(name).suffix.lower() in KINDS and name.isprintable()]
        near = difflib.get_close_matches(wanted, readable[:2000], 3, 0.6)
        submodule = next((at for at in _submodules(tree) if f"{wanted}/".startswith(f"{at}/")), "")
        if submodule:
            hint = f"`{submodule}` is a git submodule, another repository: refer to that one itself"
        elif near:
            hint = f"did you mean {' or '.join(near)}?"
        elif readable:
            more = f" and {len(readable) - _SHOWN} more" if len(readable) > _SHOWN else ""
            hint = f"documents there: {', '.join(readable[:_SHOWN])}{more}"
        else:
            hint = f"there is no document there at all; these are read: {', '.join(KINDS)}"
        at = f"{git.redacted(ref.repo)}@{ref.commit or 'HEAD'}" if ref.repo else "the taxonomy"
        return InputError(f"`{pattern}` matches no file in {at}", hint=hint)


def _name(url: str, final: str, media: str) -> str:
    """A file name for what an address gave, with the suffix of its format. Raises ``InputError`` for other formats."""
    parts = urlsplit(url)
    path = PurePosixPath(unquote(parts.path).strip("/") or "index")
    named = (PurePosixPath(unquote(urlsplit(address).path)).suffix.lower() for address in (final, url))
    suffix = _MEDIA.get(media, "")
    if media in _VAGUE:
        suffix = next((one for one in named if one in KINDS), _VAGUE[media])
    if suffix not in KINDS:
        hint = f"these are read: {', '.join(KINDS)}"
        raise InputError(f"is of the kind {media or 'that the server does not name'}, which is not read", hint=hint)
    return f"{parts.netloc.rpartition('@')[2]}/{path if path.suffix.lower() == suffix else f'{path}{suffix}'}"


def _submodules(tree: _Tree) -> list[str]:
    """The folders of a checkout that are other repositories, as its ``.gitmodules`` names them."""
    if ".gitmodules" not in tree.names:
        return []
    try:
        text = read_document(tree.folder / ".gitmodules").decode("utf-8", "replace")
    except InputError:
        return []
    return [path.strip("/") for path in re.findall(r"^[ \t]*path[ \t]*=[ \t]*(\S[^\n]*?)[ \t]*$", text, re.MULTILINE)]


def _bare(url: str) -> str:
    """``url`` without what people add or leave out: a slash or ``.git`` at the end."""
    return url.rstrip("/").removesuffix(".git")
