"""A model as an OCI image on disk: an image layout that registries, skopeo, umoci and Kubernetes read.

    oci-layout  index.json  blobs/sha256/<digest>…      OCI image-spec 1.1

One uncompressed tar layer per file, all under ``/models``, where KServe's "modelcar" and Kubernetes image volumes
look. Tar headers hold no time, owner or host fact, so the same file is the same layer everywhere and a registry
stores it once. The image has no base: it suits image volumes; the older modelcar sidecar also needs a shell.

Blobs are hashed while they are written, in blocks, beside their final name; ``index.json`` comes last, so a layout
is whole if and only if it has one. Reading trusts nothing: digests name files only if they look like digests, and
extraction knows plain files and folders below ``/models`` and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ilab.core.files import write_json
from ilab.core.store import disk_error
from ilab.errors import InputError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REFERENCE = "org.opencontainers.image.ref.name"
FILE = "org.cncf.model.filepath"  # ModelPack's name for the file a layer holds
ROOT = "models"
BLOCK = 1 << 20  # bytes
MOST_LAYERS = 120  # container runtimes stop at 127
JSON_LIMIT = 4 << 20  # bytes; registries refuse larger manifests
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}


@dataclass(frozen=True)
class Descriptor:
    """A blob: digest (``sha256:…``), size in bytes, and for a layer the file it holds."""

    digest: str
    size: int
    file: str = ""


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
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)


def write_layout(
    out: Path,
    model: Path,
    files: Mapping[str, bytes | Path],
    annotations: Mapping[str, str],
    reference: str,
) -> str:
    """Write a model directory and more ``files`` (name below ``/models`` to contents) as an image layout.

    A name in ``files`` goes before the model's file of that name. ``annotations`` are the manifest's
    (``org.opencontainers.image.title`` …), ``reference`` is the tag. Returns the manifest's digest. Memory is
    constant. Raises ``InputError`` for links, pickled weights and names that leave ``/models``, ``SetupError``
    where ``out`` cannot be written.
    """
    if not _TAG.fullmatch(reference):
        raise InputError(f"{reference!r} is no tag of an image", hint="use a version like 0.1.0")
    sources = _sources(model, files)
    try:
        blobs = out / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        layers = [_write_layer(blobs, name, source) for name, source in sorted(sources.items())]
        config = {
            "architecture": "amd64",  # required by the format; weights run anywhere
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created_by": f"ilab: {layer.file}"} for layer in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _entry(CONFIG, _write_json_blob(blobs, config)),
            "layers": [{**_entry(LAYER, layer), "annotations": {FILE: layer.file}} for layer in layers],
            "annotations": dict(sorted(annotations.items())),
        }
        written = _write_json_blob(blobs, manifest)
        entry = {**_entry(MANIFEST, written), "annotations": {REFERENCE: reference}}
        write_json(out / "oci-layout", {"imageLayoutVersion": "1.0.0"})
        write_json(out / "index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    except OSError as error:
        raise disk_error(error, out) from error
    return written.digest


def read_layout(path: Path) -> Layout:
    """Read index, manifest and config; their digests are checked, the layers' are not (see :func:`verify_layout`).

    Raises ``InputError`` where ``path`` is not a layout with one image.
    """
    marker = _read_json(path / "oci-layout", path)
    if marker.get("imageLayoutVersion") != "1.0.0":
        raise InputError("this is not an OCI image layout of version 1.0.0", where=str(path))
    entries = _read_json(path / "index.json", path).get("manifests")
    if not isinstance(entries, list) or len(entries) != 1:
        raise InputError("the layout should hold exactly one image", where=str(path / "index.json"))
    entry = _descriptor(entries[0], path)
    manifest = _read_blob(path, entry)
    config = _read_blob(path, _descriptor(manifest.get("config"), path))
    layers = manifest.get("layers")
    if not isinstance(layers, list):
        raise InputError("the manifest lists no layers", where=str(_blob(path, entry)))
    annotations = entries[0].get("annotations")
    reference = annotations.get(REFERENCE, "") if isinstance(annotations, dict) else ""
    return Layout(path, entry.digest, str(reference), manifest, config, tuple(_descriptor(e, path) for e in layers))


def verify_layout(path: Path) -> list[str]:
    """Check every digest and size. Returns the problems as sentences; an empty list means that all is well."""
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
    rootfs = layout.config.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("diff_ids") != [layer.digest for layer in layout.layers]:
        problems.append("The image's config names other layers than its manifest.")
    known = {layer.digest for layer in layout.layers} | {layout.digest, layout.manifest["config"]["digest"]}
    for blob in sorted((path / "blobs" / "sha256").iterdir()):
        if f"sha256:{blob.name}" not in known:
            problems.append(f"{blob} belongs to no image of this layout.")
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
    for layer in layout.layers:
        blob = _blob(path, layer)
        try:
            with tarfile.open(blob, "r:") as archive:
                for member in archive:
                    _extract(archive, member, to, blob)
        except tarfile.TarError as error:
            raise InputError(f"this layer is not a plain tar file: {error}", where=str(blob)) from error
    return to / ROOT


class _HashingFile:
    """A file to write to that hashes and counts what passes."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._handle.write(data)

    def tell(self) -> int:
        return self.size


def _sources(model: Path, files: Mapping[str, bytes | Path]) -> dict[str, bytes | Path]:
    """Name below ``/models`` to contents."""
    sources: dict[str, bytes | Path] = {}
    for path in sorted(model.rglob("*")):
        name = path.relative_to(model).as_posix()
        if path.is_symlink():
            raise InputError("a package holds no links", where=str(path), hint="copy the file to its place")
        if path.is_file():
            sources[name] = path
    sources.update(files)
    for name in sources:
        if not _safe(PurePosixPath(name)) or str(PurePosixPath(name)) != name:
            raise InputError(f"{name!r} is no name for a file in a package", hint="use a plain relative path")
        if PurePosixPath(name).suffix in _PICKLES:
            raise InputError(
                f"{name} may hold pickled code, which runs where it is opened",
                where=str(model / name),
                hint="save the weights as safetensors, and remove that file",
            )
    if not sources:
        raise InputError("there is no model to package", where=str(model), hint="give a Hugging Face directory")
    if len(sources) > MOST_LAYERS:
        raise InputError(
            f"{len(sources)} files are more layers than container runtimes take ({MOST_LAYERS})",
            where=str(model),
            hint="save the weights in fewer, larger shards",
        )
    return sources


def _write_layer(blobs: Path, name: str, source: bytes | Path) -> Descriptor:
    temporary = blobs / f".layer.{os.getpid()}.tmp"
    with temporary.open("wb") as handle:
        hashing = _HashingFile(handle)
        with tarfile.open(mode="w", fileobj=hashing, format=tarfile.PAX_FORMAT, copybufsize=BLOCK) as archive:  # type: ignore[call-overload]
            inside = PurePosixPath(ROOT) / name
            for parent in reversed(inside.parents[:-1]):
                archive.addfile(_header(f"{parent}", tarfile.DIRTYPE, 0o755, 0))
            if isinstance(source, bytes):
                archive.addfile(_header(str(inside), tarfile.REGTYPE, 0o644, len(source)), io.BytesIO(source))
            else:
                with source.open("rb") as contents:
                    size = os.fstat(contents.fileno()).st_size
                    archive.addfile(_header(str(inside), tarfile.REGTYPE, 0o644, size), contents)
        handle.flush()
        os.fsync(handle.fileno())
    digest = hashing.digest.hexdigest()
    temporary.replace(blobs / digest)
    return Descriptor(f"sha256:{digest}", hashing.size, name)


def _header(name: str, kind: bytes, mode: int, size: int) -> tarfile.TarInfo:
    """A tar header in which nothing depends on who writes it, or when (TarInfo's owner and time are 0)."""
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.size = kind, mode, size
    return header


def _write_json_blob(blobs: Path, value: Mapping[str, Any]) -> Descriptor:
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.sha256(data).hexdigest()
    temporary = blobs / f".json.{os.getpid()}.tmp"
    with temporary.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(blobs / digest)
    return Descriptor(f"sha256:{digest}", len(data))


def _entry(media_type: str, descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": descriptor.digest, "size": descriptor.size}


def _descriptor(value: Any, path: Path) -> Descriptor:
    digest, size = (value.get("digest"), value.get("size")) if isinstance(value, dict) else (None, None)
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or not isinstance(size, int):
        raise InputError("a descriptor lacks its digest or size", where=str(path), hint="fetch or build it again")
    annotations = value.get("annotations")
    return Descriptor(digest, size, str(annotations.get(FILE, "")) if isinstance(annotations, dict) else "")


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


def _safe(path: PurePosixPath) -> bool:
    parts: Iterable[str] = path.parts
    return bool(path.parts) and not path.is_absolute() and not any(p == ".." or "\0" in p or "\\" in p for p in parts)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, to: Path, blob: Path) -> None:
    inside = PurePosixPath(member.name)
    whiteout = inside.name.startswith(".wh.")
    if not _safe(inside) or inside.parts[0] != ROOT or whiteout or not (member.isreg() or member.isdir()):
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
