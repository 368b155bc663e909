"""What the commands about taxonomies share: which taxonomy is meant, its local documents, and counts in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ilab.cli.app import Options
from ilab.cli.findings import printable

if TYPE_CHECKING:
    from ilab.data import Leaf
    from ilab.documents.verify import Verified


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
    from ilab.documents.locate import fitting
    from ilab.documents.trees import list_files
    from ilab.taxonomy.changes import local_patterns

    listed: dict[str, list[str]] = {}
    found: dict[str, dict[str, list[str]]] = {}
    for leaf in leaves:
        for pattern, (folder, wanted) in local_patterns(leaf).items():
            if folder not in listed:
                start = root / folder
                inside = start.is_dir() and start.resolve().is_relative_to(root.resolve())
                listed[folder] = [f"{folder}/{name}".lstrip("/") for name in (list_files(start) if inside else ())]
            found.setdefault(leaf.path, {})[pattern] = fitting(wanted, listed[folder])
    return found


def verified(options: Options, leaves: Sequence[Leaf], root: Path) -> Verified:
    """The documents of ``leaves`` fetched, converted and cut, under the project's own settings."""
    from ilab.actions import where_of
    from ilab.core.memo import Memo
    from ilab.documents.collect import Reading
    from ilab.documents.policy import Policy
    from ilab.documents.verify import verify
    from ilab.parameters import collect
    from ilab.transfer.stores import open_store

    loaded = options.load()
    values = {name: given.value for name, given in collect(loaded.parameters()).items()}
    memo = Memo(open_store(loaded).memo("documents"))  # where a build keeps its conversions
    try:
        reading = Reading(Policy.parse(values["document_policy"]), values["document_converter"], memo)
        return verify(leaves, root, where_of(loaded), loaded.base, reading, max_tokens=values["chunk_tokens"])
    finally:
        memo.close()


def show_documents(seen: Verified) -> list[str]:
    """Print flags and notes about documents; returns their counts in words."""
    for flag in seen.flags:
        level = click.style("warning:", fg="yellow", bold=True)
        told = f"{flag.kind}, {flag.action}: {flag.excerpt}"
        click.echo(f"{click.style(printable(f'{flag.source}, {flag.place}:'), bold=True)} {level} {printable(told)}")
    for note in seen.notes:
        click.echo(f"note: {printable(note)}", err=True)
    sums = {name: sum(counts[name] for counts in seen.counts.values()) for name in ("documents", "chunks", "tokens")}
    return [counted(number, name.removesuffix("s")) for name, number in sums.items()]


def document_facts(seen: Verified) -> dict[str, object]:
    """The same as JSON."""
    return {
        "documents": seen.counts,
        "flags": [flag.model_dump(mode="json") for flag in seen.flags],
        "notes": list(seen.notes),
    }


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
