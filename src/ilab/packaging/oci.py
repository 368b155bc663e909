"""A model as an OCI image on disk, read: an image layout that registries, skopeo, umoci and Kubernetes read too.

    oci-layout  index.json  blobs/sha256/<digest>…      OCI image-spec 1.1

Two forms, both written by :mod:`ilab.packaging.image`: a *modelcar* (KServe), in which every file is an uncompressed
tar layer below ``/models``, on a base image or none; and a *ModelPack* (CNCF), in which every file is a layer as it is.
A layer of the model names its file in an annotation; layers without one are a base image's and no part of the model.

Reading trusts nothing: digests name files only if they look like digests, and extraction knows plain files and
folders below ``/models`` and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ilab.errors import InputError
from ilab.transfer.layout import beside, listed, reachable, the_image

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REFERENCE = "org.opencontainers.image.ref.name"
FILE = "org.cncf.model.filepath"  # ModelPack's name for the file a layer holds
ROOT = "models"
MODELPACK = "application/vnd.cncf.model.manifest.v1+json"  # artifactType
Form = Literal["modelcar", "modelpack"]
BLOCK = 1 << 20  # bytes
JSON_LIMIT = 4 << 20  # bytes; registries refuse larger manifests
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Descriptor:
    """A blob: digest (``sha256:…``), size in bytes, media type, and for a layer of the model the file it holds."""

    digest: str
    size: int
    file: str = ""
    media: str = LAYER


@dataclass(frozen=True)
class Layout:
    """The image of a layout. ``digest`` is the manifest's: the identity of the package."""

    path: Path
    digest: str
    reference: str
    manifest: dict[str, Any]
    config: dict[str, Any]
    layers: tuple[Descriptor, ...]

    @property
    def form(self) -> Form:
        return "modelpack" if self.manifest.get("artifactType") == MODELPACK else "modelcar"

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)


def read_layout(path: Path) -> Layout:
    """Read index, manifest and config; their digests are checked, the layers' are not (see :func:`verify_layout`).

    Of several images it is the one package. Raises ``InputError`` where ``path`` is not a layout with such an image.
    """
    marker = _read_json(path / "oci-layout", path)
    if marker.get("imageLayoutVersion") != "1.0.0":
        raise InputError("this is not an OCI image layout of version 1.0.0", where=str(path))
    named = the_image(path)
    entry = _descriptor(named, path)
    manifest = _read_blob(path, entry)
    config = _read_blob(path, _descriptor(manifest.get("config"), path))
    layers = manifest.get("layers")
    if not isinstance(layers, list):
        raise InputError("the manifest lists no layers", where=str(_blob(path, entry)))
    annotations = named.get("annotations")
    reference = annotations.get(REFERENCE, "") if isinstance(annotations, dict) else ""
    return Layout(path, entry.digest, str(reference), manifest, config, tuple(_descriptor(e, path) for e in layers))


def signatures(path: Path) -> list[bytes]:
    """The signatures that stand beside the image of a layout. Raises ``InputError`` where one is damaged."""
    found = []
    for entry in beside(path, [read_layout(path).digest]):
        layers = _read_blob(path, _descriptor(entry, path)).get("layers")
        for layer in layers if isinstance(layers, list) else ():
            descriptor = _descriptor(layer, path)
            _read_blob(path, descriptor)
            found.append(_blob(path, descriptor).read_bytes())
    return found


def verify_layout(path: Path) -> list[str]:
    """Check every digest and size. Returns the problems as sentences; an empty list means that all is well.

    Of the package alone, where images of others lie in the same folder; only a layout of its own may hold nothing else.
    """
    try:
        layout = read_layout(path)
    except InputError as error:
        return [str(error)]
    problems = []
    for layer in layout.layers:
        blob = _blob(path, layer)
        if not blob.is_file():
            problems.append(f"{layer.file or layer.digest}: the blob {blob} is missing.")
        elif blob.stat().st_size != layer.size:
            problems.append(f"{layer.file}: {blob} has {blob.stat().st_size} bytes instead of {layer.size}.")
        elif (found := _hash(blob)) != layer.digest:
            problems.append(f"{layer.file}: {blob} has the digest {found}; its bytes were changed.")
    if problem := _wrong_config(layout):
        problems.append(problem)
    signed = beside(path, [layout.digest])
    for entry in signed:
        _read_blob(path, _descriptor(entry, path))
    entries = listed(path)
    if len(entries) == len(signed) + 1:
        known = reachable(path, entries)
        strange = [one for one in sorted((path / "blobs" / "sha256").iterdir()) if f"sha256:{one.name}" not in known]
        problems += [f"{blob} belongs to no image of this layout." for blob in strange]
    return problems


def extract_layout(path: Path, to: Path) -> Path:
    """Write the image's files below ``to``, which must be new or empty. Returns the folder of the model.

    Raises ``InputError`` where the layout fails :func:`verify_layout` or holds anything but plain files below
    ``/models``; nothing is ever written outside ``to``.
    """
    if problems := verify_layout(path):
        raise InputError(
            "the package is damaged: " + " ".join(problems[:3]), where=str(path), hint="fetch or build it again"
        )
    if to.exists() and any(to.iterdir()):
        raise InputError("the folder to extract to is not empty", where=str(to), hint="give a new folder")
    layout = read_layout(path)
    ours = [layer for layer in layout.layers if layer.file]
    for layer in ours or layout.layers:
        blob = _blob(path, layer)
        if layer.media.endswith(".raw"):
            _extract_raw(layer, blob, to)
            continue
        try:
            with tarfile.open(blob, "r:") as archive:
                for member in archive:
                    _extract(archive, member, to, blob)
        except tarfile.TarError as error:
            raise InputError(f"this layer is not a plain tar file: {error}", where=str(blob)) from error
    return to / ROOT


def read_paper(path: Path, name: str) -> bytes | None:
    """The file ``name`` of the model in a layout; None where there is none. Its digest is checked.

    Raises ``InputError`` for a damaged one, and one of more than ``JSON_LIMIT`` bytes: it is for what a package tells
    of itself, not for weights.
    """
    layer = next((layer for layer in read_layout(path).layers if layer.file == name), None)
    if layer is None:
        return None
    blob = _blob(path, layer)
    if layer.size > JSON_LIMIT + (1 << 16):
        raise InputError("this file is too large to be a paper of a package", where=str(blob))
    if not blob.is_file() or _hash(blob) != layer.digest:
        raise InputError("this blob does not match its digest", where=str(blob), hint="fetch or build it again")
    if layer.media.endswith(".raw"):
        return blob.read_bytes()
    try:
        with tarfile.open(blob, "r:") as archive:
            found = next((one for one in archive if one.isreg() and one.name == f"{ROOT}/{name}"), None)
            contents = archive.extractfile(found) if found is not None else None
            return contents.read() if contents is not None else None
    except tarfile.TarError as error:
        raise InputError(f"this layer is not a plain tar file: {error}", where=str(blob)) from error


def _wrong_config(layout: Layout) -> str:
    """What is wrong between config and manifest. A base image's layers may be compressed: its config names what is
    inside, so only their number is compared; ours are compared by digest."""
    named = layout.config.get("modelfs" if layout.form == "modelpack" else "rootfs")
    given = named.get("diffIds" if layout.form == "modelpack" else "diff_ids") if isinstance(named, dict) else None
    expected = [layer.digest for layer in layout.layers]
    plain = [not layer.media.endswith("gzip") for layer in layout.layers]
    if not isinstance(given, list) or len(given) != len(expected):
        return "The image's config names other layers than its manifest."
    if any(one != other for one, other, same in zip(given, expected, plain, strict=True) if same):
        return "The image's config names other layers than its manifest."
    return ""


def _extract_raw(layer: Descriptor, blob: Path, to: Path) -> None:
    inside = PurePosixPath(layer.file)
    if not safe(inside):
        message = f"a layer is called {layer.file!r}, which is no plain name"
        raise InputError(message, where=str(blob), hint="do not use this package")
    target = to / ROOT / inside
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(blob, target)


def _descriptor(value: Any, path: Path) -> Descriptor:
    digest, size = (value.get("digest"), value.get("size")) if isinstance(value, dict) else (None, None)
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or not isinstance(size, int):
        raise InputError("a descriptor lacks its digest or size", where=str(path), hint="fetch or build it again")
    annotations = value.get("annotations")
    name = str(annotations.get(FILE, "")) if isinstance(annotations, dict) else ""
    return Descriptor(digest, size, name, str(value.get("mediaType") or LAYER))


def _blob(path: Path, descriptor: Descriptor) -> Path:
    return path / "blobs" / "sha256" / descriptor.digest.removeprefix("sha256:")


def _read_blob(path: Path, descriptor: Descriptor) -> dict[str, Any]:
    blob = _blob(path, descriptor)
    value = _read_json(blob, path)
    if blob.stat().st_size != descriptor.size or _hash(blob) != descriptor.digest:
        raise InputError("this blob does not match its digest", where=str(blob), hint="fetch or build it again")
    return value


def _read_json(file: Path, path: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > JSON_LIMIT:
            raise InputError("this file is too large for a manifest", where=str(file))
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"this is not an OCI image layout: {file.relative_to(path)} cannot be read", where=str(path)
        ) from error
    if not isinstance(value, dict):
        raise InputError("this file should hold a JSON object", where=str(file))
    return value


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def safe(path: PurePosixPath) -> bool:
    """Whether ``path`` is a plain relative one."""
    parts: Iterable[str] = path.parts
    return bool(path.parts) and not path.is_absolute() and not any(p == ".." or "\0" in p or "\\" in p for p in parts)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, to: Path, blob: Path) -> None:
    inside = PurePosixPath(member.name)
    whiteout = inside.name.startswith(".wh.")
    if not safe(inside) or inside.parts[0] != ROOT or whiteout or not (member.isreg() or member.isdir()):
        raise InputError(
            f"the layer holds {member.name!r}, which is not a plain file below /{ROOT}",
            where=str(blob),
            hint="do not use this package",
        )
    target = to.joinpath(*inside.parts)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    contents = archive.extractfile(member)
    assert contents is not None  # noqa: S101 - isreg() was just checked
    with contents, target.open("wb") as handle:
        while block := contents.read(BLOCK):
            handle.write(block)
