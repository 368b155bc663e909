"""What the commands about taxonomies share: which taxonomy is meant, its local documents, and counts in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ilab.cli.app import Options

if TYPE_CHECKING:
    from ilab.data import Leaf


def taxonomy_path(options: Options, given: str | None) -> Path:
    """``given``, else the project's local ``sdg_repo_url``, else the current folder."""
    if given is not None:
        return options.directory / given
    from ilab.core.git import is_url

    loaded = options.load()
    locator = str(loaded.config.parameters.get("sdg_repo_url") or "")
    path: Path = loaded.path(locator) if locator else options.directory
    return options.directory if locator and is_url(locator) and not path.exists() else path


def local_documents(leaves: Sequence[Leaf], root: Path) -> dict[str, dict[str, list[str]]]:
    """Path of a leaf -> its local document pattern -> the files it fits, relative to ``root``."""
    from ilab.documents.trees import list_files, matching
    from ilab.taxonomy.changes import local_patterns

    listed: dict[str, list[str]] = {}
    found: dict[str, dict[str, list[str]]] = {}
    for leaf in leaves:
        for pattern, (folder, wanted) in local_patterns(leaf).items():
            if folder not in listed:
                start = root / folder
                inside = start.is_dir() and start.resolve().is_relative_to(root.resolve())
                listed[folder] = [f"{folder}/{name}".lstrip("/") for name in (list_files(start) if inside else ())]
            found.setdefault(leaf.path, {})[pattern] = matching(wanted, listed[folder])
    return found


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
