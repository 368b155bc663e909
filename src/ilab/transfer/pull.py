"""An image out of a registry: as an image layout on this disk, or streamed only to see whether it is all there.

Every blob is hashed while it passes, in blocks; a cut line goes on where it was. A layout's ``index.json`` comes last.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ilab.core.events import Emit
from ilab.core.files import write_json
from ilab.core.store import disk_error
from ilab.errors import InputError, ServiceError
from ilab.transfer.layout import the_image
from ilab.transfer.registry import DIGEST, LATEST, MOST_LAYERS, Manifest, Registry
from ilab.transfer.web import Busy

REFERENCE = "org.opencontainers.image.ref.name"
INDEX = "application/vnd.oci.image.index.v1+json"
TRIES = 6  # in a row without a byte of progress
LONGEST_PAUSE = 30.0  # seconds


@dataclass(frozen=True)
class Part:
    """A blob that a manifest names."""

    digest: str
    size: int


class Mismatch(ServiceError):
    """What a registry holds is not what its digest says."""


def pull_image(registry: Registry, reference: str, out: Path, emit: Emit) -> Manifest:
    """Write the image of a tag or digest as the layout ``out``; blobs that are there already are not fetched again.

    Raises ``InputError`` for an image that is not there, ``Mismatch`` where it is not what its digests say.
    """
    found = registry.manifest(reference or LATEST)
    blobs = out / "blobs" / "sha256"
    try:
        blobs.mkdir(parents=True, exist_ok=True)
        told = Told(emit, found)
        for part in parts(found, str(registry.address)):
            place = blobs / part.digest.removeprefix("sha256:")
            if place.is_file() and place.stat().st_size == part.size:
                told(part.size)
                continue
            temporary = place.with_name(f".{os.getpid()}.part")
            with temporary.open("wb") as handle:
                _receive(registry, part, handle, told)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(place)
        (blobs / found.digest.removeprefix("sha256:")).write_bytes(found.body)
        named = reference if not DIGEST.fullmatch(reference) else ""
        write_json(out / "oci-layout", {"imageLayoutVersion": "1.0.0"})
        write_json(out / "index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(found, named)]})
    except OSError as error:
        raise disk_error(error, out) from error
    return found


def check_image(registry: Registry, digest: str, emit: Emit) -> int:
    """Read the whole image of ``digest`` and keep nothing; returns its bytes.

    Raises ``ServiceError`` where something is missing or is not what its digest says.
    """
    try:
        found = registry.manifest(digest)
    except InputError as error:
        raise ServiceError(f"it is not there: {error.message}", where=str(registry.address)) from error
    told = Told(emit, found)
    total = 0
    for part in parts(found, str(registry.address)):
        _receive(registry, part, None, told)
        total += part.size
    return total


def parts(manifest: Manifest, where: str) -> list[Part]:
    """The config and the layers, each blob once. Raises ``ServiceError`` for a manifest that makes no sense."""
    layers = manifest.contents.get("layers")
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        raise ServiceError("the manifest lists no layers", where=where)
    found = {}
    for listed in (manifest.contents.get("config"), *layers):
        plain = listed if isinstance(listed, dict) else {}
        digest, size = plain.get("digest"), plain.get("size")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
            raise ServiceError("a layer has no digest or size", where=where)
        found[digest] = Part(digest, size)
    return list(found.values())


def entry(manifest: Manifest, reference: str) -> dict[str, Any]:
    """A manifest as the index of a layout lists it."""
    notes = {"annotations": {REFERENCE: reference}} if reference else {}
    return {"mediaType": manifest.media, "digest": manifest.digest, "size": len(manifest.body), **notes}


class Told:
    """Adds up bytes, and tells how far it is."""

    def __init__(self, emit: Emit, manifest: Manifest) -> None:
        self._emit = emit
        self._total = sum(part.size for part in parts(manifest, ""))
        self._done = 0

    def __call__(self, count: int) -> None:
        self._done += count
        unit, scale = ("MB", 1e6) if self._total >= 10_000_000 else ("kB", 1e3)
        self._emit.progress(round(self._done / scale), max(1, round(self._total / scale)), unit)


def _receive(registry: Registry, part: Part, handle: IO[bytes] | None, told: Callable[[int], None]) -> None:
    """One blob, hashed on its way. After a cut it goes on where it was, or where the registry can begin."""
    hashed, at, tries = hashlib.sha256(), 0, 0
    while True:
        before = at
        try:
            with registry.blob(part.digest, at) as body:
                if body.start != at:  # the registry knows no ranges
                    told(-at)
                    hashed, at = hashlib.sha256(), 0
                    if handle is not None:
                        handle.seek(0)
                        handle.truncate()
                for block in _within(body.blocks, part.size - at, str(registry.address)):
                    hashed.update(block)
                    if handle is not None:
                        handle.write(block)
                    at += len(block)
                    told(len(block))
            if at < part.size:
                raise ServiceError("the registry sends less than it says", where=part.digest, retryable=True)
            break
        except ServiceError as error:
            tries = 1 if at > before else tries + 1
            if not error.retryable or tries >= TRIES:
                raise
            wait = error.wait if isinstance(error, Busy) else None
            time.sleep(min(LONGEST_PAUSE, 2.0 ** (tries - 1) if wait is None else wait))
    if f"sha256:{hashed.hexdigest()}" != part.digest:
        raise Mismatch(
            f"the registry holds other bytes under {part.digest[:19]}",
            where=str(registry.address),
            hint="push it again",
        )


def _within(blocks: Iterator[bytes], left: int, where: str) -> Iterator[bytes]:
    for block in blocks:
        left -= len(block)
        if left < 0:
            raise ServiceError("the registry sends more than it says", where=where)
        yield block


def manifest_of(layout: Path) -> Manifest:
    """The one image of a layout, or the one package in it; its digest is checked.

    Raises ``InputError`` for anything else.
    """
    hint = "give the folder of an OCI image layout, or a registry's address"
    try:
        digest = str(the_image(layout)["digest"])
        if not DIGEST.fullmatch(digest):
            raise ValueError("no digest")
        body = (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
        contents = json.loads(body)
    except (InputError, OSError, ValueError, KeyError) as error:
        raise InputError("this is no OCI image layout with one image", where=str(layout), hint=hint) from error
    if not isinstance(contents, dict) or f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
        raise InputError("its manifest is not the one that its digest names", where=str(layout), hint="build it again")
    return Manifest(digest, body, contents)
