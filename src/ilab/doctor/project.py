"""The configuration, the taxonomy that it names, and what the store and the models folder hold unfinished."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ilab.doctor.finding import Finding

if TYPE_CHECKING:
    from pathlib import Path

    from ilab.config import Loaded
    from ilab.errors import InputError

LEAF = "qna.yaml"
EVERY_LEAF = "empty"  # as taxonomy_base


def configuration(loaded: Loaded, wrong: InputError | None) -> Finding:
    """The files that were read, or the mistake in one of them."""
    if wrong:
        found = f"{wrong.where}: {wrong.message}" if wrong.where else wrong.message
        told = f"{found}; {wrong.hint}" if wrong.hint else found
        return Finding("configuration", "bad", told, "everything", "ilab config edit")
    if loaded.files:
        return Finding("configuration", "ok", ", ".join(map(str, loaded.files)))
    fix = "ilab config init"
    return Finding("configuration", "note", "no file: all settings have their defaults", "a taxonomy of your own", fix)


def taxonomy(loaded: Loaded) -> Finding:
    """Whether the taxonomy is there, has leaves, and knows the state that it is compared with."""
    from ilab.core import git

    locator = str(loaded.config.parameters.get("sdg_repo_url") or "")
    base = str(loaded.config.parameters.get("taxonomy_base") or "")
    needed = "taxonomy diff, data generate, run"
    if not locator:
        fix = "ilab config init   or ilab taxonomy init DIR"
        return Finding("taxonomy", "note", "none is configured", needed, fix)
    address, _ = git.split_ref(locator)
    if git.is_url(address):
        return Finding("taxonomy", "ok", f"{git.redacted(locator)}, fetched when it is needed")
    folder = loaded.path(locator)
    if not folder.exists():
        fix = f"ilab taxonomy init {folder}   or ilab config set parameters.sdg_repo_url DIR"
        return Finding("taxonomy", "bad", f"{folder} is not there", needed, fix)
    count = _leaves(folder)
    if not count:
        return Finding("taxonomy", "note", f"{folder} has no {LEAF}", needed, "ilab taxonomy new --help")
    if base not in ("", EVERY_LEAF) and folder.is_dir() and not git.knows(folder, base):
        found = f"{folder} does not know {base!r}, which its leaves are compared with"
        return Finding("taxonomy", "bad", found, needed, f"ilab config set parameters.taxonomy_base {EVERY_LEAF}")
    return Finding("taxonomy", "ok", f"{count} leaves in {folder}")


def _leaves(folder: Path) -> int:
    return 1 if folder.is_file() else sum(1 for _ in folder.rglob(LEAF))


def unfinished(loaded: Loaded) -> Iterator[Finding]:
    """Results and downloads that were begun and not ended; those that somebody is making now are fine."""
    from ilab.core.lease import is_held
    from ilab.transfer.shelf import Shelf, models_home

    partial = sorted(loaded.store.glob("*/*.partial")) if loaded.store.is_dir() else []
    held = [path for path in partial if is_held(path / "lease.json")]
    left = len(partial) - len(held)
    if left:
        found = f"{left} begun and left by a run that ended early"
        fix = "ilab run   (goes on from there)   or ilab pipeline gc   (removes them)"
        yield Finding("unfinished results", "note", found, "nothing; they take room", fix)
    elif held:
        yield Finding("unfinished results", "ok", f"{len(held)} are being made now")
    for name, size in Shelf(models_home()).unfinished().items():
        fix = f"ilab model download --repository {name}   or ilab model remove {name}"
        found = f"{size / 1e9:.1f} GB of it have arrived"
        yield Finding(f"download {name}", "note", found, "using that model", fix)
