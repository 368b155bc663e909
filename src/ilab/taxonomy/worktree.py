"""Questions to git about the work tree that a taxonomy lies in: which commit a base means here, what changed since.

Every answer takes a fixed number of git commands, however long the history. Unlike ``core/git.py``, which fetches
other people's repositories, this looks at the author's own checkout, so line-ending settings stay as they are. No
program that the repository's settings name is run (hooks, monitors, external diffs). Names are relative to the folder
asked about.
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ilab.errors import InputError, ServiceError, SetupError

TIMEOUT = 300  # seconds one command may take
_OPTIONS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_REDIRECTING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_COMMON_DIR")


def require_worktree(folder: Path) -> None:
    """Raise ``InputError`` unless ``folder`` lies in a git work tree that has a commit."""
    hint = "to look at every leaf without git, add: --taxonomy-base empty"
    if _git(folder, "rev-parse", "--is-inside-work-tree") != b"true\n":
        raise InputError("is not in a git repository, so nothing can be compared", where=str(folder), hint=hint)
    if resolve(folder, "HEAD") is None:
        raise InputError("the git repository has no commit yet", where=str(folder), hint=hint)


def resolve(folder: Path, ref: str) -> str | None:
    """The commit that ``ref`` (branch, tag, commit, ``HEAD~2``) names, or ``None``."""
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    return found.decode().strip() if found else None


def require_commit(folder: Path, ref: str) -> str:
    """Like :func:`resolve`; raises ``InputError`` that names refs of nearly that name."""
    commit = resolve(folder, ref) if ref and "\0" not in ref else None
    if commit is not None:
        return commit
    listed = _git(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes", "refs/tags")
    known = [name for name in (listed or b"").decode("utf-8", "replace").splitlines() if name]
    near = difflib.get_close_matches(ref, known, 1) or [name for name in known if name.endswith(f"/{ref}")][:1]
    hint = f"did you mean `{near[0]}`? " if near else f"known: {', '.join(known[:8])}. " if known else ""
    raise InputError(
        f"the base {ref!r} is no branch, tag or commit of this repository",
        where=str(folder),
        hint=f"{hint}To look at every leaf, add: --taxonomy-base empty",
    )


def fork_point(folder: Path, ref: str, base: str) -> str:
    """The first commit that ``base`` (the commit of ``ref``) contains, going from HEAD along first parents."""
    told = _git(folder, "rev-list", "--first-parent", "HEAD", f"^{base}", "--")
    own = (told or b"").decode().split()  # HEAD first; none where HEAD itself is contained
    commit = resolve(folder, f"{own[-1]}^1" if own else "HEAD")
    if commit is not None:
        return commit
    shallow = _git(folder, "rev-parse", "--is-shallow-repository") == b"true\n"
    hint = "the history was cut off: type `git fetch --unshallow`" if shallow else "give a base that HEAD comes from"
    raise InputError(f"the current HEAD has no ancestor in {ref!r}", where=str(folder), hint=hint)


def changed_since(folder: Path, commit: str) -> Mapping[str, bool]:
    """Files below ``folder`` that differ between ``commit`` and the work tree -> whether they still exist.

    A renamed file is its old name, gone, and its new one.
    """
    how = ("--name-status", "--no-renames", "--relative", "--no-ext-diff", "--no-textconv", "--ignore-submodules")
    told = _git(folder, "diff", *how, "-z", commit, "--")
    if told is None:
        raise InputError(f"git cannot compare the work tree with {commit}", where=str(folder), hint="type: git status")
    states = _names(told)
    pairs = zip(states[::2], states[1::2], strict=True)
    return {name: state != "D" and os.path.lexists(folder / name) for state, name in pairs}


def held_at(folder: Path, commit: str, names: Sequence[str]) -> frozenset[str]:
    """Those of ``names`` that ``commit`` has."""
    if not names:
        return frozenset()
    told = _git(folder, "--literal-pathspecs", "ls-tree", "-r", "-z", "--name-only", commit, "--", *names)
    return frozenset(_names(told or b""))


def untracked(folder: Path) -> list[str]:
    """Files below ``folder`` that git does not know and is not told to ignore."""
    return _names(_git(folder, "ls-files", "--others", "--exclude-standard", "-z") or b"")


def ignored(folder: Path, name: str, roots: tuple[str, ...]) -> list[str]:
    """Files called ``name`` below ``roots`` that git is told to ignore."""
    wanted = [f":(glob){root}/**/{name}" for root in roots]
    told = _git(folder, "ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *wanted)
    return _names(told or b"")


def _names(told: bytes) -> list[str]:
    return [os.fsdecode(name) for name in told.split(b"\0") if name]


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints, or ``None`` where it ends with an error."""
    program = shutil.which("git")
    if program is None:
        raise SetupError("git is not installed", hint="install git, or add: --taxonomy-base empty")
    environment = {name: value for name, value in os.environ.items() if name not in _REDIRECTING}
    try:
        done = subprocess.run(
            [program, "-C", str(folder), *_OPTIONS, *arguments],
            env=environment | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"git gave no result within {TIMEOUT} seconds", where=str(folder)) from error
    return done.stdout if done.returncode == 0 else None
