"""Which leaves of a taxonomy changed: the meaning of ``ilab taxonomy diff``.

    HEAD ─ back along first parents ─▶ the first commit that the base contains ──┐
    work tree: changed since then, and untracked (not ignored) ◀────────────────┘

A leaf counts when its ``qna.yaml`` is among those files and still exists; a renamed one has its new name. Besides,
a leaf counts when a local document or the ``eval.yaml`` of it changed. The base ``empty`` means every leaf and needs
no git; a single ``qna.yaml`` stands for itself. Lists are sorted.
"""

from __future__ import annotations

import bisect
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ilab.data import Leaf
from ilab.taxonomy import worktree
from ilab.taxonomy.layout import EVAL, QNA, ROOTS, Layout, find_layout
from ilab.taxonomy.read import read_leaves

DEFAULT_BASE = "origin/main"
EMPTY = "empty"
_HAS_PATH = re.compile(rb"\bpath['\"]?\s*:")  # a leaf without it has no local document and need not be read

Matching = Callable[[str, Sequence[str]], list[str]]
"""Those of the names that fit a glob pattern (``documents.trees.matching``)."""


@dataclass(frozen=True)
class Changes:
    """``files`` are the ``qna.yaml`` that changed, ``beside`` those whose other files did -> the names of these.

    ``base`` is the base as it was used, ``commit`` the commit compared with (both "" without git), ``seen`` the
    number of changed and untracked files, ``passed_over`` the leaf files left out -> why. Names are relative to
    ``layout.root``; ``layout.files`` are the leaves of ``files`` and ``beside``.
    """

    layout: Layout
    files: tuple[str, ...]
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    base: str = ""
    commit: str = ""
    seen: int = 0
    passed_over: Mapping[str, str] = field(default_factory=dict)

    @property
    def leaves(self) -> list[str]:
        """Every leaf that changed in any way, sorted."""
        return sorted({*self.files, *self.beside})


def find_changes(path: Path, base: str | None, matching: Matching) -> Changes:
    """The leaves below ``path`` (a folder or one ``qna.yaml``) that changed since ``base``.

    ``base`` is a git ref or ``empty``; ``None`` means ``origin/main``, or ``main`` where there is no such branch.
    Raises ``InputError`` for a path or base that does not exist, and where there is no git repository.
    """
    single = path.is_dir() and not any((path / name).is_dir() for name in ROOTS) and (path / QNA).is_file()
    if base == EMPTY or single or not path.is_dir():
        layout = find_layout(path)
        names = tuple(layout.name(file) for file in layout.files)
        return Changes(layout, names, base=EMPTY if base == EMPTY else "", seen=len(names))
    root = path.resolve()
    worktree.require_worktree(root)
    if base is None:
        known = worktree.resolve(root, DEFAULT_BASE) is not None or worktree.resolve(root, "main") is None
        base = DEFAULT_BASE if known else "main"
    commit = worktree.fork_point(root, base, worktree.require_commit(root, base))
    seen = {**worktree.changed_since(root, commit), **dict.fromkeys(worktree.untracked(root), True)}
    files = tuple(sorted(name for name, there in seen.items() if there and _is_leaf(name)))
    passed_over = dict(_passed_over(seen))
    beside = _beside(root, seen, matching)
    if not files and not beside:
        passed_over |= dict.fromkeys(worktree.ignored(root, QNA, ROOTS), "git is told to ignore it (.gitignore)")
    layout = Layout(root, tuple(root / name for name in sorted({*files, *beside})))
    return Changes(layout, files, beside, base, commit, len(seen), dict(sorted(passed_over.items())))


def local_patterns(leaf: Leaf) -> dict[str, tuple[str, str]]:
    """The leaf's local document patterns as written -> (the folder to look in, the whole pattern), from the root."""
    found = {}
    for ref in leaf.documents:
        for pattern in ref.patterns if ref.repo is None else ():
            wanted = posixpath.normpath(posixpath.join(posixpath.dirname(leaf.place.file), pattern))
            parts = wanted.split("/")
            fixed = next((at for at, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
            found[pattern] = ("/".join(parts[:fixed]), wanted)
    return found


def _is_leaf(name: str) -> bool:
    folders = name.split("/")
    return folders[-1] == QNA and len(folders) > 1 and folders[0] in ROOTS


def _passed_over(seen: Mapping[str, bool]) -> Iterable[tuple[str, str]]:
    """Files that look like leaves and are not listed, with the reason."""
    for name, there in seen.items():
        file = posixpath.basename(name)
        if file.lower() not in (QNA, "qna.yml"):
            continue
        if not there:
            yield name, "was deleted"
        elif name.split("/")[0] not in ROOTS:
            yield name, f"lies outside {', '.join(f'{root}/' for root in ROOTS)}"
        elif file != QNA:
            yield name, f"must be named {QNA}"


def _beside(root: Path, seen: Mapping[str, bool], matching: Matching) -> dict[str, tuple[str, ...]]:
    """The leaves one of whose local documents or held-out questions changed (or went) -> those files."""
    others = sorted(name for name in seen if posixpath.basename(name) != QNA)
    found: dict[str, set[str]] = {}
    for name in others:
        leaf = posixpath.join(posixpath.dirname(name), QNA)
        if posixpath.basename(name) == EVAL and _is_leaf(leaf) and (root / leaf).is_file():
            found.setdefault(leaf, set()).add(name)
    for leaf, names in _documents(root, [name for name in others if posixpath.basename(name) != EVAL], matching):
        found.setdefault(leaf, set()).update(names)
    return {leaf: tuple(sorted(found[leaf])) for leaf in sorted(found)}


def _documents(root: Path, changed: list[str], matching: Matching) -> Iterable[tuple[str, list[str]]]:
    """Each leaf that refers to some of the files ``changed`` (sorted), with them."""
    if not changed or not any((root / name).is_dir() for name in ROOTS):
        return
    candidates = [file for name in ROOTS for file in sorted((root / name).rglob(QNA)) if _has_path(file)]
    leaves, _ = read_leaves(Layout(root, tuple(candidates)))  # faults of leaves that did not change are not asked for
    for leaf in leaves:
        for folder, wanted in local_patterns(leaf).values():
            start = f"{folder}/" if folder else ""
            first = bisect.bisect_left(changed, start)
            near = changed[first : bisect.bisect_left(changed, f"{start}\U0010ffff")]
            names = matching(wanted, near) if near else []
            if names:
                yield leaf.place.file, names


def _has_path(file: Path) -> bool:
    try:
        return file.is_file() and file.stat().st_size < 2**23 and _HAS_PATH.search(file.read_bytes()) is not None
    except OSError:
        return False
