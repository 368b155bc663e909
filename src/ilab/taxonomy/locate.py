"""From a locator (folder, file, git address) to a taxonomy's identity and the place it can be read from.

The identity is the hash of the leaf files alone (``qna.yaml``, ``eval.yaml``, ``attribution.txt``, with their
paths): a commit that touches only the README changes nothing. The commit is kept beside it, for people.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from ilab.config import Where, cache_home
from ilab.core import git
from ilab.core.step import Found
from ilab.errors import InputError, InputErrors
from ilab.taxonomy.changes import EMPTY, Matching, find_changes
from ilab.taxonomy.layout import ATTRIBUTION, EVAL, QNA, Layout, find_layout
from ilab.taxonomy.read import Reading, read_leaves, read_taxonomy
from ilab.taxonomy.yamlnodes import read_bytes


def find_taxonomy(
    locator: str, base: Path, where: Where, since: str = EMPTY, matching: Matching | None = None
) -> Found:
    """Find the taxonomy at ``locator``: a folder or ``qna.yaml`` relative to ``base``, or ``ADDRESS[@REF|#REF]``.

    A local folder is read as it stands in the work tree, committed or not. With ``since`` (a git ref) only the leaves
    that changed since then count, and are the identity; ``matching`` finds changed documents. What was found is read
    by :func:`read_found`. Raises ``InputError`` for a locator that leads nowhere and where no leaf changed,
    ``ServiceError`` when a git server cannot be reached.
    """
    path = base / Path(locator).expanduser()
    if not path.exists() and git.is_url(locator):
        address, ref = git.split_ref(locator)
        hint = "check the address and the ref; offline, a full commit id that was fetched before works"
        wanted = git.Origin(address, ref, hint=hint, login=git.server_of(address))
        checkout = git.checkout(wanted, _checkouts(base, where))
        path, revision, origin = checkout.folder, checkout.commit, {"address": git.redacted(address)}
    else:
        if not path.exists():
            raise InputError(
                f"there is no taxonomy at {locator!r}",
                where=str(path),
                hint="give a folder with knowledge/ or compositional_skills/, one qna.yaml, or a git address",
            )
        revision, origin = git.head(path if path.is_dir() else path.parent), {}
    if since == EMPTY or matching is None:
        layout, chosen = find_layout(path), {}
    else:
        changes = find_changes(path, since, matching)
        layout = changes.layout
        if not layout.files:
            hint = "to see what was looked at: ilab taxonomy diff; to take every leaf: -p taxonomy_base=empty"
            raise InputError(f"no leaf changed since {changes.base}", where=str(path), hint=hint)
        chosen = {"leaves": json.dumps([layout.name(file) for file in layout.files])}
    return Found(
        digest=_digest(layout),
        locator=git.redacted(locator),
        revision=revision,
        details={"path": str(path.absolute()), "root": str(layout.root), **origin, **chosen},
    )


def read_found(found: Found) -> Reading:
    """The leaves of what :func:`find_taxonomy` found. Raises ``InputErrors`` with every mistake in them."""
    details = found.details or {}
    if "leaves" not in details:
        return read_taxonomy(Path(details["path"]))
    layout = _chosen(Path(details["root"]), details["leaves"])
    leaves, problems = read_leaves(layout)
    if problems:
        raise InputErrors(problems)
    return Reading(leaves, (), layout.root)


def bring_taxonomy(found: Found, address: str, base: Path, where: Where) -> Found:
    """``found`` as it lies on this machine: where the plan was made on another, its commit is fetched.

    ``address`` is that of the repository, with what logs in there. Raises ``InputError`` where the files of the commit
    are not those that were found, and as :func:`find_taxonomy`.
    """
    details = found.details or {}
    if Path(details["path"]).exists() or not details.get("address"):
        return found
    hint = "the commit that the plan was made with is fetched: its repository must still have it"
    origin = git.Origin(address, found.revision, hint=hint, login=git.server_of(address))
    folder = git.checkout(origin, _checkouts(base, where)).folder
    layout = find_layout(folder)
    if "leaves" in details:
        layout = _chosen(layout.root, details["leaves"])
    if _digest(layout) != found.digest:
        message = "the taxonomy is not the one that the plan was made with"
        raise InputError(message, where=found.locator, hint="make the plan again")
    return replace(found, details={**details, "path": str(folder.absolute()), "root": str(layout.root)})


def _chosen(root: Path, names: str) -> Layout:
    """Of a taxonomy only the leaf files of these names, a JSON list."""
    return Layout(root, tuple(root / name for name in json.loads(names)))


def _checkouts(base: Path, where: Where) -> Path:
    return (base / Path(where.cache).expanduser() if where.cache else cache_home()) / "git"


def _digest(layout: Layout) -> str:
    """SHA-256 over name and contents of every leaf file, in order of their names.

    A single ``qna.yaml`` outside a tree is named after its folder, so that name counts too.
    """
    total = hashlib.sha256()
    for file in layout.files:
        folder = layout.leaf_path(file, "knowledge").partition("/")[2]
        for name in (QNA, EVAL, ATTRIBUTION):
            path = file.parent / name
            if not path.exists():
                continue
            if not layout.holds(path):
                raise InputError(
                    "is a link that leaves the taxonomy", where=layout.name(path), hint="put the file itself there"
                )
            label = layout.name(path)
            contents = hashlib.sha256(read_bytes(path, label)).hexdigest()
            total.update(f"{label}\0{folder}\0{contents}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
