"""A model as an OCI image on disk, written: see :mod:`ilab.packaging.oci` for the two forms.

Tar headers hold no time, owner or host fact, so the same file is the same layer everywhere and a registry stores it
once. Blobs are hashed while they are written, in blocks, beside their final name; ``index.json`` comes last, so a
layout is whole if and only if it has one.

A modelcar can stand on a base image. KServe's older sidecar starts a shell in it (``ln -s /proc/…/root/models``), so
there it needs one with a shell; Kubernetes mounts an image without a base just as well, as an image volume.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ilab.core.files import take_over, write_json
from ilab.core.store import digest_file, disk_error
from ilab.errors import InputError
from ilab.models.chat_template import json_object
from ilab.packaging.oci import (
    BLOCK,
    CONFIG,
    FILE,
    INDEX,
    LAYER,
    MANIFEST,
    REFERENCE,
    ROOT,
    Descriptor,
    Form,
    read_layout,
    safe,
)  # fmt: skip
from ilab.transfer.modelpack import RawLayer, model_pack

TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"
LICENCE = "org.opencontainers.image.licenses"
MOST_LAYERS = 120  # container runtimes stop at 127
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
_OLDER = {  # docker's names for what OCI calls
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": LAYER,
}


@dataclass(frozen=True)
class How:
    """The ``form``; for a modelcar the layout of a ``base`` image, None for none."""

    form: Form = "modelcar"
    base: Path | None = None


def write_layout(
    out: Path,
    model: Path,
    files: Mapping[str, bytes | Path],
    annotations: Mapping[str, str],
    reference: str,
    how: How = How(),
) -> str:
    """Write a model directory and more ``files`` (name in the model's folder to contents) as an image layout.

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
        if how.form == "modelpack":
            written = _model_pack(blobs, sources, annotations, model)
        else:
            written = _modelcar(blobs, sources, annotations, how.base)
        entry = {**_entry(MANIFEST, written), "annotations": {REFERENCE: reference}}
        write_json(out / "oci-layout", {"imageLayoutVersion": "1.0.0"})
        write_json(out / "index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    except OSError as error:
        raise disk_error(error, out) from error
    return written.digest


def _modelcar(
    blobs: Path, sources: Mapping[str, bytes | Path], annotations: Mapping[str, str], base: Path | None
) -> Descriptor:
    below, config = _on(base, blobs) if base else ([], _scratch())
    if len(sources) + len(below) > MOST_LAYERS:
        raise InputError(
            f"{len(sources) + len(below)} files and layers are more than container runtimes take ({MOST_LAYERS})",
            hint="save the weights in fewer, larger shards, or take a base image with fewer layers",
        )
    layers = [_write_layer(blobs, name, source) for name, source in sorted(sources.items())]
    config["rootfs"]["diff_ids"] += [layer.digest for layer in layers]
    config["history"] += [{"created_by": f"ilab: {layer.file}"} for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _entry(CONFIG, _write_json_blob(blobs, config)),
        "layers": [
            *(_entry(layer.media, layer) for layer in below),
            *({**_entry(LAYER, layer), "annotations": {FILE: layer.file}} for layer in layers),
        ],
        "annotations": dict(sorted(annotations.items())),
    }
    return _write_json_blob(blobs, manifest)


def _scratch() -> dict[str, Any]:
    """The config of an image without a base. The architecture is required by the format; weights run anywhere."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }


def _on(base: Path, blobs: Path) -> tuple[list[Descriptor], dict[str, Any]]:
    """The layers of a base image, taken over, and its config without what depends on when it was made."""
    layout = read_layout(base)
    rootfs = layout.config.get("rootfs")
    inside = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(inside, list) or len(inside) != len(layout.layers):
        raise InputError("this is no container image to build on", where=str(base), hint="give one like ubi9-micro")
    below = []
    for layer in layout.layers:
        name = layer.digest.removeprefix("sha256:")
        source = base / "blobs" / "sha256" / name
        if f"sha256:{digest_file(source)}" != layer.digest:
            raise InputError("a layer of the base image is damaged", where=str(source), hint="fetch it again")
        if not (blobs / name).exists():
            take_over(str(source), str(blobs / name))
        below.append(Descriptor(layer.digest, layer.size, media=_OLDER.get(layer.media, layer.media)))
    kept: dict[str, Any] = {
        name: layout.config[name] for name in ("architecture", "os", "variant", "config") if name in layout.config
    }
    history = [one for one in layout.config.get("history") or [] if isinstance(one, dict)]
    return below, {**kept, "rootfs": {"type": "layers", "diff_ids": list(inside)}, "history": history}


def _model_pack(
    blobs: Path, sources: Mapping[str, bytes | Path], annotations: Mapping[str, str], model: Path
) -> Descriptor:
    layers = [_write_raw(blobs, name, source) for name, source in sorted(sources.items())]
    licence = annotations.get(LICENCE, "")
    descriptor = {
        "name": annotations.get(TITLE, ""),
        "version": annotations.get(VERSION, ""),
        "licenses": [licence] if licence else [],
    }
    config = json_object(model / "config.json")
    about = {"architecture": "transformer", "precision": str(config.get("dtype") or config.get("torch_dtype") or "")}
    manifest, packed = model_pack(
        layers,
        {name: value for name, value in descriptor.items() if value},
        {name: value for name, value in about.items() if value},
        dict(sorted(annotations.items())),
    )
    _write_blob(blobs, packed)
    return _write_blob(blobs, manifest)


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
        if not safe(PurePosixPath(name)) or str(PurePosixPath(name)) != name:
            raise InputError(f"{name!r} is no name for a file in a package", hint="use a plain relative path")
        if PurePosixPath(name).suffix in _PICKLES:
            raise InputError(
                f"{name} may hold pickled code, which runs where it is opened",
                where=str(model / name),
                hint="save the weights as safetensors, and remove that file",
            )
    if not sources:
        raise InputError("there is no model to package", where=str(model), hint="give a Hugging Face directory")
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


def _write_raw(blobs: Path, name: str, source: bytes | Path) -> RawLayer:
    """A file as a layer. It is taken over by a hard link where the file system has them."""
    if isinstance(source, bytes):
        written = _write_blob(blobs, source)
        return RawLayer(name, written.digest, written.size)
    digest = digest_file(source)
    if not (blobs / digest).exists():
        take_over(str(source.resolve()), str(blobs / digest))
    return RawLayer(name, f"sha256:{digest}", source.stat().st_size)


def _write_json_blob(blobs: Path, value: Mapping[str, Any]) -> Descriptor:
    return _write_blob(blobs, json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def _write_blob(blobs: Path, data: bytes) -> Descriptor:
    digest = hashlib.sha256(data).hexdigest()
    temporary = blobs / f".blob.{os.getpid()}.tmp"
    with temporary.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(blobs / digest)
    return Descriptor(f"sha256:{digest}", len(data))


def _entry(media_type: str, descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": descriptor.digest, "size": descriptor.size}
