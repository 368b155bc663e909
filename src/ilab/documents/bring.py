"""The pinned files of a plan on a machine where they are not yet: a pod that has only the plan, settings and store.

    a commit's files     its commit is fetched again, into this machine's own cache
    a page               no commit has it, and an address may give another one tomorrow: its copy travels with the plan
    a text               stands in the leaf

Nothing is looked for again, and :func:`ilab.documents.collect.collect` checks every file's hash.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from ilab.config import Where, cache_home
from ilab.core import git
from ilab.core.step import Found
from ilab.documents.locate import PinnedFile, pinned_files

PAGES = "pages"  # folder beside the plan


def carry_pages(found: Found, folder: Path) -> None:
    """Put a copy of every page among the pinned files beside the plan in ``folder``."""
    wanted = json.loads((found.details or {}).get("pages", "[]"))
    for file in pinned_files(found):
        if file.sha256 in wanted:
            (folder / PAGES).mkdir(exist_ok=True)
            shutil.copyfile(file.path, folder / PAGES / file.sha256)


def bring_documents(found: Found, taxonomy: str, base: Path, where: Where) -> Found:
    """``found`` with the files as they lie on this machine; ``base`` is the plan's folder.

    ``taxonomy`` is the address of the taxonomy's repository, with what logs in there. Raises as
    :func:`ilab.core.git.checkout`.
    """
    details = found.details or {}
    files = pinned_files(found)
    missing = [file for file in files if file.path and not Path(file.path).exists()]
    if not missing:
        return found
    cache = (base / Path(where.cache).expanduser() if where.cache else cache_home()) / "git"
    hint = "the commit that the plan was made with is fetched: its repository must still have it"
    mirrors = {git.redacted(url): url for url in where.documents.mirrors.values()}
    moved: dict[str, Path] = {}
    for folder, (url, commit) in json.loads(details.get("trees", "{}")).items():
        if any(Path(file.path).is_relative_to(folder) for file in missing):
            address = taxonomy if url == git.redacted(taxonomy) else mirrors.get(url, url)
            login = git.server_of(url if url in mirrors else taxonomy)
            moved[folder] = git.checkout(git.Origin(address, commit, hint=hint, login=login), cache).folder
    here = [asdict(_here(file, moved, base)) for file in files]
    return replace(found, details={**details, "files": json.dumps(here)})


def _here(file: PinnedFile, moved: Mapping[str, Path], base: Path) -> PinnedFile:
    for folder, new in moved.items():
        if file.path and Path(file.path).is_relative_to(folder):
            return replace(file, path=str((new / Path(file.path).relative_to(folder)).absolute()))
    carried = base / PAGES / file.sha256
    return replace(file, path=str(carried.absolute())) if file.path and carried.is_file() else file
