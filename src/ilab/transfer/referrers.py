"""What stands beside an image in a registry, a signature for example: a manifest that names the image as its subject.

OCI distribution-spec 1.1, referrers: a registry that knows of subjects lists them itself; for one that does not, an
index under the tag ``sha256-<digest>`` does, which the client keeps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ilab.core.transport import shown
from ilab.errors import ServiceError
from ilab.transfer.pull import INDEX
from ilab.transfer.registry import DIGEST, MANIFEST, Manifest, Registry
from ilab.transfer.upload import ACTIONS, Blob, Upload

EMPTY = "application/vnd.oci.empty.v1+json"
MOST = 32  # referrers of one kind that are looked at
LARGEST = 4 << 20  # bytes of what stands beside an image


def beside(subject: Manifest, kind: str, content: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of ``content`` (of artifact type ``kind``) beside ``subject``, and its blobs by digest."""
    blobs = {f"sha256:{hashlib.sha256(blob).hexdigest()}": blob for blob in (b"{}", content)}
    empty, held = blobs
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST[0],
        "artifactType": kind,
        "config": {"mediaType": EMPTY, "digest": empty, "size": 2},
        "layers": [{"mediaType": kind, "digest": held, "size": len(content)}],
        "subject": {"mediaType": subject.media, "digest": subject.digest, "size": len(subject.body)},
    }
    body = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    return Manifest(f"sha256:{hashlib.sha256(body).hexdigest()}", body, manifest), blobs


def attach(registry: Registry, subject: Manifest, kind: str, content: bytes) -> str:
    """Put ``content`` beside the image ``subject``; returns the digest of its manifest."""
    manifest, blobs = beside(subject, kind, content)
    upload = Upload(registry, lambda count: None)
    for digest, blob in blobs.items():
        upload.push(Blob(digest, blob))
    knows = _put(registry, manifest.digest, manifest.media, manifest.body).get("oci-subject") == subject.digest
    if not knows:
        tag = _tag(subject.digest)
        listed = [one for one in _index(registry, registry.url(f"manifests/{tag}")) if one["digest"] != manifest.digest]
        entry = {
            "mediaType": manifest.media,
            "digest": manifest.digest,
            "size": len(manifest.body),
            "artifactType": kind,
        }
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, entry]}
        _put(registry, tag, INDEX, json.dumps(index, sort_keys=True).encode())
    return manifest.digest


def attached(registry: Registry, digest: str, kind: str) -> list[bytes]:
    """What of this kind stands beside the image ``digest``; every byte has the digest that names it."""
    url = registry.url(f"referrers/{digest}")
    listed = _index(registry, url) or _index(registry, registry.url(f"manifests/{_tag(digest)}"))
    found = []
    for entry in [one for one in listed if one.get("artifactType") == kind][:MOST]:
        manifest = registry.manifest(str(entry["digest"]))
        subject = manifest.contents.get("subject")
        if isinstance(subject, dict) and subject.get("digest") == digest:
            found.append(_content(registry, manifest))
    return found


def _content(registry: Registry, manifest: Manifest) -> bytes:
    layers = manifest.contents.get("layers")
    layer = layers[0] if isinstance(layers, list) and layers and isinstance(layers[0], dict) else {}
    named, size = layer.get("digest"), layer.get("size")
    where = str(registry.address)
    if not isinstance(named, str) or not DIGEST.fullmatch(named) or not isinstance(size, int) or size > LARGEST:
        raise ServiceError("what stands beside the image makes no sense", where=where)
    answer = registry.ask("GET", registry.url(f"blobs/{named}"))
    if not answer.ok:
        raise registry.failure(answer)
    if f"sha256:{hashlib.sha256(answer.body).hexdigest()}" != named:
        raise ServiceError("what stands beside the image is not what its digest says", where=where)
    return answer.body


def _put(registry: Registry, reference: str, media: str, body: bytes) -> Mapping[str, str]:
    url = registry.url(f"manifests/{reference}")
    answer = registry.ask("PUT", url, {"content-type": media}, body, actions=ACTIONS)
    if not answer.ok:
        raise registry.failure(answer)
    return answer.headers


def _index(registry: Registry, url: str) -> list[dict[str, Any]]:
    """The entries of an index, none where there is no such thing."""
    answer = registry.ask("GET", url, {"accept": INDEX})
    if answer.status in (400, 404, 405):
        return []
    if not answer.ok:
        raise registry.failure(answer)
    found = answer.json()
    entries = found.get("manifests") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise ServiceError("the registry gives no index", where=shown(url))
    plain = [one for one in entries if isinstance(one, dict)]
    return [one for one in plain if isinstance(one.get("digest"), str) and DIGEST.fullmatch(one["digest"])]


def _tag(digest: str) -> str:
    return digest.replace(":", "-")
