"""The way out: a model to a hub, a registry or a bucket. Safe files alone leave, as they alone come in.

A Hugging Face directory goes to a registry as a ModelPack (CNCF model-spec): each file is a layer just as it is, so the
layer's digest is the file's, and a registry stores a file once. A package of ours goes as it is. What is there already
is not sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ilab.core.events import Emit
from ilab.core.store import digest_file
from ilab.errors import InputError, ServiceError, SetupError
from ilab.transfer.address import Address
from ilab.transfer.choose import takes
from ilab.transfer.huggingface import ENDPOINT, MAIN, endpoint, refuse_offline
from ilab.transfer.modelpack import RawLayer, model_pack
from ilab.transfer.pull import manifest_of, parts
from ilab.transfer.registry import LATEST, LICENCE, MANIFEST, Registry
from ilab.transfer.s3 import Bucket
from ilab.transfer.shelf import gguf_parts, is_model
from ilab.transfer.upload import Blob, Upload


@dataclass(frozen=True)
class Outgoing:
    """``files`` is a name in the model's folder to the file; ``layout`` the folder of an OCI image, instead."""

    name: str
    files: Mapping[str, Path]
    layout: Path | None = None

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True)
class Pushed:
    """Where a model went, and the digest or address under which it is there."""

    address: str
    digest: str


def outgoing(path: Path) -> Outgoing:
    """What of ``path`` is sent. Raises ``InputError`` for what is neither model nor package."""
    if (path / "oci-layout").is_file():
        blobs = sorted((path / "blobs" / "sha256").iterdir())
        return Outgoing(path.name, {blob.name: blob for blob in blobs}, path)
    if not is_model(path):
        hint = "give a Hugging Face directory with safetensors, a GGUF file, or a package; see: ilab model list"
        raise InputError("this is no model", where=str(path), hint=hint)
    if path.is_file():
        return Outgoing(path.name, {file.name: file for file in gguf_parts(path)})
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    names = {file.relative_to(path).as_posix(): file for file in files}
    return Outgoing(path.resolve().name, {name: file for name, file in names.items() if takes(name)})


def push_hub(model: Outgoing, address: Address, token: str, emit: Emit) -> Pushed:
    """One commit to a repository of a hub, which is made where there is none; by ``huggingface_hub``.

    Raises ``SetupError`` without that package, ``InputError`` for a refusal, ``ServiceError`` for a failing hub.
    """
    refuse_offline()
    if model.layout is not None:
        hint = "send the model's folder, or the package to a registry: --dest-type oci"
        raise InputError("a package is for registries, not for a hub", where=str(model.layout), hint=hint)
    try:
        import httpx2
        from huggingface_hub import CommitOperationAdd, HfApi, constants
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise SetupError("uploads to a hub need huggingface_hub", hint="type: pip install 'ilab[train]'") from error
    disable_progress_bars()
    if endpoint() != ENDPOINT:  # Xet's storage belongs to the public hub; others take files by git LFS
        constants.HF_HUB_DISABLE_XET = True
    api = HfApi(endpoint=endpoint(), token=token or False)
    revision = address.revision or MAIN
    emit.progress(0, len(model.files), "files")
    try:
        api.create_repo(address.path, exist_ok=True)
        if revision != MAIN:
            api.create_branch(address.path, branch=revision, exist_ok=True)
        files = [CommitOperationAdd(name, str(path)) for name, path in model.files.items()]
        done = api.create_commit(address.path, files, commit_message=f"Upload {model.name}", revision=revision)
    except HfHubHTTPError as error:
        status = error.response.status_code
        where, message = endpoint(), f"the hub refuses the upload ({status})"
        if status in (401, 403, 404):
            hint = "a token that may write is needed: export HF_TOKEN=…"
            raise InputError(message, where=where, hint=hint) from error
        raise ServiceError(message, where=where, hint="try again later", retryable=True) from error
    except (httpx2.HTTPError, OSError) as error:
        hint = "is this machine online? see HF_ENDPOINT"
        raise ServiceError(f"the hub cannot be reached ({error})", where=endpoint(), hint=hint) from error
    except ValueError as error:  # of huggingface_hub itself: a card or an answer that makes no sense
        message = f"the hub does not take it: {str(error).strip().splitlines()[0]}"
        raise ServiceError(message, where=endpoint(), hint="is README.md right, and HF_ENDPOINT a hub?") from error
    emit.progress(len(model.files), len(model.files), "files")
    return Pushed(f"{address}::{revision}", str(done.oid))


def push_bucket(model: Outgoing, bucket: Bucket, address: Address, emit: Emit) -> Pushed:
    """Every file as an object; those that are there with the same digest are left."""
    sent = _Sent(emit, model.size)
    files = dict(model.files)
    if model.layout is not None:
        papers = {name: model.layout / name for name in ("oci-layout", "index.json")}
        files = papers | {f"blobs/sha256/{name}": path for name, path in model.files.items()}
    for name, path in files.items():
        bucket.put(name, path, sent.add)
    return Pushed(str(address), "")


def push_registry(model: Outgoing, registry: Registry, licence: str, emit: Emit) -> Pushed:
    """An image in a registry under the address's tag. Raises ``InputError`` where we may not write there."""
    sent = _Sent(emit, model.size)
    if model.layout is not None:
        body, media, blobs = _of_layout(model.layout)
    else:
        body, media, blobs = _model_pack(model, licence)
    upload = Upload(registry, sent.add)
    for digest, content in blobs.items():
        upload.push(Blob(digest, content))
    tag = registry.address.revision or LATEST
    answer = registry.ask("PUT", registry.url(f"manifests/{tag}"), {"content-type": media}, body, actions="pull,push")
    if not answer.ok:
        raise registry.failure(answer)
    return Pushed(f"{registry.address}:{tag}", f"sha256:{hashlib.sha256(body).hexdigest()}")


class _Sent:
    def __init__(self, emit: Emit, total: int) -> None:
        self._emit, self._total, self._done = emit, total, 0

    def add(self, count: int) -> None:
        self._done += count
        unit, scale = ("MB", 1e6) if self._total >= 10_000_000 else ("kB", 1e3)
        self._emit.progress(round(self._done / scale), max(1, round(self._total / scale)), unit)


def _model_pack(model: Outgoing, licence: str) -> tuple[bytes, str, dict[str, bytes | Path]]:
    """Manifest, its media type, and the blobs by digest. Nothing depends on time or place."""
    layers, blobs = [], dict[str, bytes | Path]()
    for name, path in sorted(model.files.items()):
        layers.append(RawLayer(name, f"sha256:{digest_file(path)}", path.stat().st_size))
        blobs[layers[-1].digest] = path
    descriptor = {"name": model.name, **({"licenses": [licence]} if licence else {})}
    manifest, config = model_pack(layers, descriptor, {}, {LICENCE: licence} if licence else {})
    return manifest, MANIFEST[0], blobs | {f"sha256:{hashlib.sha256(config).hexdigest()}": config}


def _of_layout(folder: Path) -> tuple[bytes, str, dict[str, bytes | Path]]:
    """As :func:`_model_pack`, of an image layout with one image."""
    found = manifest_of(folder)
    blobs = folder / "blobs" / "sha256"
    listed = parts(found, str(folder))
    return found.body, found.media, {part.digest: blobs / part.digest.removeprefix("sha256:") for part in listed}
