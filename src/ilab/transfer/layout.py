"""Which images an OCI image layout on this disk lists, which of them is the package, and what bytes belong to which.

A folder may hold images of others beside the package. The package is known by the probe that every one of ours holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ilab.errors import InputError
from ilab.transfer.registry import DIGEST, FILEPATH

PROBE = "probe.json"
SIGNATURE = "application/vnd.dev.sigstore.bundle.v0.3+json"  # of a manifest beside an image
LARGEST = 4 << 20  # bytes of a manifest; registries refuse larger ones


def listed(folder: Path) -> list[dict[str, Any]]:
    """The entries of the layout's index. Raises ``InputError`` where there is none."""
    return _plain(_json(folder / "index.json", folder).get("manifests"))


def the_image(folder: Path) -> dict[str, Any]:
    """The entry of the one image; of several, that of the one package. Raises ``InputError`` where there is none."""
    found = [entry for entry in listed(folder) if entry.get("artifactType") != SIGNATURE]
    if len(found) > 1:
        found = packages(folder, found)
    if len(found) != 1:
        message = "the layout should hold exactly one image, or one package of ilab"
        raise InputError(message, where=str(folder / "index.json"), hint="give a folder with one alone")
    return found[0]


def packages(folder: Path, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those entries that are packages of ours."""
    return [entry for entry in entries if _has_probe(_manifest(folder, entry))]


def beside(folder: Path, digests: Sequence[str]) -> list[dict[str, Any]]:
    """The entries of signatures of these images."""
    found = []
    for entry in listed(folder):
        if entry.get("artifactType") == SIGNATURE:
            subject = _manifest(folder, entry).get("subject")
            if isinstance(subject, dict) and subject.get("digest") in digests:
                found.append(entry)
    return found


def reachable(folder: Path, entries: Iterable[dict[str, Any]]) -> set[str]:
    """Digests of all that these entries name: manifests, configs, layers, and what an index among them names.

    Raises ``InputError`` where a manifest cannot be read.
    """
    known, waiting = set[str](), list(entries)
    while waiting:
        digest = _digest(entry := waiting.pop())
        if digest in known:
            continue
        manifest = _manifest(folder, entry)
        waiting += _plain(manifest.get("manifests"))
        known |= {digest, *(_digest(one) for one in (manifest.get("config"), *_plain(manifest.get("layers"))))}
    return known - {""}


def _digest(entry: object) -> str:
    found = entry.get("digest") if isinstance(entry, dict) else None
    return found if isinstance(found, str) else ""


def _plain(entries: object) -> list[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _has_probe(manifest: dict[str, Any]) -> bool:
    notes = [layer.get("annotations") for layer in _plain(manifest.get("layers"))]
    return any(isinstance(note, dict) and note.get(FILEPATH) == PROBE for note in notes)


def _manifest(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    digest = _digest(entry)
    if not DIGEST.fullmatch(digest):
        raise InputError(f"a manifest has the digest {digest[:80]!r}, which is none known here", where=str(folder))
    return _json(folder / "blobs" / "sha256" / digest.removeprefix("sha256:"), folder)


def _json(file: Path, folder: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST:
            raise InputError("this file is too large for a manifest", where=str(file))
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = f"this is not an OCI image layout: {file.relative_to(folder)} cannot be read"
        raise InputError(message, where=str(folder)) from error
    if not isinstance(value, dict):
        raise InputError("this file should hold a JSON object", where=str(file))
    return value
