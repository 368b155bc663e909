"""Git as a source of files: one commit of a repository becomes one plain folder in the cache.

    <cache>/<hash of the address>/<commit>/…      the files of that commit, no history, no ``.git``

A fetch is shallow, goes into a scratch repository that is removed at once, and is published by renaming: a
folder that exists is whole, and two processes cannot disturb each other. A full commit id that is in the cache
needs no network. A private repository is read with the name and password in its address, with ``GIT_USERNAME`` and
``GIT_PASSWORD`` of the environment, or over ssh with the file that ``GIT_SSH_KEY`` names; none of them enters a command
line or a message, and those of the environment go to the one server that an :class:`Origin` names: a leaf may refer to
any repository, whose server could ask for a password only to have it. The only subprocess is
``git`` with an argument list; it never asks questions, runs no hooks, and speaks only the transports in
``TRANSPORTS`` (not ``ext::``, which runs commands). Failures are wrapped here and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from ilab.core.pids import born
from ilab.errors import IlabError, InputError, ServiceError, SetupError

TRANSPORTS = "file:git:http:https:ssh"
TIMEOUT = 900  # seconds one git command may take; a stalled HTTP transfer is given up after 60
FULL_COMMIT = re.compile(r"[0-9a-f]{40}")

_OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.autocrlf=false",
    "http.lowSpeedLimit=100",
    "http.lowSpeedTime=60",
    # Files in Git LFS stay pointers: its filter would ask a server of its own, and one that fails spoils all files.
    "filter.lfs.smudge=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
)
# Answers from the environment, by a fixed text: git runs it, and nothing of a user's is part of it.
_HELPER = '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$GIT_USERNAME" "$GIT_PASSWORD"; }; f'
_URL = re.compile(r"(?:https?|ssh|git|file)://|[\w.-]+@[\w.-]+:(?!//)", re.IGNORECASE)
_BAD_REF = re.compile(r"^[-+]|[\s:*?\[\\\x00-\x1f\x7f]|\.\.")
_WEB = re.compile(r"(https?://)(?:[^/\s]*@)?([\w.:\[\]-]+)(?=/|$)", re.IGNORECASE)
_LOGIN = re.compile(r"(https?://)([^/@\s:]*):([^/\s]*)@(?=[^/@\s]*(?:/|$))", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_NO_SUCH_REF = re.compile(r"couldn't find remote ref|not our ref|unadvertised object|remote branch .* not found", re.I)
_TELLING = re.compile(r"fatal:|error:|remote:|ssh:|Host key |[\w.-]+@[\w.-]+:")  # the last is ssh's, of a key refused
_NETWORK = re.compile(
    r"could not resolve|failed to connect|couldn't connect|timed out|connection (?:refused|reset|closed)|"
    r"unreachable|early EOF|hung up|returned error: 5\d\d|returned error: 429|temporary failure",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Checkout:
    """The files of ``commit`` lie in ``folder``."""

    folder: Path
    commit: str


@dataclass(frozen=True)
class Origin:
    """A repository address with the ref wanted from it; ``where`` and ``hint`` go into every error about it.

    ``login`` is the server (as :func:`server_of` writes it) that is told ``GIT_USERNAME`` and ``GIT_PASSWORD``.
    """

    url: str
    ref: str = "HEAD"
    where: str = ""
    hint: str = ""
    login: str = ""


@dataclass(frozen=True)
class Change:
    """The commit that changed a file last: its id, who wrote it, and the day (``2026-03-14``)."""

    commit: str
    author: str
    date: str


def is_url(text: str) -> bool:
    """Whether ``text`` is an address git can fetch from, as opposed to a local path."""
    return bool(_URL.match(text))


def split_ref(locator: str) -> tuple[str, str]:
    """``(address, ref)`` of ``address@ref`` or ``address#ref``; the ref is ``HEAD`` where none is given."""
    address, mark, ref = locator.partition("#")
    if mark:
        return address, ref or "HEAD"
    scheme = re.match(r"\w+://[^/]*", locator) or re.match(r"[^/:]*:", locator)
    start = scheme.end() if scheme else 0
    path, mark, ref = locator[start:].rpartition("@")
    return (locator[:start] + path, ref) if mark and ref else (locator, "HEAD")


def server_of(url: str) -> str:
    """Scheme, host and port of a web address, ``https://git.example:8443``; ``""`` for any other."""
    found = _WEB.match(url)
    return (found[1] + found[2]).lower() if found else ""


def redacted(text: str) -> str:
    """``text`` with user names and passwords taken out of the addresses in it."""
    return _CREDENTIALS.sub("", text)


def head(folder: Path) -> str:
    """The commit checked out in the work tree that holds ``folder``, or ``""`` where there is none."""
    try:
        return _git("-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD")
    except (_GitError, IlabError):
        return ""


def last_change(file: Path) -> Change | None:
    """Who changed ``file`` last, or ``None`` where it is in no repository or was never committed."""
    try:
        told = _git("-C", str(file.parent), "log", "-1", "--format=%H%x1f%an%x1f%as", "--", f"./{file.name}")
    except (_GitError, IlabError):
        return None
    parts = told.split("\x1f")
    return Change(*parts) if len(parts) == 3 else None


def is_repository(folder: Path) -> bool:
    """Whether ``folder`` is a git work tree or a bare repository itself (not merely inside one)."""
    return (folder / ".git").exists() or ((folder / "HEAD").is_file() and (folder / "objects").is_dir())


def checkout(origin: Origin, cache: Path) -> Checkout:
    """The files of ``origin.ref`` (branch, tag, commit) below ``cache``, fetched unless they are there.

    Raises ``InputError`` for an address or ref that does not exist or may not be used, ``ServiceError`` when the
    server cannot be reached (``retryable``), ``SetupError`` without git or disk space.
    """
    _refuse_dangerous(origin)
    home = cache / hashlib.sha256(origin.url.encode()).hexdigest()[:16]
    if FULL_COMMIT.fullmatch(origin.ref) and (home / origin.ref).is_dir():
        return Checkout(home / origin.ref, origin.ref)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home, ignore_cleanup_errors=True) as scratch:
            return _fetch(origin, home, Path(scratch))
    except OSError as error:
        raise SetupError(
            f"cannot keep a git checkout: {error}",
            where=str(home),
            hint="free some disk space, or give another folder with --set where.cache=FOLDER",
        ) from error


def clone(origin: Origin, folder: Path, shallow: bool = False) -> None:
    """A work tree of ``origin`` with its history (``shallow``: its last commit) at ``folder``, whole or not at all.

    ``folder`` may exist if it is empty. A password in the address is not kept in the clone. What a killed clone left
    beside it is removed. Raises as :func:`checkout` does.
    """
    _refuse_dangerous(origin)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(".clone-*-*"):
            pid = left.name.split("-")[1]
            if pid.isdecimal() and born(int(pid)) is None:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix=f".clone-{os.getpid()}-", dir=folder.parent, ignore_cleanup_errors=True
        ) as scratch:
            tree = Path(scratch) / "tree"
            try:
                depth = ("--depth=1",) if shallow else ()
                options = ("--quiet", "--template=", "--no-recurse-submodules", *depth)
                address, login = _login(origin)
                _git("clone", *options, "--", address, str(tree), login=login)
            except _GitError as failure:
                raise _explain(failure, origin) from failure
            if folder.is_dir():
                folder.rmdir()
            tree.rename(folder)
    except OSError as error:
        raise SetupError(f"cannot make a git work tree: {error}", where=str(folder), hint=origin.hint) from error


def upstream_branch(folder: Path) -> str:
    """The branch that ``folder`` was cloned from, as ``origin/main``; ``""`` where it is no clone."""
    if not is_repository(folder):
        return ""
    try:
        return _git("-C", str(folder), "rev-parse", "--abbrev-ref", "--verify", "--quiet", "origin/HEAD")
    except (_GitError, IlabError):
        return ""


def knows(folder: Path, ref: str) -> bool:
    """Whether the work tree that holds ``folder`` has a commit of that name."""
    if _BAD_REF.search(ref):
        return False
    try:
        return bool(
            _git("-C", str(folder), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        )
    except (_GitError, IlabError):
        return False


def origin_of(folder: Path) -> str:
    """The address that ``folder`` was cloned from; ``""`` where it is no clone. It may hold a password."""
    if not is_repository(folder):
        return ""
    try:
        return _git("-C", str(folder), "remote", "get-url", "origin")
    except (_GitError, IlabError):
        return ""


def is_same(one: str, other: str) -> bool:
    """Whether two addresses are one repository's: ``https``, ``ssh`` and ``git@HOST:PATH`` of it are the same."""
    return _place(one) == _place(other)


def _place(url: str) -> str:
    """Host and path of an address."""
    scheme, mark, rest = url.partition("://")
    if mark:
        host, _, path = rest.rpartition("@")[2].partition("/") if scheme != "file" else ("", "", rest)
    elif is_url(url):
        host, _, path = url.rpartition("@")[2].partition(":")
    else:
        host, path = "", url
    return f"{host.partition(':')[0].lower()}/{path.strip('/').removesuffix('.git')}"


def _fetch(origin: Origin, home: Path, scratch: Path) -> Checkout:
    """Fetch into ``scratch`` and publish the commit's files below ``home``."""
    repository, tree = scratch / "repository", scratch / "tree"
    tree.mkdir()
    try:
        _git("init", "--quiet", "--bare", "--template=", str(repository))
        commit = _fetch_commit(origin, repository)
        folder = home / commit
        if not folder.is_dir():
            at = (f"--git-dir={repository}", f"--work-tree={tree}")
            _git(*at, "read-tree", commit)
            _git(*at, "checkout-index", "--all", cwd=tree)
    except _GitError as failure:
        raise _explain(failure, origin) from failure
    if not folder.is_dir():
        try:
            tree.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process published the same commit first
                raise
    return Checkout(folder, commit)


def _fetch_commit(origin: Origin, repository: Path) -> str:
    """Fetch the ref alone; where the server knows no such ref (a short commit id, ``v1~2``), fetch all, look."""
    at = ("-C", str(repository))
    address, login = _login(origin)
    try:
        _git(*at, "fetch", "--quiet", "--depth=1", "--no-tags", "--", address, origin.ref, login=login)
        return _git(*at, "rev-parse", "--verify", "--end-of-options", "FETCH_HEAD^{commit}")
    except _GitError as failure:
        if "does not support shallow" in failure.text:  # plain files on a web server
            _git(*at, "fetch", "--quiet", "--no-tags", "--", address, origin.ref, login=login)
            return _git(*at, "rev-parse", "--verify", "--end-of-options", "FETCH_HEAD^{commit}")
        if not _NO_SUCH_REF.search(failure.text):
            raise
        _git(*at, "fetch", "--quiet", "--tags", "--", address, "+refs/heads/*:refs/heads/*", login=login)
        try:
            return _git(*at, "rev-parse", "--verify", "--quiet", "--end-of-options", origin.ref + "^{commit}")
        except _GitError:
            raise failure from None


class _GitError(Exception):
    """A git command that returned an error; ``text`` is what it wrote to stderr."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def reason(self) -> str:
        """The one line that says most; git's last lines after a transport error are advice."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        told = [line for line in lines if _TELLING.match(line)] or lines
        if len(told) > 1 and "could not read from remote" in told[-1].lower():
            told.pop()
        return redacted(told[-1]) if told else "git gave no reason"


@dataclass(frozen=True)
class _Login:
    """The server that is told name and password, and these where they are not the environment's."""

    server: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def _login(origin: Origin) -> tuple[str, _Login]:
    """The address as it may stand in a command line, and what logs in there."""
    found = _LOGIN.match(origin.url)
    if found is None:  # with a name alone git asks a helper of the user's own for the rest
        return origin.url, _Login(origin.login)
    address = found[1] + origin.url[found.end() :]
    return address, _Login(server_of(address), {"GIT_USERNAME": unquote(found[2]), "GIT_PASSWORD": unquote(found[3])})


def _git(*arguments: str, cwd: Path | None = None, login: _Login = _Login()) -> str:
    """Run git, return its stripped stdout."""
    program = shutil.which("git")
    if program is None:
        raise SetupError("git is not installed", hint="install git, then run the same command again")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    for name in ("GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_COMMON_DIR"):
        environment.pop(name, None)
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": TRANSPORTS, "LC_ALL": "C"}
    key = shlex.quote(environment["GIT_SSH_KEY"]) if environment.get("GIT_SSH_KEY") else ""
    identity = f" -i {key} -oIdentitiesOnly=yes -oStrictHostKeyChecking=accept-new" if key else ""
    environment.setdefault("GIT_SSH_COMMAND", f"ssh -oBatchMode=yes{identity}")
    environment |= login.variables
    options = list(_OPTIONS)
    if login.server and environment.get("GIT_PASSWORD"):  # of a server's list of helpers an empty one makes a new one
        options += [f"credential.{login.server}.helper={helper}" for helper in ("", _HELPER)]
    command = [program, *(part for option in options for part in ("-c", option)), *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"git gave no result within {TIMEOUT} seconds", retryable=True) from error
    if done.returncode != 0:
        raise _GitError(done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace").strip()


def _refuse_dangerous(origin: Origin) -> None:
    if not origin.ref or _BAD_REF.search(origin.ref):
        raise InputError(f"{origin.ref!r} is no name of a branch, tag or commit", where=origin.where, hint=origin.hint)
    spoiled = any(ord(letter) < 32 or ord(letter) == 127 for letter in unquote(origin.url))
    if (
        spoiled
        or "::" in origin.url
        or origin.url.startswith("-")
        or not (is_url(origin.url) or Path(origin.url).is_absolute())
    ):
        raise InputError(
            f"{redacted(origin.url)!r} is no address of a git repository that may be used",
            where=origin.where,
            hint="give an https://, ssh:// or file:// address, or an absolute path",
        )


def _explain(failure: _GitError, origin: Origin) -> IlabError:
    """The error for people: who has to act depends on what git said."""
    address, reason = redacted(origin.url), failure.reason
    if _NO_SUCH_REF.search(failure.text):
        message = f"{address} has no branch, tag or commit {origin.ref!r} ({reason})"
        return InputError(message, where=origin.where, hint=origin.hint)
    message = f"cannot fetch {address}: {reason}"
    if _NETWORK.search(failure.text):
        return ServiceError(message, where=origin.where, hint=origin.hint, retryable=True)
    return InputError(message, where=origin.where, hint=origin.hint)
