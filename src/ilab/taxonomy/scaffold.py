"""Makes an empty taxonomy repository: what everybody needs, ready to be pushed.

    template/      copied as it stands: the three roots, README, CONTRIBUTING, forms for requests, workflows, ilab.yaml
    licences/      one of them becomes LICENSE

Nothing that exists is ever overwritten. A folder that holds files is refused unless the caller says otherwise; then
only what is missing is added. Where the folder is in no git work tree yet it becomes a repository with one commit on
the branch ``main``. Git is a convenience here: whatever goes wrong with it is told, and the files stand all the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ilab.errors import InputError

TEMPLATE = Path(__file__).parent / "template"
LICENCES = {path.stem: path for path in sorted((Path(__file__).parent / "licences").glob("*.txt"))}
NO_LICENCE = "none"
TIMEOUT = 60  # seconds for one git command; a commit may wait for somebody's signing key
_SHOWN = 8  # names of files in a message
_REDIRECTING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_COMMON_DIR")


@dataclass(frozen=True)
class Repository:
    """What was made at ``root``: names of files ``written``, and ``kept`` because they were there already.

    ``git`` is one line for people about the repository and its commit; "" where git was not asked for.
    """

    root: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]
    git: str


def make_repository(root: Path, *, licence: str = "apache-2.0", force: bool = False, git: bool = True) -> Repository:
    """Make an empty taxonomy at ``root``. ``force`` adds what is missing to a folder that holds files.

    ``licence`` is a name in :data:`LICENCES`, or ``none``. Raises ``InputError`` for a folder that holds files and for
    a path that cannot become a folder.
    """
    wanted = _wanted(licence)
    present = _present(root)
    if present and not force:
        more = f" and {len(present) - _SHOWN} more" if len(present) > _SHOWN else ""
        message = f"the folder is not empty: it holds {', '.join(present[:_SHOWN])}{more}"
        hint = "give another folder; to add what is missing and keep what is there: --force"
        raise InputError(message, where=str(root), hint=hint)
    written: list[str] = []
    kept: list[str] = []
    for name, source in wanted.items():
        (written if write_new(root, name, source.read_bytes()) else kept).append(name)
    return Repository(root, tuple(written), tuple(kept), _commit(root, written) if git else "")


def write_new(root: Path, name: str, contents: bytes) -> bool:
    """Write the file ``name`` below ``root`` unless there is anything of that name; whether it was written."""
    path = root / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as handle:
            handle.write(contents)
    except (FileExistsError, NotADirectoryError) as error:
        if os.path.lexists(path):
            return False
        raise InputError(
            "a file stands where a folder is needed", where=str(error.filename or path.parent), hint="rename that file"
        ) from error
    return True


def _wanted(licence: str) -> dict[str, Path]:
    """Name of each file of the new repository -> where its contents are."""
    listed = [path for path in sorted(TEMPLATE.rglob("*")) if path.is_file() and path.parent.name != "__pycache__"]
    files = {path.relative_to(TEMPLATE).as_posix(): path for path in listed}
    if licence == NO_LICENCE:
        return files
    if licence not in LICENCES:
        raise InputError(f"there is no licence {licence!r} here", hint=f"known: {', '.join(LICENCES)}, {NO_LICENCE}")
    return {**files, "LICENSE": LICENCES[licence]}


def _present(root: Path) -> list[str]:
    """What stands in the folder ``root``; a fresh clone, which holds ``.git`` alone, is empty."""
    if not os.path.lexists(root):
        return []
    if not root.is_dir():
        raise InputError("is a file, not a folder", where=str(root), hint="give the name of a new folder")
    return sorted(path.name for path in root.iterdir() if path.name != ".git")


def _commit(root: Path, written: list[str]) -> str:
    """Make ``root`` a repository with one commit, and say what became of it."""
    if shutil.which("git") is None:
        return "git is not installed, so this is no repository yet"
    if _git(root, "rev-parse", "--is-inside-work-tree")[0]:
        return f"lies in a git work tree already; to commit it: git -C {root} add . && git -C {root} commit"
    # The branch of a repository without commits can be named in this way by every version of git.
    for words in (["init", "--quiet"], ["symbolic-ref", "HEAD", "refs/heads/main"], ["add", "--", *written]):
        done, said = _git(root, *words)
        if not done:
            return f"git {words[0]} failed ({said}), so nothing is committed"
    done, said = _git(root, "commit", "--quiet", "--signoff", "--message", "An empty taxonomy")
    if done:
        return "committed on branch main"
    if not (_git(root, "config", "user.name")[0] and _git(root, "config", "user.email")[0]):
        return (
            "not committed, because git does not know you; type: git config --global user.name NAME, the same "
            "with user.email, then: git commit"
        )
    return f"not committed, because git commit failed ({said})"


def _git(folder: Path, *arguments: str) -> tuple[bool, str]:
    """Whether git succeeded, and the last line that it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in _REDIRECTING}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no result within {TIMEOUT} seconds"
    said = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return done.returncode == 0, said[-1] if said else ""


def author_of(folder: Path) -> str:
    """The name that git knows the user by in ``folder``, or ""."""
    if shutil.which("git") is None or not folder.is_dir():
        return ""
    done, said = _git(folder, "config", "user.name")
    return said if done else ""
