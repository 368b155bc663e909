"""A package on its way to others: to a registry, or to a folder as an image layout; and back, to see that it arrived.

What was pushed is read back whole, blob by blob, before anybody is told that it is there. A signature stands beside it.
Nothing in the store changes: whether something was pushed is looked up at the destination.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ilab.config import WebWhere, Where
from ilab.core.events import Emit
from ilab.core.files import read_json, replacing, take_over, write_bytes, write_json
from ilab.core.store import disk_error
from ilab.errors import IlabError, InputError, ServiceError, SetupError
from ilab.packaging.oci import FILE, INDEX, MODELPACK, extract_layout, read_layout, signatures, verify_layout
from ilab.packaging.sign import sign_folder
from ilab.transfer.address import Address, parse
from ilab.transfer.layout import SIGNATURE, listed, packages, reachable
from ilab.transfer.layout import beside as signatures_of
from ilab.transfer.pull import REFERENCE, check_image, entry, manifest_of, parts, pull_image
from ilab.transfer.push import outgoing, push_registry
from ilab.transfer.referrers import attach, attached, beside
from ilab.transfer.registry import LATEST, Registry

HINT = "give oci://HOST/PATH:TAG, HOST/PATH:TAG, or a folder"


@dataclass(frozen=True)
class Reach:
    """How to get there: ``web`` for TLS and time-outs, ``logins`` a docker config or mounted secret, and the reference
    to the key that signs (``env:``, ``file:``), with its password's."""

    web: WebWhere
    logins: Path | None = None
    sign_key: str = ""
    sign_password: str = ""


def reach_of(where: Where) -> Reach:
    """As the settings say."""
    given = where.package
    logins = Path(given.logins) if given.logins else None
    return Reach(where.web, logins, given.sign_key, given.sign_key_password)


@dataclass(frozen=True)
class Pushed:
    """Where a package is now, its digest there, its bytes, and whether a signature stands beside it."""

    address: str
    digest: str
    size: int
    signed: bool


def place_of(text: str, folder: Path = Path()) -> Address | Path:
    """What ``output_oci_model_uri`` means: a registry's address, or a folder relative to ``folder``.

    A first part with a dot or a colon, or ``localhost``, is a host, as docker has it. Raises ``InputError``.
    """
    scheme, mark, rest = text.partition("://")
    if mark and scheme == "file":
        return folder / Path(rest).expanduser()
    host = text.partition("/")[0]
    is_host = "/" in text and not text.startswith((".", "/", "~")) and ("." in host or ":" in host)
    if not mark and not is_host and host != "localhost":
        return folder / Path(text).expanduser()
    found = parse(text if mark else f"oci://{text}")
    if found.kind != "oci":
        raise InputError(f"{text} is no place for a package", where="output_oci_model_uri", hint=HINT)
    return found


def push_package(layout: Path, to: Address | Path, reach: Reach, work: Path, emit: Emit) -> Pushed:
    """Bring the package in ``layout`` to ``to``, sign it if a key is given, and read it back.

    ``work`` is a folder for what signing unpacks. Raises what :func:`ilab.transfer.push.push_registry` does, and
    ``ServiceError`` where something else arrived.
    """
    signature = None
    if reach.sign_key:
        shutil.rmtree(work, ignore_errors=True)
        signature = sign_folder(extract_layout(layout, work), reach.sign_key, reach.sign_password)
        shutil.rmtree(work, ignore_errors=True)
    if isinstance(to, Path):
        return _copy(layout, to, signature)
    read = read_layout(layout)
    if to.revision.startswith("sha256:"):
        raise InputError("a package is pushed under a tag, not under a digest", where=str(to), hint=HINT)
    to = replace(to, revision=to.revision or read.reference or LATEST)
    with registry_at(to, reach) as registry:
        done = push_registry(outgoing(layout), registry, "", emit)
        if signature is not None:
            attach(registry, manifest_of(layout), SIGNATURE, signature)
        size = check_image(registry, read.digest, emit)
        if registry.manifest(to.revision).digest != read.digest:
            raise ServiceError("somebody else pushed under the same tag at the same time", where=done.address)
    return Pushed(f"{to}:{to.revision}", read.digest, size, signature is not None)


def holds(to: Address | Path, digest: str, reach: Reach) -> bool:
    """Whether the package of this digest is at ``to``; a place that cannot be asked does not hold it."""
    try:
        if isinstance(to, Path):
            return read_layout(to).digest == digest
        with registry_at(to, reach) as registry:
            return registry.has(digest)
    except IlabError:
        return False


def fetch_package(place: Address | Path, work: Path, reach: Reach, emit: Emit) -> tuple[Path, list[bytes]]:
    """The package at ``place`` as a layout on this disk (below ``work`` if it comes from a registry), and the
    signatures beside it."""
    if isinstance(place, Path):
        return place, signatures(place)
    with registry_at(place, reach) as registry:
        found = pull_image(registry, place.revision or LATEST, work, emit)
        return work, attached(registry, found.digest, SIGNATURE)


def check_package(place: Address | Path, reach: Reach, emit: Emit) -> tuple[str, int]:
    """Read every byte of the package and keep nothing; its digest and bytes. Raises ``ServiceError`` or ``InputError``
    where one is missing or changed."""
    if isinstance(place, Path):
        if problems := verify_layout(place):
            raise InputError(problems[0], where=str(place), hint="build or fetch it again")
        layout = read_layout(place)
        return layout.digest, layout.size
    with registry_at(place, reach) as registry:
        digest = registry.manifest(place.revision or LATEST).digest
        return digest, check_image(registry, digest, emit)


def describe(place: Address | Path, reach: Reach) -> dict[str, Any]:
    """What a package holds, from its manifest alone, as plain JSON."""
    if isinstance(place, Path):
        manifest, count = manifest_of(place), len(signatures(place))
    else:
        with registry_at(place, reach) as registry:
            manifest = registry.manifest(place.revision or LATEST)
            count = len(attached(registry, manifest.digest, SIGNATURE))
    listed = [layer for layer in manifest.contents.get("layers") or [] if isinstance(layer, dict)]
    layers = [
        {
            "file": str((layer.get("annotations") or {}).get(FILE, "")),
            "digest": str(layer.get("digest")),
            "bytes": int(layer.get("size") or 0),
        }
        for layer in listed
    ]
    return {
        "digest": manifest.digest,
        "form": "modelpack" if manifest.contents.get("artifactType") == MODELPACK else "modelcar",
        "bytes": sum(part.size for part in parts(manifest, str(place))),
        "signatures": count,
        "annotations": dict(sorted((manifest.contents.get("annotations") or {}).items())),
        "layers": layers,
    }


@contextmanager
def registry_at(address: Address, reach: Reach) -> Iterator[Registry]:
    """The registry at ``address``; its connections are closed at the end."""
    from ilab.transfer.web import Http

    http = Http(reach.web)
    try:
        yield Registry(http, address, reach.logins)
    finally:
        http.close()


def _copy(layout: Path, to: Path, signature: bytes | None) -> Pushed:
    """Into the image layout in the folder ``to``, in place of the package that is there; images of others stay."""
    found, reference = manifest_of(layout), read_layout(layout).reference
    kept, gone = _sorted_out(to, found.digest, reference)
    entries = [entry(found, reference), *kept]
    contents = {found.digest: found.body}
    if signature is not None:
        manifest, held = beside(found, SIGNATURE, signature)
        contents |= {**held, manifest.digest: manifest.body}
        if manifest.digest not in [one.get("digest") for one in kept]:
            entries.append({**entry(manifest, ""), "artifactType": SIGNATURE})
    blobs = to / "blobs" / "sha256"
    try:
        blobs.mkdir(parents=True, exist_ok=True)
        write_json(to / "oci-layout", {"imageLayoutVersion": "1.0.0"})
        for part in parts(found, str(layout)):
            name = part.digest.removeprefix("sha256:")
            if not (blobs / name).is_file():
                with replacing(blobs / name) as new:
                    take_over(str(layout / "blobs" / "sha256" / name), str(new))
        for digest, content in contents.items():
            write_bytes(blobs / digest.removeprefix("sha256:"), content)
        index = _index(to) | {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        write_json(to / "index.json", index)
        for digest in gone - reachable(to, entries):
            (blobs / digest.removeprefix("sha256:")).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, to) from error
    if problems := verify_layout(to):
        raise SetupError(f"the package was damaged while it was copied: {problems[0]}", where=str(to))
    return Pushed(str(to), found.digest, read_layout(to).size, signature is not None)


def _sorted_out(to: Path, digest: str, reference: str) -> tuple[list[dict[str, Any]], set[str]]:
    """What the layout ``to`` lists besides the package that the one of ``digest`` replaces, and the digests of all that
    belongs to the latter. Raises ``InputError`` for a folder where nothing can be replaced or put beside."""
    hint = "give a new or empty folder"
    if to.exists() and (not to.is_dir() or (any(to.iterdir()) and not (to / "oci-layout").is_file())):
        raise InputError("this folder holds something else", where=str(to), hint=hint)
    if not (to / "index.json").is_file():
        return [], set()  # new, or a copy that was interrupted
    there = listed(to)
    old = packages(to, there)
    if len(old) > 1:
        raise InputError("this image layout holds several packages; which is replaced?", where=str(to), hint=hint)
    leaving = [one for one in there if one in old or one["digest"] == digest]
    if old and old[0]["digest"] != digest:  # signatures of the same package stay right
        leaving += signatures_of(to, [old[0]["digest"]])
    kept = [one for one in there if one not in leaving]
    if any((one.get("annotations") or {}).get(REFERENCE) == reference for one in kept):
        raise InputError(f"this image layout holds another image of the tag {reference}", where=str(to), hint=hint)
    return kept, reachable(to, leaving)


def _index(folder: Path) -> dict[str, Any]:
    """The index of the layout as it stands; nothing where there is none yet."""
    found: dict[str, Any] = read_json(folder / "index.json") if (folder / "index.json").is_file() else {}
    return found
